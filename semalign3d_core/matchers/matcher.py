"""What a matcher is: anything that finds the points of one image in another."""

import dataclasses
from typing import Any, Protocol

import torch

from semalign3d_core.category.model import CategoryModel
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.matches import Matches


class Matcher(Protocol):
    """A matcher inherits from this class, writes :meth:`match` and overrides what else differs.

    name:        of the method
    model:       the category model that it uses, or None
    prepares:    whether it first does work per image (:meth:`prepare`); an evaluation then does that once per image and caches it
    uses_picture: whether the evidence that :meth:`prepare` gets must hold the picture itself
    uses_mirror: whether :meth:`match` also gets the mirror image of the source
    quarters:    and the source turned by so many quarters anticlockwise each
    rates_cells: whether it says how likely a point is at each cell (:meth:`score_maps`); KAP judges the features of others
    told_keypoints: whether it is told that the points of one call are different annotated keypoints of the category
    """

    name: str
    model: CategoryModel | None = None
    prepares: bool = False
    uses_picture: bool = False
    uses_mirror: bool = False
    quarters: tuple[int, ...] = ()
    rates_cells: bool = False
    told_keypoints: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the matcher was told or resolved from presets (JSON)."""
        return to_dict(self) if dataclasses.is_dataclass(self) else {}

    @property
    def prepare_settings(self) -> dict[str, Any]:
        """The part of the settings that :meth:`prepare` depends on (JSON)."""
        return self.settings

    def prepare(self, evidence: ImageEvidence) -> Any:
        """What :meth:`match` takes in place of the evidence of an image.

        It may refer to the evidence or its parts, but not to copies of the features, which would be stored once more.
        """
        return evidence

    def match(self, source: Any, target: Any, points: torch.Tensor) -> Matches:
        """Finds ``points`` (Q, 2), float32 pixels of the source, in the target.

        source, target: :class:`ImageEvidence`, or what :meth:`prepare` made of it. A matcher that ``uses_mirror`` has three more arguments:
        ``mirrored``, the evidence of the source's mirror image; ``permutation`` (Q,), the point that each point becomes there;
        ``visible`` (Q,) bool, whether that one is among the points (where it is not, ``permutation`` is the point itself). One with
        ``quarters`` also has ``turned``, the evidence of the turned images.
        """
        ...

    def lift(self, source: Any, points: torch.Tensor) -> Any:
        """What depends on the source and its points (Q, 2) alone, computed once for all targets."""
        return source, points

    def place(self, lifted: Any, rows: torch.Tensor, target: Any) -> Matches:
        """Finds the points ``rows`` (N,) int64 of what :meth:`lift` returned in a target."""
        source, points = lifted
        return self.match(source, target, points[rows])

    def score_maps(self, lifted: Any, target: Any) -> torch.Tensor:
        """How likely each lifted point is at each cell of the target, (Q, cells * cells); only of matchers that rate cells."""
        raise InputError(f"{self.name} does not rate cells; choose a matcher that does, as semalign3d")
