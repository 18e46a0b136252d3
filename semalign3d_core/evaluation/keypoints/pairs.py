"""The pairs of an evaluation: what is to be scored, and what about them cannot be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from tqdm import tqdm

from semalign3d_core.datasets.records import Dataset, ImageRecord, PairRecord, category_of, check_categories
from semalign3d_core.evaluation.items import Query, WorkItem
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.metrics.breakdown import BREAKDOWNS
from semalign3d_core.metrics.geometry_subset import geometry_aware
from semalign3d_core.runtime.errors import FileFormatError, InputError, SemAlign3DError

OUTSIDE_TOLERANCE = 0.01  # of the longer image side: annotators click a little outside; further out is an error


@dataclass(frozen=True)
class EvaluationPair:
    """One pair to be scored; Q common keypoints, in the order that predictions use.

    name, category: of the pair
    labels:  (Q,) keypoint indices;  source_points, target_points: (Q, 2) float32 pixels
    unit:    reference length in pixels of the target
    confusable: (Q,) bool, keypoints of the geometry-aware subset: a look-alike of theirs is visible in the target
    partners: (Q,) int64, which of the points is the mirror partner of each; -1 where it is not among them
    record:  the :class:`PairRecord` with the attributes that breakdowns need, None where it could not be read
    problem: why the pair cannot be evaluated, "" if it can
    lost_points: how many points then count as wrong: its common keypoints, or where these are unknown all of the category
    """

    name: str
    category: str
    labels: tuple = ()
    source_points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    target_points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    unit: float = float("nan")
    confusable: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    partners: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    record: PairRecord | None = None
    problem: str = ""
    lost_points: int = 0


def read_pairs(dataset: Dataset, config: EvaluationConfig, make: Callable[..., EvaluationPair]) -> list[EvaluationPair]:
    """All :class:`EvaluationPair` of a configuration, in the data set's order.

    make: function(dataset, config, record, category) that makes one of a :class:`PairRecord`
    With ``on_bad_input="error"`` the first bad pair raises; with ``skip`` it is kept with its ``problem``.
    """
    names = dataset.pair_names(config.split, config.layout)
    present = sorted({category_of(name) for name in names})  # of cross-species pairs these are families
    categories = config.categories or tuple(present)
    check_categories(categories, sorted({*dataset.categories(), *present}), config.dataset)
    pairs, counts = [], dict.fromkeys(categories, 0)
    for name in tqdm(names, desc="read", unit="pair", mininterval=0.5, disable=None):
        category = category_of(name)
        if category not in counts or (config.limit is not None and counts[category] >= config.limit):
            continue
        counts[category] += 1
        pairs.append(_read_pair(dataset, config, name, category, make))
    empty = [category for category, count in counts.items() if not count]
    if empty and config.categories or not pairs:
        raise InputError(f"{config.dataset}: split {config.split!r} has no pairs of {', '.join(empty)}; choose others")
    return pairs


def _read_pair(dataset, config, name, category, make):
    record = None
    try:
        record = dataset.pair(config.split, name, category)
        return make(dataset, config, record, category)
    except SemAlign3DError as error:
        if config.on_bad_input == "error":
            raise type(error)(f"pair {name}: {error} (--on-bad-input skip counts such pairs as wrong and goes on)") from error
        lost = _most_keypoints(dataset) if record is None else len(_common(record))
        return EvaluationPair(name, category, record=record, problem=str(error), lost_points=lost)


def _most_keypoints(dataset):
    """The largest number of keypoints of a category: no pair can have more."""
    return max(len(dataset.keypoint_spec(category).names) for category in dataset.categories())


def threshold_kind(dataset: Dataset, config: EvaluationConfig) -> str:
    """``bbox`` or ``image``: as configured, or what the data set is published with."""
    return dataset.threshold_kind if config.threshold == "dataset" else config.threshold


def keypoint_pair(dataset: Dataset, config: EvaluationConfig, record: PairRecord, category: str) -> EvaluationPair:
    """The :class:`EvaluationPair` of the common keypoints of a :class:`PairRecord`; raises :class:`InputError` where there is no score."""
    groups, flip = dataset.geometry_groups(record.source.category), dataset.keypoint_spec(record.source.category).flip_permutation
    labels = common_labels(record)
    source, target = record.source.keypoints[labels], record.target.keypoints[labels]
    for image, points in ((record.source, source), (record.target, target)):
        _check_inside(image, labels, points)
    seen = (np.isfinite(side.keypoints).all(1) for side in (record.source, record.target))
    confusable = geometry_aware(groups, *seen)[labels]
    unit, partners = _unit(record.target, threshold_kind(dataset, config)), _partners(labels, flip)
    record = replace(record, attributes={name: record.attributes.get(name) for name in BREAKDOWNS})  # thousands are kept
    return EvaluationPair(record.name, category, tuple(labels), source, target, unit, confusable, partners, record, lost_points=len(labels))


def _partners(labels, flip):
    place = {label: index for index, label in enumerate(labels)}
    return np.array([place.get(flip[label], -1) for label in labels], np.int64)


def common_labels(record: PairRecord) -> list[int]:
    """Keypoints annotated in both images: in the order of the pair's own list (``kps_ids``) where it has the same ones, else ascending."""
    labels = _common(record)
    try:
        listed = [int(k) for k in record.attributes.get("kps_ids", [])]
    except (TypeError, ValueError):
        raise FileFormatError(f"kps_ids are {record.attributes['kps_ids']!r}, expected a list of keypoint numbers") from None
    return listed if sorted(listed) == labels else labels


def _common(record):
    both = np.isfinite(record.source.keypoints).all(1) & np.isfinite(record.target.keypoints).all(1)
    return [int(k) for k in np.flatnonzero(both)]


def outside_count(pair: EvaluationPair) -> int:
    """How many of the pair's keypoints lie outside their image, by no more than the tolerance."""
    if pair.record is None:
        return 0
    sides = ((pair.record.source, pair.source_points), (pair.record.target, pair.target_points))
    return int(sum((_overshoot(image, points) > 0).sum() for image, points in sides))


def _overshoot(image, points):
    """(Q,) how far points lie outside the image's pixels, in pixels."""
    size = np.array([image.width, image.height], dtype=np.float32)
    return np.maximum(-0.5 - points, points - (size - 0.5)).max(1, initial=0)


def _check_inside(image, labels, points):
    beyond = np.flatnonzero(_overshoot(image, points) > OUTSIDE_TOLERANCE * max(image.width, image.height))
    if len(beyond):
        x, y = points[beyond[0]]
        raise FileFormatError(
            f"keypoint {labels[beyond[0]]} of {image.category}/{image.name} is at ({x:g}, {y:g}), outside the image of "
            f"{image.width} x {image.height} pixels; correct the annotation"
        )


def _unit(target, kind):
    if kind == "image":
        return float(max(target.width, target.height))
    if target.box is None:
        raise FileFormatError(f"{target.category}/{target.name} has no object box (bndbox); annotate it or use --threshold image")
    unit = float(max(target.box[2] - target.box[0], target.box[3] - target.box[1]))
    if not 0 < unit < np.inf:
        raise FileFormatError(f"{target.category}/{target.name}: object box {target.box.tolist()} has no positive size; correct it")
    return unit


def image_items(pairs: Sequence[EvaluationPair]) -> list[WorkItem]:
    """One :class:`WorkItem` per image and category of pairs that use it, by category."""
    items: dict[tuple, WorkItem] = {}
    for pair in pairs:
        assert pair.record is not None  # those that could not be read are not evaluated
        for record in (pair.record.source, pair.record.target):
            items.setdefault(image_key(pair.category, record), WorkItem(pair.category, record))
    return [items[key] for key in sorted(items)]


def match_items(pairs: Sequence[EvaluationPair], digests: Mapping[Any, str]) -> list[WorkItem]:
    """One :class:`WorkItem` per source image with all its pairs, neighbours in the list sharing a category.

    digests: {:func:`image_key`: hash of what was seen of an image}
    """

    def source(pair):
        return image_key(pair.category, pair.record.source)

    groups = groupby(sorted(pairs, key=lambda pair: (source(pair), pair.name)), key=source)
    return [_match_item(key, list(group), digests) for key, group in groups]


def _match_item(key, pairs, digests):
    queries = []
    for pair in pairs:
        digest = digests[image_key(pair.category, pair.record.target)]
        queries.append(Query(pair.name, pair.record.target, digest, pair.source_points, pair.partners, pair.unit))
    return WorkItem(pairs[0].category, pairs[0].record.source, digests[key], tuple(queries))


def image_key(category: str, record: ImageRecord) -> Any:
    """What an image is known by among the pairs of a category."""
    return category, record.category, record.name
