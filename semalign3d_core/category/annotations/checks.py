"""Checks of annotated keypoints before anything is computed from them: what is dropped, and whether a shape is determined."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.category.config import DataPolicy
from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.runtime.errors import InputError

MINIMUM_IMAGES = 5  # below which a build is refused


@dataclass
class Problems:
    """What was wrong with the data, for the report: images left out, keypoints dropped, remarks.

    skipped: {image: reason}; dropped: {image: [reason]}; warnings: [text]
    """

    skipped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def annotated_count(record: ImageRecord) -> int:
    """Number of annotated keypoints of an image."""
    return int((~np.isnan(record.keypoints[:, 0])).sum())


def checked_keypoints(record: ImageRecord, names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """(K, 2) float32 pixels, NaN where not annotated or unusable, and the reasons of what was dropped.

    Keypoints outside the image and labels that share one position are dropped: neither tells where the point is.
    Raises :class:`InputError` if the number of keypoints is not that of the category.
    """
    keypoints = torch.as_tensor(record.keypoints, dtype=torch.float32).clone()
    if keypoints.shape != (len(names), 2):
        raise InputError(f"{record.name}: {len(keypoints)} keypoints are annotated, the category has {len(names)}; correct the annotation")
    reasons = []
    limits = torch.tensor([record.width - 0.5, record.height - 0.5])
    given = ~torch.isnan(keypoints).any(1)
    outside = given & ((keypoints < -0.5) | (keypoints > limits)).any(1)
    for k in outside.nonzero()[:, 0].tolist():
        x, y = keypoints[k].tolist()
        reasons.append(f"keypoint {names[k]!r} at ({x:.1f}, {y:.1f}) is outside the {record.width} x {record.height} image")
    distance = torch.cdist(keypoints.nan_to_num(nan=torch.inf), keypoints.nan_to_num(nan=torch.inf)).nan_to_num(nan=torch.inf)
    same = (distance < 1e-3) & given & given[:, None] & ~torch.eye(len(names), dtype=torch.bool)
    double = same.any(1) & ~outside
    if double.any():
        shared = ", ".join(repr(names[k]) for k in double.nonzero()[:, 0].tolist())
        reasons.append(f"keypoints {shared} share one position with another keypoint")
    keypoints[outside | double | ~given] = torch.nan
    return keypoints, reasons


def images_per_label(keypoints: Tensor, flip: Tensor | None) -> Tensor:
    """(K,) in how many images each keypoint, or its mirror partner, is annotated; keypoints: (N, K, 2) with NaN."""
    seen = ~torch.isnan(keypoints[..., 0])
    if flip is not None:
        seen = seen | seen[:, flip]
    return seen.sum(0)


def usable_flip(flip_permutation: Sequence[int]) -> Tensor | None:
    """The flip permutation as a tensor, or None where a category has no left and right (the identity)."""
    flip = torch.as_tensor(flip_permutation, dtype=torch.int64)
    return None if torch.equal(flip, torch.arange(len(flip))) else flip


def present_keypoints(keypoints: Tensor, names: Sequence[str], flip: Tensor | None, policy: DataPolicy, problems: Problems) -> Tensor:
    """(K,) bool: keypoints of (N, K, 2) that enough images show; those that too few show become warnings of ``problems``.

    Raises :class:`InputError` with all counts when what remains cannot determine a shape.
    """
    counts = images_per_label(keypoints, flip)
    present = counts >= policy.images_per_keypoint
    for k in ((counts > 0) & ~present).nonzero()[:, 0].tolist():
        problems.warnings.append(
            f"keypoint {names[k]!r} is annotated in {int(counts[k])} images, {policy.images_per_keypoint} are needed: marked absent"
        )
    images = len(keypoints)
    observed = int((~torch.isnan(keypoints[..., 0]))[:, present].sum())
    enough = int(present.sum()) >= 4 and images >= MINIMUM_IMAGES and trust_ratio(observed, images, int(present.sum())) >= 1
    if not enough:
        table = ", ".join(f"{name} {int(count)}" for name, count in zip(names, counts, strict=True))
        raise InputError(
            f"the annotations cannot determine a shape: {images} usable images (at least {MINIMUM_IMAGES} are needed), "
            f"{int(present.sum())} keypoints with at least {policy.images_per_keypoint} images each (at least 4 are needed), "
            f"{observed} annotated points in all. Images per keypoint: {table}. {_remedy(images, problems.skipped)}"
        )
    return present


def _remedy(images: int, skipped: dict[str, str]) -> str:
    """What to do when too little is left: the reason why most images were left out, if most were."""
    if len(skipped) <= images:
        return "Annotate more images"
    name, reason = next(iter(skipped.items()))
    return f"{len(skipped)} images were left out, {name} because: {reason}"


def trust_ratio(observed: int, images: int, keypoints: int) -> float:
    """2 x annotated points / (6 per image + 3 K / 2): equations per unknown; builds below 1.6 failed in measurements."""
    return 2 * observed / (6 * images + 1.5 * max(keypoints, 1))
