"""Masks of a folder of pictures whose pixels say what they show: one object, several objects, or several classes."""

from pathlib import Path

import numpy as np

from semalign3d_core.runtime.files import read_text
from semalign3d_core.runtime.pictures import read_labels

VOID = 255  # borders and doubtful pixels in VOC's masks, where there are other labels
SHADES = 64  # a picture with more values is no list of labels, but a mask with soft edges


class LabelMasks:
    """Reads ``folder``/<image name>.png: above 0 is object, and of several labels the one of the object.

    category: its name in the annotation file. Its colour is looked up in ``labelmap.txt`` (CVAT) in the folder or beside it. Where that
    does not say it, the object is the label under most of its keypoints.
    """

    def __init__(self, folder: Path, category: str) -> None:
        self.folder, self._colour = Path(folder), None
        for place in (self.folder, self.folder.parent):
            if (place / "labelmap.txt").is_file():
                self._colour = _labelmap(place / "labelmap.txt").get(category.strip().lower())
                break

    def read(self, image: Path, keypoints: np.ndarray) -> np.ndarray:
        """(h, w) bool mask of the object with these keypoints (K, 2) of an image file."""
        labels = read_labels(self.folder / f"{Path(image).stem}.png")
        if self._colour is not None and (labels == self._colour).any():
            return labels == self._colour
        return object_pixels(labels, keypoints)


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


def _labelmap(path):
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
