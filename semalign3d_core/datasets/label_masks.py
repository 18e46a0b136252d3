"""Masks of a folder of pictures whose pixels say what they show: one object, several objects, or several classes."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import read_text
from semalign3d_core.runtime.pictures import read_labels

VOID = 255  # borders and doubtful pixels in VOC's masks, where there are other labels
DEEPEST = 4  # folders above an image that may be repeated among the masks
SHADES = 64  # a picture with more values is no list of labels, but a mask with soft edges


class LabelMasks:
    """Reads ``folder``/<image name>.png, or in folders as the image lies in.

    Above 0 is object, and of several labels the one of the object.

    images: all of the file; a name that two of them have needs the folder
    category: its name in the annotation file. Its colour is looked up in ``labelmap.txt`` (CVAT) in the folder or beside it. Where that
    does not say it, the object is the label under most of its keypoints.
    """

    def __init__(self, folder: Path, category: str, images: Iterable[Path] = ()) -> None:
        self.folder, self._colour = Path(folder), None
        self._twice = {stem for stem, count in Counter(path.stem for path in images).items() if count > 1}
        for place in (self.folder, self.folder.parent):
            if (place / "labelmap.txt").is_file():
                self._colour = _labelmap(place / "labelmap.txt").get(category.strip().lower())
                break

    def read(self, image: Path, keypoints: np.ndarray) -> np.ndarray:
        """(h, w) bool mask of the object with these keypoints (K, 2) of an image file."""
        labels = read_labels(self._path(Path(image)))
        if self._colour is not None and (labels == self._colour).any():
            return labels == self._colour
        return object_pixels(labels, keypoints)

    def _path(self, image: Path) -> Path:
        """The mask of an image: as deep in folders as the image is, where there are such; never one that several images might mean."""
        names = [Path(*image.parts[-depth:]).with_suffix(".png") for depth in range(min(len(image.parts) - 1, DEEPEST), 1, -1)]
        deep = next((self.folder / name for name in names if (self.folder / name).is_file()), None)
        if deep is None and image.stem in self._twice:
            where = self.folder / image.parent.name / f"{image.stem}.png"
            raise InputError(f"several images are called {image.stem!r}: the mask of {image} must be {where}")
        return deep or self.folder / f"{image.stem}.png"


def object_pixels(labels: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """(h, w) bool: where ``labels`` (h, w) shows the object with ``keypoints`` (K, 2), NaN where not annotated.

    All that is not 0 if there is one label, or many shades; else the label under most keypoints. 255 beside other labels is void.
    """
    known = [value for value in np.unique(labels) if value != 0]
    if len(known) > 1 and len(known) <= SHADES:
        known = [value for value in known if value != VOID]
        points = np.rint(np.asarray(keypoints, dtype=np.float64)[np.isfinite(keypoints).all(1)]).astype(np.int64)
        inside = ((points >= 0) & (points < labels.shape[::-1])).all(1)
        under = labels[points[inside, 1], points[inside, 0]]
        counts = [int((under == value).sum()) for value in known]
        if max(counts) > 0:
            return labels == known[int(np.argmax(counts))]
        return np.isin(labels, known)
    return labels != 0


def _labelmap(path: Path) -> dict[str, int]:
    """{label in lower case: colour as :func:`read_labels` gives it} of lines ``name:red,green,blue:parts:actions``."""
    colours = {}
    for line in read_text(path).splitlines():
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(value) for value in rest.partition(":")[0].split(","))
        except ValueError:
            continue  # a comment
        colours[name.strip().lower()] = red if red == green == blue else red + 256 * green + 65536 * blue
    return colours
