"""The method of this package as a matcher: one alignment per image, Eq. 14 per pair."""

from typing import Any

import torch

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.runtime.config import load_preset, to_dict
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.aligned_image import AlignedImage, aligned_image, category_surface
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import Lifting
from semalign3d_core.transfer.matches import Matches
from semalign3d_core.transfer.place import likelihood_maps, place_points


class SemAlign3DMatcher(Matcher):
    """Transfers points anywhere on the object between images of one category.

    model: :class:`~semalign3d_core.category.model.CategoryModel`; preset: of the alignment (``fast``, ``reference``, a YAML file);
    transfer: a :class:`Transfer`, or the name of its preset; nothing means the one that goes with the alignment's.
    Raises :class:`InputError` for a transfer that is told that queries are keypoints: that is :class:`SemAlign3DKeypointsMatcher`.
    """

    name = "semalign3d"
    prepares = True
    rates_cells = True
    told_keypoints = False

    def __init__(self, model: CategoryModel, preset: AlignConfig | str = "fast", transfer: Transfer | str | None = None) -> None:
        self.model, self.aligner = model, Aligner(model, preset)
        self.surface = category_surface(model)
        transfer = transfer or self.transfer_preset(preset)
        self.config: Transfer = transfer if isinstance(transfer, Transfer) else load_preset(Transfer, "transfer", transfer)
        if self.config.told_keypoints != self.told_keypoints:
            right = "semalign3d_keypoints" if self.config.told_keypoints else "semalign3d"
            told = "is told" if self.config.told_keypoints else "is not told"
            raise InputError(f"the transfer of {self.name} {told} that queries are different keypoints: with it the method is {right}")

    @classmethod
    def transfer_preset(cls, preset: AlignConfig | str) -> str:
        """The preset of the transfer that goes with one of the alignment."""
        return "reference" if preset == "reference" else "fast"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that was resolved from presets: nested dictionaries."""
        return {"alignment": to_dict(self.aligner.config), "transfer": to_dict(self.config)}

    @property
    def prepare_settings(self) -> dict[str, Any]:
        """Those of the alignment: transfers share it."""
        return {"alignment": to_dict(self.aligner.config)}

    def prepare(self, evidence: ImageEvidence) -> AlignedImage:
        """The one alignment of an image (:class:`ImageEvidence`): an :class:`AlignedImage`."""
        return aligned_image(self.surface, evidence, self.aligner.align(evidence))

    def match(self, source: ImageEvidence | AlignedImage, target: ImageEvidence | AlignedImage, points: torch.Tensor) -> Matches:
        """Finds ``points`` (Q, 2), pixels of ``source``, in ``target``.

        ``source`` and ``target`` are evidence or, so that an image is aligned once, what ``prepare`` made of it.
        """
        return place_points(self.surface, self.lift(source, points).together, self._prepared(target), self.config)

    def lift(self, source: ImageEvidence | AlignedImage, points: torch.Tensor) -> Lifting:
        """What ``points`` (Q, 2), pixels of ``source``, are on the category, once for all targets: a :class:`Lifting`."""
        return Lifting(self.surface, self._prepared(source), points, self.config)

    def place(self, lifted: Lifting, rows: torch.Tensor, target: ImageEvidence | AlignedImage) -> Matches:
        """Where the points ``rows`` (N,) of what :meth:`lift` returned are in ``target``: :class:`Matches`."""
        return place_points(self.surface, lifted.rows(rows), self._prepared(target), self.config)

    def score_maps(self, lifted: Lifting, target: ImageEvidence | AlignedImage) -> torch.Tensor:
        """How likely each lifted point is at each cell of ``target``, (Q, cells * cells) in [0, 1]: for KAP."""
        return likelihood_maps(self.surface, lifted.together, self._prepared(target), self.config)

    def _prepared(self, image: ImageEvidence | AlignedImage) -> AlignedImage:
        return image if isinstance(image, AlignedImage) else self.prepare(image)


class SemAlign3DKeypointsMatcher(SemAlign3DMatcher):
    """As :class:`SemAlign3DMatcher`, told that the queries of one call are different keypoints of the category, as a benchmark's are."""

    name = "semalign3d_keypoints"
    told_keypoints = True

    @classmethod
    def transfer_preset(cls, preset: AlignConfig | str) -> str:
        """The transfer of keypoints, whatever the alignment."""
        return "keypoints"
