"""Pictures that SFNet sees: those it is trained on, with masks, and those it matches."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semalign3d_core.learned.sfnet.samples import CELL
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import files_below
from semalign3d_core.runtime.pictures import read_labels

PICTURES = ("JPEGImages", "images")
MASKS = ("SegmentationClass", "Segmentation", "masks")
VOID = 255  # in Pascal VOC's masks: the border between two objects


def canvas(rgb: np.ndarray, cells: int) -> torch.Tensor:
    """(h, w, 3) uint8 to the network's input (3, 16 cells, 16 cells) in [0, 1]: resized by PIL, aspect not kept, a ring of black cells."""
    inner = CELL * (cells - 2)
    small = np.asarray(Image.fromarray(rgb).resize((inner, inner), Image.Resampling.BILINEAR))
    return torch.nn.functional.pad(torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 255, (CELL,) * 4)


@dataclass(frozen=True)
class MaskedPicture:
    """A picture file and the file of its mask, in which everything but zero is the object (in Pascal VOC's, 255 is not)."""

    picture: Path
    mask: Path

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """((h, w, 3) uint8, (h, w) uint8 with 255 on the object)."""
        rgb, labels = read_image(self.picture).rgb, read_labels(self.mask)
        if labels.shape != rgb.shape[:2]:
            raise FileFormatError(f"{self.mask} has {labels.shape[::-1]} pixels, its image {rgb.shape[1::-1]}; write it again")
        objects = (labels > 0) & (labels != VOID) if self.mask.parent.name == MASKS[0] else labels > 0
        return rgb, np.where(objects, 255, 0).astype(np.uint8)


def masked_pictures(folder: str | Path, left_out: Collection[str] = ()) -> list[MaskedPicture]:
    """All :class:`MaskedPicture` of a folder, sorted: Pascal VOC's layout, a data set folder of ours, or ``images`` beside ``masks``.

    left_out: names (without suffix) of pictures that are not for training. A mask has its picture's name and place, and the suffix .png.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"folder {folder} does not exist")
    pictures, masks = (next((folder / name for name in names if (folder / name).is_dir()), None) for names in (PICTURES, MASKS))
    if pictures is None or masks is None:
        raise InputError(f"{folder}: expected images in {' or '.join(PICTURES)} and masks in {', '.join(MASKS)}")
    found = {
        path.relative_to(masks).with_suffix(""): path for path in files_below(masks) if path.suffix == ".png" and path.stem not in left_out
    }
    files = {path.relative_to(pictures).with_suffix(""): path for path in files_below(pictures)}
    if lost := sorted(set(found) - set(files)):
        raise MissingFileError(f"{folder}: {len(lost)} masks have no image, the first is {found[lost[0]]}")
    if not found:
        raise InputError(f"{masks} holds no masks (.png)")
    return [MaskedPicture(files[name], mask) for name, mask in found.items()]
