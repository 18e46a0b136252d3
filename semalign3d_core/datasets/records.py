"""What a data set hands to the rest of the package."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from semalign3d_core.runtime.errors import InputError


def category_of(pair_name: str) -> str:
    """The category of a pair: what stands behind the last colon of its name."""
    return pair_name.rpartition(":")[2]


def check_categories(wanted: Sequence[str] | None, known: Sequence[str], where: Path) -> None:
    """Raises :class:`InputError` for the first of ``wanted`` (None: no wish) that is not ``known``."""
    for category in wanted or ():
        if category not in known:
            raise InputError(f"unknown category {category!r}: {where} has {', '.join(known)}")


@dataclass(frozen=True)
class KeypointSpec:
    """The keypoints of a category: K names and the label each becomes in the mirror image (K indices)."""

    names: tuple[str, ...]
    flip_permutation: tuple[int, ...]

    @classmethod
    def unnamed(cls, count: int, flip_permutation: Sequence[int] | None = None) -> "KeypointSpec":
        """``count`` keypoints that have numbers only; without a permutation each is its own mirror image."""
        return cls(tuple(f"kp{label:02d}" for label in range(count)), tuple(flip_permutation or range(count)))


@dataclass(frozen=True)
class ImageRecord:
    """One annotated image.

    category, name: together they identify the image in its data set (``name`` has no suffix)
    path:       the image file;  height, width: its size in pixels
    keypoints:  (K, 2) float32 pixels, NaN where not annotated
    box:        (4,) float32 x1, y1, x2, y2 of the object, or None
    attributes: further annotation, as published (azimuth_id, truncated, pose, ...)
    remedy:     how to get the image file if it is missing, "" where nothing can be said
    """

    category: str
    name: str
    path: Path
    height: int
    width: int
    keypoints: np.ndarray
    box: np.ndarray | None = None
    attributes: dict = field(default_factory=dict)
    remedy: str = ""


@dataclass(frozen=True)
class PairRecord:
    """One evaluation pair: its published name and the two images.

    attributes: as published (viewpoint_variation, scale_variation, truncation, occlusion, ...)
    """

    name: str
    source: ImageRecord
    target: ImageRecord
    attributes: dict = field(default_factory=dict)

    @property
    def category(self) -> str:
        """What the pair is scored under: the part of its name behind the last colon (of cross-species pairs a family)."""
        _, colon, category = self.name.rpartition(":")
        return category if colon else self.source.category


class Dataset(Protocol):
    """What evaluation and building ask of a data set; nobody asks for its name. A data set inherits from this class.

    root:           folder of its files
    threshold_kind: what PCK thresholds are relative to: ``bbox`` (longest side of the target's box) or ``image`` (longest side)
    annotation:     ``keypoints``, or ``masks`` where only masks are published (:meth:`mask` gives them)
    has_mirror_table: whether it is known which keypoints change places in the mirror image

    Keypoints outside their image are handed on as annotated; who uses them applies its own policy.
    """

    root: Path
    threshold_kind: str
    annotation: str = "keypoints"
    has_mirror_table: bool = False

    def categories(self) -> list[str]:
        """Names of all categories."""
        ...

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """The :class:`KeypointSpec` of a category; :class:`~semalign3d_core.runtime.errors.InputError` if there is no such category."""
        ...

    def geometry_groups(self, category: str) -> Sequence[Sequence[int]]:
        """Groups of keypoint labels that look alike, for ``metrics.geometry_subset``; none are known unless a data set says so."""
        return ()

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """All :class:`ImageRecord` of a category, or those that the pairs of a split use, sorted by name."""
        ...

    def splits(self) -> list[str]:
        """Names of the splits that have pairs here; empty for a folder of annotated images without pairs."""
        ...

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """Names of the pairs of a split, in published order, each ending in ``:<category>``."""
        ...

    def pair(self, split: str, name: str, category: str | None = None) -> PairRecord:
        """One :class:`PairRecord` by its name."""
        ...

    def pairs(self, split: str, layout: str = "large", categories: Sequence[str] | None = None) -> Iterator[PairRecord]:
        """The :class:`PairRecord` of a split in its order, read one after the other, of all or of some categories.

        Unknown categories and splits raise at once.
        """
        wanted = (categories,) if isinstance(categories, str) else categories
        check_categories(wanted, self.categories(), self.root)
        names = self.pair_names(split, layout)
        return (self.pair(split, name, category_of(name)) for name in names if wanted is None or category_of(name) in wanted)
