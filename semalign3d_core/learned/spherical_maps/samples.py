"""Training samples of SphericalMaps: what the mapper reads of an image, where its object is, and from which side it is seen.

Features are extracted once and kept in one file per image, so that training needs the network alone and can be interrupted. With
``crops`` each image is kept as so many random crops, drawn as the published training draws one anew in every epoch.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm import tqdm

from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.learned.spherical_maps.inference import mapper_input
from semalign3d_core.learned.spherical_maps.viewpoint import BINS, azimuth_bins
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import ImageInput, read_image
from semalign3d_core.perception.look import close_up
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import read_json, write_json
from semalign3d_core.runtime.tensors import open_tensors, write_tensors

AREA, ASPECT, ATTEMPTS = (0.5, 1.5), (3 / 4, 4 / 3), 10  # of crops, relative to the image


@dataclass(frozen=True)
class SampleConfig:
    """What samples are made of.

    crops: random crops of each image; 0: the image itself, or the object's surroundings for backbones that look there
    side:  of the crops in pixels
    raw:   the mapper reads features as the backbone gives them (published, DINOv2) in place of unit ones
    masks: ``cells``: a cell is object where at least half of it is; ``published``: the value at the upper left pixel of the cell, of
           crops a bicubic one, which may be a fraction and lie outside 0 to 1
    viewpoints: ``bins`` of 45 degrees, as published, or ``degrees`` where the annotation has ``azimuth_deg``
    mirror_azimuth: azimuth that a mirror image leaves as it is, for objects that are alike on both sides (0 where azimuth 0 looks at the
           front): every view is used mirrored, too, seen from the mirrored side; None: no mirror images, as published
    """

    crops: int = 0
    side: int = 448
    raw: bool = False
    masks: Literal["cells", "published"] = "cells"
    viewpoints: Literal["bins", "degrees"] = "bins"
    mirror_azimuth: float | None = None
    seed: int = 0


class SampleSet:
    """M samples in files; see :meth:`take`.

    files: [(path, number of the view in it)];  categories (M,) int64;  degrees (M,) azimuths;  cells: per side of the grids
    """

    def __init__(self, files: list[tuple[Path, int]], categories: list[int], degrees: list[float]) -> None:
        if not files:
            raise InputError("there is no image to train on: none of them has a mask")
        self.files, self.categories, self.degrees = files, torch.tensor(categories), torch.tensor(degrees, dtype=torch.float32)
        features, _ = self._read(0)
        self.cells, self.channels = math.isqrt(len(features)), features.shape[1]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, index: torch.Tensor, cells: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, N, C) float32 and masks (B, N, 1) of samples ``index`` (B,), of all cells or of those in ``cells`` (B, N)."""
        features, masks = zip(*(self._read(i) for i in index.tolist()), strict=True)
        if cells is not None:
            features, masks = (tuple(v[c] for v, c in zip(values, cells, strict=True)) for values in (features, masks))
        return torch.stack(features).float(), torch.stack(masks).float()[..., None]

    def _read(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        path, view = self.files[i]
        with open_tensors(path) as stored:
            return stored.get_slice("features")[view], stored.get_slice("masks")[view]


def gather_samples(
    records: Sequence[ImageRecord],
    categories: Sequence[str],
    backbone: FeatureBackbone,
    segmenter: MaskSource,
    folder: Path,
    config: SampleConfig = SampleConfig(),  # noqa: B008 (frozen)
    quiet: bool = False,
) -> SampleSet:
    """The :class:`SampleSet` of image records; what is missing in ``folder`` is extracted, images without a mask are left out.

    records: [:class:`ImageRecord`] with ``azimuth_id`` or ``azimuth_deg``;  categories: the decoder's, in its order
    backbone, segmenter: providers
    """
    if config.crops and not backbone.any_image:
        raise InputError(f"{backbone.name} knows whole images only: crops must be 0")
    degrees = [_azimuth(record, config) for record in records]
    _claim(Path(folder), backbone, segmenter, config)
    files, labels = [], []
    azimuths: list[float] = []
    for record, azimuth in zip(tqdm(records, desc="features", unit="image", disable=quiet or None), degrees, strict=True):
        path = Path(folder) / record.category / f"{record.name}.safetensors"
        count = _views(record, path, backbone, segmenter, config)
        both = [azimuth] * count if config.mirror_azimuth is None else _and_mirrored(azimuth, config.mirror_azimuth, count)
        files += [(path, view) for view in range(count)]
        labels += [categories.index(record.category)] * count
        azimuths += both
    return SampleSet(files, labels, azimuths)


def mask_to_cells(masks: torch.Tensor, cells: tuple[int, int]) -> torch.Tensor:
    """Masks (B, h, w) at the upper left pixel of each of ``cells`` (rows, columns): (B, rows, columns), as published."""
    return interpolate(masks[:, None].float(), size=cells, mode="nearest")[:, 0]


def random_crop(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop: a share of the area and an aspect; what does not fit is drawn again, then the middle."""
    for _ in range(ATTEMPTS):
        area, aspect = height * width * rng.uniform(*AREA), np.exp(rng.uniform(*np.log(ASPECT)))
        w, h = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _azimuth(record: ImageRecord, config: SampleConfig) -> float:
    """Azimuth in degrees: the annotated one, or the middle of its bin, which a mirror image leaves in the middle of a bin."""
    bin_, exact = record.attributes.get("azimuth_id"), record.attributes.get("azimuth_deg")
    known = bin_ is not None and 0 <= int(bin_) < BINS
    if exact is not None and (config.viewpoints == "degrees" or not known):
        return float(exact) if config.viewpoints == "degrees" else (float(azimuth_bins(exact)) + 0.5) * 360 / BINS
    if bin_ is not None and known and config.viewpoints == "bins":
        return (int(bin_) + 0.5) * 360 / BINS
    wanted = "azimuth_deg" if config.viewpoints == "degrees" else f"azimuth_id (0 to {BINS - 1}) or azimuth_deg"
    raise FileFormatError(f"the annotation of {record.category}/{record.name} has no {wanted}: add from which side the object is seen")


def annotated_azimuth(record: ImageRecord) -> float | None:
    """Azimuth in degrees of an :class:`ImageRecord`, to its bin of 45 where nothing finer is known; None where neither is annotated."""
    exact, bin_ = record.attributes.get("azimuth_deg"), record.attributes.get("azimuth_id")
    return float(exact) if exact is not None else None if bin_ is None else (int(bin_) + 0.5) * 360 / BINS


def _and_mirrored(azimuth: float, axis: float, count: int) -> list[float]:
    """Azimuths of ``count`` views, the second half of which are mirror images."""
    return [azimuth] * (count // 2) + [2 * axis - azimuth] * (count // 2)


def _claim(folder: Path, backbone: FeatureBackbone, segmenter: MaskSource, config: SampleConfig) -> None:
    made_of = {"features": backbone.name, "masks": segmenter.name, **asdict(config)}
    path = folder / "samples.json"
    if path.is_file() and read_json(path) != made_of:
        raise InputError(f"{folder} holds samples made in another way ({path} says how): choose another folder, or remove this one")
    write_json(path, made_of, ours=True)


def _views(record: ImageRecord, path: Path, backbone: FeatureBackbone, segmenter: MaskSource, config: SampleConfig) -> int:
    """Number of views in an image's file, which is written first where it is missing; 0 without a mask."""
    if not path.is_file():
        image = read_image(record.path, record)
        mask = segmenter.segment(image)
        if mask is None or not mask.any():
            return 0
        views = list(_crops(image, mask, config)) if config.crops else [(close_up(image, mask, backbone), mask.float())]
        if config.mirror_azimuth is not None:
            views += [(image.mirror(), mask.flip(1)) for image, mask in views]
        tensors = zip(*(_view(view, cut, backbone, config) for view, cut in views), strict=True)
        names = ("features", "masks")
        write_tensors(path, {name: torch.stack(values) for name, values in zip(names, tensors, strict=True)}, ours=True)
    with open_tensors(path) as stored:
        return stored.get_slice("masks").get_shape()[0]


def _view(image: ImageInput, mask: torch.Tensor, backbone: FeatureBackbone, config: SampleConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (N, C) float16 and masks (N,) float32 of one view; mask (h, w) float."""
    values, grid = mapper_input(backbone, image, config.raw)
    if config.masks == "published":
        share = mask_to_cells(grid.square(mask[None]), (grid.cells, grid.cells))[0]
    else:
        share = (grid.cells_inside(mask > 0.5) >= 0.5).float()
    return values.flatten(1).T.half().contiguous(), share.flatten().contiguous()


def _crops(image: ImageInput, mask: torch.Tensor, config: SampleConfig) -> Iterator[tuple[ImageInput, torch.Tensor]]:
    """(image, mask) of every random crop, bicubic with antialiasing, pictures rounded to 8 bit."""
    record: Any = image.record
    rng = np.random.default_rng([config.seed, zlib.crc32(f"{record.category}/{record.name}".encode())])
    together = torch.cat([torch.from_numpy(image.rgb).permute(2, 0, 1).float(), mask[None].float() * 255])
    for _ in range(config.crops):
        top, left, height, width = random_crop(image.height, image.width, rng)
        part = together[None, :, top : top + height, left : left + width]
        crop = interpolate(part, size=(config.side, config.side), mode="bicubic", antialias=True)[0]
        rgb = crop[:3].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
        yield ImageInput(rgb, image.name, image.record), crop[3] / 255
