"""From which side an object is seen, by the nearest of template images; and matching that mirrors the source by it.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), section 4.1: each template set shows one object from behind, from the
front, from its left and from its right; the sets vote. Nothing is trained.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.geometry.image_grid import pad_square
from semalign3d_core.matchers.adaptive_pose import through_mirror
from semalign3d_core.matchers.imd import distance_map
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.matchers.soft_argmax import SimilarityMatcher
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.pair_features import Description, OwnPairFeatures, ReducedPairFeatures
from semalign3d_core.perception.evidence import ImageEvidence, ImageInput, read_image
from semalign3d_core.runtime.errors import InputError, MissingFileError, choice
from semalign3d_core.runtime.files import visible
from semalign3d_core.runtime.pictures import IMAGE_SUFFIXES
from semalign3d_core.transfer.matches import Matches

VIEWS = ("back", "front", "left", "right")
CELLS = 128  # side of the grid on which features are compared
TEMPLATES = Path(__file__).parents[1] / "assets" / "templates"  # of the shipped categories, bench/pose_templates.py


def vote_pose(distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pose of queries from ``distances`` (Q, 4 S) to S template sets in the order of ``VIEWS``.

    Returns (front or back, left or right, one of four), each (Q,) int64 indices into ``VIEWS``. Two-way: front (right) wins
    when it is nearer than back (left) in at least two thirds of the sets (2 of 3). Four-way: the majority of the sets' nearest
    views; ties go to the earlier view.
    """
    if distances.ndim != 2 or not distances.shape[1] or distances.shape[1] % len(VIEWS):
        raise InputError(f"template distances must be (queries, 4 x sets), got {tuple(distances.shape)}")
    sets = distances.reshape(len(distances), -1, len(VIEWS))
    needed = (2 * sets.shape[1] + 2) // 3
    front = (sets[:, :, 0] - sets[:, :, 1] > 0).sum(1) >= needed
    right = (sets[:, :, 2] - sets[:, :, 3] > 0).sum(1) >= needed
    counts = torch.nn.functional.one_hot(sets.argmin(dim=2), len(VIEWS)).sum(1)
    return front.long(), right.long() + 2, counts.argmax(dim=1)


def read_templates(folder: Path) -> dict[str, dict[str, ImageInput]]:
    """{set: {view: :class:`ImageInput`}} of ``folder/<set>/<view>.<suffix>`` with the views of ``VIEWS``; all four are needed."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"template folder {folder} does not exist; it holds one folder per set with back, front, left and right")
    sets = {}
    for place in [p for p in visible(folder.iterdir()) if p.is_dir()]:
        files = {p.stem: p for p in visible(place.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
        missing = [view for view in VIEWS if view not in files]
        if missing:
            raise MissingFileError(f"{place} has no image called {', '.join(missing)}; a template set has {', '.join(VIEWS)}")
        sets[place.name] = {view: read_image(files[view]) for view in VIEWS}
    if not sets:
        raise MissingFileError(f"{folder} holds no template set; make one folder per set with images {', '.join(VIEWS)}")
    return sets


@dataclass(frozen=True)
class PosePrediction:
    """front_back, left_right, view: what the sets vote for, names of ``VIEWS``;  distances: (S, 4) to the templates."""

    front_back: str
    left_right: str
    view: str
    distances: torch.Tensor


class PoseTable:
    """How often poses are right, as the paper's table counts: left or right, front or back, one of the two, one of four."""

    def __init__(self) -> None:
        self._hits: dict[str, list[bool]] = {name: [] for name in ("left/right", "front/back", "either", "four ways")}

    def add(self, truth: str, found: PosePrediction) -> None:
        """Counts an image whose side is ``truth``, a name of ``VIEWS``, and the :class:`PosePrediction` of it."""
        choice("side", truth, dict.fromkeys(VIEWS))
        two_way = found.left_right if truth in ("left", "right") else found.front_back
        self._hits["left/right" if truth in ("left", "right") else "front/back"].append(two_way == truth)
        self._hits["either"].append(truth in (found.left_right, found.front_back))
        self._hits["four ways"].append(truth == found.view)

    def summary(self) -> dict[str, float | None]:
        """{column: percent, None without images}; "images" says how many there were."""
        shares = {name: round(100 * sum(hits) / len(hits), 1) if hits else None for name, hits in self._hits.items()}
        return {**shares, "images": len(self._hits["four ways"])}


def shipped_templates(category: str) -> Path:
    """The folder of template sets of a shipped category."""
    known = [p.name for p in visible(TEMPLATES.iterdir())] if TEMPLATES.is_dir() else []
    if category not in known:
        hint = "a bottle looks the same from all sides; " if category == "bottle" else ""
        raise InputError(f"there are no templates of {category!r}: {hint}choose one of {', '.join(known)}, or give a folder of your own")
    return TEMPLATES / category


class PosePredictor:
    """Compares images with template sets.

    features: see :mod:`semalign3d_core.perception.backbones.pair_features`;  templates: as :func:`read_templates` returns them;
    cells: side of the grid of comparison.
    """

    def __init__(
        self, features: OwnPairFeatures | ReducedPairFeatures, templates: dict[str, dict[str, ImageInput]], cells: int = CELLS
    ) -> None:
        self.features, self.cells = features, cells
        self.templates = [features.describe(images[view]) for images in templates.values() for view in VIEWS]

    def predict(self, description: Description, mask: torch.Tensor | None = None) -> PosePrediction:
        """The :class:`PosePrediction` of an image that ``features`` described.

        mask: (h, w) bool of the object; None: everywhere.
        """
        return self.judge(self.maps(description, mask))

    def judge(self, maps: list[torch.Tensor]) -> PosePrediction:
        """The :class:`PosePrediction` by the means of :meth:`maps`."""
        distances = torch.stack([values[~values.isnan()].mean() for values in maps])
        front_back, left_right, view = (VIEWS[vote] for vote in vote_pose(distances[None]))
        return PosePrediction(front_back, left_right, view, distances.reshape(-1, len(VIEWS)).cpu())

    def maps(self, description: Description, mask: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Where the distances of :meth:`predict` come from: (cells, cells) per template, NaN off the object."""
        from tqdm import tqdm

        compared = tqdm(self._compared(description, mask), total=len(self.templates), unit="template", leave=False, disable=None)
        return [distance_map(a, b, inside, all_, self.cells) for a, b, inside, all_ in compared]

    def _compared(self, description, mask):
        """(query, template, mask of the query, mask of the template) for every template."""
        everywhere = torch.ones(1, 1)
        mask = everywhere if mask is None else pad_square(mask.float()[None], description.padding)[0]
        for described in self.templates:
            query, template = self.features.together(description, described)
            yield query, template.to(query), mask, everywhere


@dataclass(frozen=True)
class PosedImage:
    """evidence: :class:`ImageEvidence`;  right: 0-d bool, whether it shows the object's right side."""

    evidence: ImageEvidence
    right: torch.Tensor


class TemplatePoseMatcher(Matcher):
    """Soft arg-max matching that mirrors the source where templates say that source and target show opposite sides.

    templates: as :func:`read_templates` returns them, or their folder;  backbone: extracts their features, the one of the images;
    readout, width: see :mod:`.soft_argmax`.
    """

    name = "template_pose"
    prepares = True
    uses_mirror = True

    def __init__(
        self,
        templates: Path | dict[str, dict[str, ImageInput]],
        backbone: FeatureBackbone,
        readout: str = "window_soft_argmax",
        width: int = 5,
        cells: int = CELLS,
    ) -> None:
        templates = templates if isinstance(templates, dict) else read_templates(templates)
        self.predictor = PosePredictor(OwnPairFeatures(backbone), templates, cells)
        self.matcher = SimilarityMatcher(readout, width)
        self._settings = {"readout": readout, "width": width, "cells": cells, "template_sets": list(templates)}

    @property
    def settings(self) -> dict[str, Any]:
        """Readout and template sets."""
        return self._settings

    def prepare(self, evidence: ImageEvidence) -> PosedImage:
        """The :class:`PosedImage` of an :class:`ImageEvidence`: which side it shows is looked up once."""
        found = self.predictor.predict(OwnPairFeatures.described(evidence.features), evidence.mask)
        return PosedImage(evidence, torch.tensor(found.left_right == "right"))

    def match(
        self,
        source: ImageEvidence | PosedImage,
        target: ImageEvidence | PosedImage,
        points: torch.Tensor,
        mirrored: ImageEvidence | None = None,
        permutation: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
    ) -> Matches:
        """As :meth:`.AdaptivePoseMatcher.match`; ``source`` and ``target`` are evidence or what :meth:`prepare` made of it."""
        if mirrored is None or permutation is None:
            raise InputError(f"{self.name} needs the source's mirror image and the mirror permutation of its keypoints")
        source, target = (image if isinstance(image, PosedImage) else self.prepare(image) for image in (source, target))
        found = self.matcher.match(source.evidence, target.evidence, points)
        if source.right == target.right:
            return found
        return through_mirror(self.matcher, (source.evidence, mirrored, target.evidence), points, permutation, visible, found)
