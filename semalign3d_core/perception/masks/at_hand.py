"""Masks of annotated training images where nobody named a source: for each image the best one that is at hand."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.look import features_and_mask
from semalign3d_core.perception.masks import Box, MaskSource, Points, create
from semalign3d_core.runtime.errors import MissingDependencyError, MissingFileError, MissingWeightsError

HOLDS = 0.7  # of the annotated keypoints, that a found mask must hold: else it is of something else
GROWN = 0.05  # of the object's size, by which the hull of the keypoints is grown


class AtHandMasks(MaskSource):
    """Tries sources in turn; the last resort is the hull of the annotated keypoints. ``used`` counts how many images each gave.

    sources: {name: function(image, box, points) -> mask or None}
    """

    any_image = False

    def __init__(self, sources: dict[str, Callable]) -> None:
        self.sources, self.used = sources, Counter[str]()
        self.name = "auto(" + ", ".join([*sources, "hull"]) + ")"

    def told(self) -> str:
        """Which source gave how many masks."""
        return ", ".join(f"{name} ({count} looks)" for name, count in self.used.most_common())

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """The first mask (h, w) that holds the image's annotated keypoints, or their hull."""
        keypoints = _annotated(image)
        for name, source in self.sources.items():
            try:
                mask = source(image, box, points)
            except MissingFileError:
                continue
            if mask is not None and _holds(mask, keypoints):
                self.used[name] += 1
                return mask
        self.used["hull of the keypoints"] += 1
        return _hull(image, keypoints)


def masks_at_hand(dataset_root: Path, category: str) -> AtHandMasks:
    """The sources for images of a data set folder: masks beside the images, SAM 2 if its weights are here, the embedded backbone."""
    from semalign3d_core.perception.backbones.compact import CompactBackbone
    from semalign3d_core.perception.masks.compact import CompactMasks
    from semalign3d_core.perception.weights.known import KNOWN
    from semalign3d_core.perception.weights.store import locate

    sources: dict[str, Callable] = {}
    if any((Path(dataset_root) / "Segmentation" / category).glob("[!.]*.png")):
        sources["precomputed"] = create("precomputed", dataset_root).segment  # type: ignore[union-attr]
    try:
        locate(KNOWN["sam2:tiny"], may_download=False)
        sources["sam2:tiny"] = create("sam2:tiny", dataset_root).segment  # type: ignore[union-attr]
    except (MissingWeightsError, MissingDependencyError):
        backbone = CompactBackbone()
        own = CompactMasks(backbone, category, shared=True)
        sources["compact"] = lambda image, box, points: features_and_mask(image, backbone, own, box, points)[1]
    return AtHandMasks(sources)


def _annotated(image: Any) -> np.ndarray:
    """(N, 2) annotated keypoints of an image of a data set, in its pixels."""
    keypoints = image.record.keypoints[np.isfinite(image.record.keypoints).all(1)].astype(np.float64)
    if image.mirrored:
        keypoints[:, 0] = image.width - 1 - keypoints[:, 0]
    return keypoints


def _holds(mask: torch.Tensor, keypoints: np.ndarray) -> bool:
    """Whether enough keypoints lie in the mask, or at its edge."""
    if not len(keypoints):
        return True
    reach = max(3, round(GROWN * np.ptp(keypoints, axis=0).max()))
    grown = cv2.dilate(mask.cpu().numpy().astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    column, row = np.clip(keypoints.round().astype(int), 0, [grown.shape[1] - 1, grown.shape[0] - 1]).T
    return grown[row, column].mean() >= HOLDS


def _hull(image: ImageInput, keypoints: np.ndarray) -> torch.Tensor:
    mask: np.ndarray = np.zeros((image.height, image.width), np.uint8)
    if len(keypoints):
        cv2.fillConvexPoly(mask, cv2.convexHull(keypoints.round().astype(np.int32)), 1)
        reach = max(2, round(GROWN * np.ptp(keypoints, axis=0).max()))
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    return torch.from_numpy(mask.astype(bool))
