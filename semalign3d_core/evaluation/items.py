"""What engines hand to their processes, and what comes back."""

from dataclasses import dataclass, field

import numpy as np

from semalign3d_core.datasets.records import ImageRecord


@dataclass(frozen=True)
class Query:
    """One pair of a work item.

    name:     of the pair;  target: the target's :class:`ImageRecord`;  digest: hash of what was seen of it
    points:   (Q, 2) float32 pixels of the source to carry over
    partners: (Q,) int64, which of the points is the mirror partner of each; -1 where it is not among them
    unit:     reference length in pixels of the target, for KAP
    """

    name: str
    target: ImageRecord
    digest: str
    points: np.ndarray
    partners: np.ndarray
    unit: float = float("nan")


@dataclass(frozen=True)
class WorkItem:
    """One image (``queries`` empty: prepare it) or all pairs of one source image (match them).

    category: that of the pairs, whose model is used; of cross-species pairs it is not the image's own
    digest:   hash of what was seen of the image, once that is known
    """

    category: str
    record: ImageRecord
    digest: str = ""
    queries: tuple = ()

    def __str__(self):
        return f"{self.record.category}/{self.record.name}"


@dataclass(frozen=True)
class ItemResult:
    """What became of a work item.

    failure: why it could not be done, "" if it could
    points:  {pair: (Q, 2) float32 pixels of the target};  kap: {pair: its samples for KAP}, if asked for
    digest:  hash of what was seen of the image;  counts: cache statistics
    seconds: wall time of the item itself, without loading networks and models;  process: what this process needed so far:
             its number, MiB of memory at most, MiB on the GPU at most
    """

    failure: str = ""
    points: dict = field(default_factory=dict)
    digest: str = ""
    counts: dict = field(default_factory=dict)
    kap: dict = field(default_factory=dict)
    seconds: float = 0.0
    process: tuple[int, float, float] = (0, 0.0, 0.0)
