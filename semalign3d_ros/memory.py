"""What is in force as a value, and what it remembers of the objects from one frame to the next."""

from dataclasses import dataclass, field

import numpy as np

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.uncertainty import Uncertainty, uncertainty_of
from semalign3d_core.objects.proposals import Proposal
from semalign3d_core.objects.tracks import Tracks
from semalign3d_core.pipeline import FrameResult, Pipeline
from semalign3d_ros.parameters import AlignParameters

SEARCH_PAUSE = 1.0  # seconds of stamps after a search in vain before the next one: one takes as long as several frames
CONTINUES = 0.3  # least overlap (intersection over union) of an object with one of the frame before to start from that


@dataclass
class Memory:
    """What was found in the frame before: identities, and (box, alignment) of every object. Only the worker writes it.

    in_vain: time of the last search, if it and all frames since found nothing
    moving: the objects of the frame before, each with its time and, where it was seen before that, with that time and alignment
    """

    tracks: Tracks = field(default_factory=Tracks)
    previous: list[tuple[np.ndarray, Alignment]] = field(default_factory=list)
    in_vain: float | None = None
    moving: list[tuple["Found", float, tuple[float, Alignment] | None]] = field(default_factory=list)

    def may_search(self, time: float) -> bool:
        """Whether a frame in which nothing is found at the first place is searched for another one."""
        return self.in_vain is None or not 0 < time - self.in_vain < SEARCH_PAUSE


@dataclass(frozen=True)
class InForce:
    """The pipelines of the categories, the parameters that they were made of, and what frames under it have found."""

    parameters: AlignParameters
    pipelines: tuple[Pipeline, ...]
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True)
class Found:
    """One object of a frame: what a ``pipeline`` that is in force says of it, and its number over all frames."""

    by: InForce
    pipeline: Pipeline
    result: FrameResult
    number: int = 0

    @property
    def uncertainty(self) -> Uncertainty | None:
        """How well the alignment is determined."""
        return uncertainty_of(self.pipeline.aligner, self.result.evidence, self.result.alignment)


def remember(by: InForce, found: list[Found], time: float) -> list[int]:
    """Keeps what the next frame starts from; the numbers of the objects, 0 for one that is not found."""
    seen = [one for one in found if one.result.alignment.found]
    boxes = [box_of(one.result.alignment) for one in seen]
    by.memory.previous = [(box, one.result.alignment) for box, one in zip(boxes, seen, strict=True)]
    numbers = by.memory.tracks.update(time, [one.pipeline.model.category for one in seen], np.array(boxes))
    return numbers or [0] * len(found)


def keep_motion(memory: Memory, found: list[Found], time: float) -> None:
    """Keeps the objects of a frame with their times, so that their motion is known."""
    before = {one.number: (last, one.result.alignment) for one, last, _ in memory.moving}
    memory.moving = [(one, time, before.get(one.number)) for one in found if one.number]


def previous_of(by: InForce, proposal: Proposal) -> Alignment | None:
    """The alignment of the frame before that a proposal continues; the aligner checks again whether it does."""
    if not by.parameters.warm_start or not by.memory.previous:
        return None
    extent = proposal.extent()
    if extent is None:
        return by.memory.previous[0][1]
    overlaps = [_overlap(np.array(extent), box) for box, _ in by.memory.previous]
    best = int(np.argmax(overlaps))
    overlap, alignment = overlaps[best], by.memory.previous[best][1]
    return alignment if overlap >= CONTINUES else None


def box_of(alignment: Alignment) -> np.ndarray:
    """(4,) x0, y0, x1, y1 in pixels that the aligned object fills."""
    camera = alignment.camera
    pixels = camera.to_pixels(camera.project(alignment.cloud_3d)).numpy()
    return np.concatenate([pixels.min(0), pixels.max(0)])


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = np.clip(high - low, 0, None).prod()
    return shared / max((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared, 1e-9)
