"""Objects: random instances of a category with dense and sparse correspondences between them.

Object frame: right-handed, y up, front towards +z, mirror plane x = 0; the origin is the mean of all K keypoints and the largest
distance between two of them is 1. ``shape[flip] = diag(-1, 1, 1) shape`` holds for every instance. "left" is the object's own
left (+x) except for bottle and tvmonitor, where it is the viewer's left (-x). A bottle is rotationally symmetric: its keypoints are
silhouette points, so its object frame is the frame of the view, with azimuth 0.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from semalign3d_core.datasets.records import KeypointSpec
from semalign3d_core.datasets.synthetic import furniture, vehicles, vessels
from semalign3d_core.datasets.synthetic.primitives import Built
from semalign3d_core.datasets.synthetic.varieties import KINDS, pick
from semalign3d_core.runtime.errors import choice

WORLDS = {"simple": {}, "varied": KINDS}


@dataclass(frozen=True)
class Category:
    """What defines a category.

    names:   K keypoint names;  build: shape numbers -> (parts, keypoints, absent parts, missing keypoints)
    ranges:  {shape number: (lowest, highest)};  flags: {optional feature: probability}
    extras:  {number or feature of the varied world: what it is in the simple one}
    symmetric: rotationally symmetric around y: every view has azimuth 0
    frontal: None for all azimuths alike, else the half width in degrees within which most views lie
    roll:    standard deviation of the camera's roll in degrees
    surface_tolerance: how far in front of a keypoint the surface may lie while it still counts as visible (share of the diameter)
    turn_shown_by: keypoints of which at least one must be seen for the turn about y to be determined; () if no view needs one
    facing: {start of keypoint names: (direction, degrees)}: keypoints that are visible only to cameras within an angle of a direction
    """

    names: tuple
    build: Callable[[SimpleNamespace], Built]
    ranges: dict
    flags: dict
    symmetric: bool = False
    frontal: float | None = None
    roll: float = 6.0
    surface_tolerance: float = 0.04
    turn_shown_by: tuple = ()
    facing: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)


CATEGORIES = {
    "bottle": Category(
        vessels.BOTTLE_NAMES,
        vessels.build_bottle,
        vessels.BOTTLE_RANGES,
        vessels.BOTTLE_FLAGS,
        symmetric=True,
        roll=15.0,
        surface_tolerance=0.12,
        extras=vessels.BOTTLE_EXTRAS,
    ),
    "mug": Category(
        vessels.MUG_NAMES,
        vessels.build_mug,
        vessels.MUG_RANGES,
        vessels.MUG_FLAGS,
        roll=10.0,
        surface_tolerance=0.06,
        turn_shown_by=("handle_top", "handle_outer", "handle_bottom"),
        # Where the handle is attached is near the inner wall as well, which a camera that looks into the mug from the far side sees.
        facing=dict.fromkeys(("handle_top", "handle_bottom"), ((0.0, 0.0, 1.0), 110.0)),
        extras=vessels.MUG_EXTRAS,
    ),
    "chair": Category(
        furniture.CHAIR_NAMES, furniture.build_chair, furniture.CHAIR_RANGES, furniture.CHAIR_FLAGS, extras=furniture.CHAIR_EXTRAS
    ),
    "car": Category(vehicles.CAR_NAMES, vehicles.build_car, vehicles.CAR_RANGES, vehicles.CAR_FLAGS, extras=vehicles.CAR_EXTRAS),
    "aeroplane": Category(
        vehicles.PLANE_NAMES,
        vehicles.build_aeroplane,
        vehicles.PLANE_RANGES,
        vehicles.PLANE_FLAGS,
        roll=8.0,
        extras=vehicles.PLANE_EXTRAS,
    ),
    "tvmonitor": Category(
        furniture.TV_NAMES,
        furniture.build_tvmonitor,
        furniture.TV_RANGES,
        furniture.TV_FLAGS,
        frontal=65.0,
        facing={"screen": ((0.0, 0.0, 1.0), 90.0)},
    ),
}


def _flip(names: Sequence[str]) -> tuple[int, ...]:
    """The label each label becomes in the mirror image: left and right change places."""
    swapped = [n.removesuffix("_left") + "_right" if n.endswith("_left") else n.removesuffix("_right") + "_left" for n in names]
    return tuple(names.index(s) if n.endswith(("_left", "_right")) else k for k, (n, s) in enumerate(zip(names, swapped, strict=True)))


KEYPOINTS = {name: KeypointSpec(category.names, _flip(category.names)) for name, category in CATEGORIES.items()}


@dataclass(frozen=True)
class Instance:
    """One object (V vertices, F triangles, K keypoints).

    vertices:  (V, 3) object frame;  faces: (F, 3);  canonical: (V, 3) the same surface points on the category's template
    group:     (F,) material number of every triangle, 0 .. groups - 1;  smooth: (F,) bool, shade with interpolated normals
    keypoints: (K, 3) object frame, NaN where the part is absent;  complete_keypoints: (K, 3) without gaps
    canonical_keypoints: (K, 3) on the template;  diameter: metres per unit of the object frame
    groups:    names of the material numbers
    """

    category: str
    seed: int
    vertices: np.ndarray
    faces: np.ndarray
    canonical: np.ndarray
    group: np.ndarray
    smooth: np.ndarray
    keypoints: np.ndarray
    complete_keypoints: np.ndarray
    canonical_keypoints: np.ndarray
    diameter: float
    groups: tuple = ()


def generator(*keys: Any) -> np.random.Generator:
    """A random generator for a sequence of strings and numbers; equal keys give equal numbers on every machine."""
    return np.random.default_rng([zlib.crc32(k.encode()) if isinstance(k, str) else int(k) for k in keys])


def make_instance(category: str, seed: int, world: str = "simple") -> Instance:
    """The :class:`Instance` number ``seed`` of a category in a world of :data:`WORLDS`; unknown names raise, naming the known ones."""
    definition = choice("synthetic category", category, CATEGORIES)
    kinds = choice("synthetic world", world, WORLDS).get(category)
    return _assemble(category, seed, _sample_shape(definition, generator("instance", category, seed), kinds))


def shows_its_turn(category: str, visible: list[bool]) -> bool:
    """Whether a view that shows the keypoints ``visible`` (K,) bool tells by which angle the object is turned about y.

    False for a mug whose handle is hidden: nothing but the shape tells where it is, and that is the same all around.
    """
    definition = CATEGORIES[category]
    shown = [bool(seen) for name, seen in zip(definition.names, visible, strict=True) if name in definition.turn_shown_by]
    return any(shown) or not shown


def template(category: str) -> Instance:
    """The instance whose surface is the canonical frame: middle of all ranges, every optional part present."""
    return _template(category)[0]


def mean_shape(category: str, count: int = 400, first_seed: int = 0) -> np.ndarray:
    """(K, 3) mean of the keypoints of ``count`` instances after similarity alignment; diameter 1, mirrors into itself across x = 0.

    Keypoints of absent parts do not count; generalised Procrustes analysis with missing points.
    """
    shapes = np.stack([make_instance(category, first_seed + n).keypoints for n in range(count)])
    flip = list(KEYPOINTS[category].flip_permutation)
    mean = template(category).complete_keypoints
    for _ in range(10):
        aligned = np.stack([_aligned(shape, mean) for shape in shapes])
        mean = np.nanmean(aligned, axis=0)
        mean = 0.5 * (mean + mean[flip] * (-1, 1, 1))
        mean = (mean - mean.mean(0)) / _diameter(mean)
    return mean


def _aligned(shape: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Similarity transform of the present points of ``shape`` onto ``target`` (Umeyama 1991)."""
    present = np.isfinite(shape).all(1)
    source, goal = shape[present], target[present]
    a, b = source - source.mean(0), goal - goal.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (s * sign).sum() / (a * a).sum()
    return scale * (shape - source.mean(0)) @ ((u * sign) @ vt).T + goal.mean(0)


def _diameter(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max())


def _sample_shape(definition: Category, rng: np.random.Generator, kinds: dict[str, Any] | None = None) -> SimpleNamespace:
    """Shape numbers and features within the category's ranges, or of one of the ``kinds`` of the varied world."""
    _, ranges, flags = pick(rng, list(kinds.values())) if kinds else (1.0, {}, {})
    numbers = {name: rng.uniform(low, high) for name, (low, high) in (definition.ranges | ranges).items()}
    features = {name: bool(rng.random() < share) for name, share in (definition.flags | flags).items()}
    return SimpleNamespace(**(definition.extras | numbers | features))


@cache
def _template(category: str) -> tuple[Instance, dict[str, np.ndarray]]:
    definition = choice("synthetic category", category, CATEGORIES)
    middle = {name: 0.5 * (low + high) for name, (low, high) in definition.ranges.items()}
    shape = SimpleNamespace(**(definition.extras | middle | dict.fromkeys(definition.flags, True)))
    _, keypoints, _, _ = definition.build(shape)
    everything = {name: True for name, default in definition.extras.items() if isinstance(default, bool)}
    parts, *_ = definition.build(SimpleNamespace(**(vars(shape) | everything)))
    points = np.array([keypoints[name] for name in definition.names], dtype=float)
    origin, diameter = points.mean(0), _diameter(points)
    surface = {part.name: (part.vertices - origin) / diameter for part in parts}
    return _merge(category, -1, definition, shape, surface), surface


def _assemble(category: str, seed: int, shape: SimpleNamespace) -> Instance:
    definition = CATEGORIES[category]
    built = _merge(category, seed, definition, shape, _template(category)[1])
    return replace(built, canonical_keypoints=_template(category)[0].complete_keypoints)


def _merge(category: str, seed: int, definition: Category, shape: SimpleNamespace, surface: dict[str, np.ndarray]) -> Instance:
    parts, keypoints, absent, missing = definition.build(shape)
    groups = sorted({part.group for part in parts})
    present = [part for part in parts if not (seed >= 0 and absent.get(part.name, False))]
    starts = np.cumsum([0] + [len(part.vertices) for part in present])
    points = np.array([keypoints[name] for name in definition.names], dtype=float)
    origin, diameter = points.mean(0), _diameter(points)
    points = (points - origin) / diameter
    gaps = np.array([name in missing for name in definition.names])
    return Instance(
        category=category,
        seed=seed,
        vertices=(np.concatenate([part.vertices for part in present]) - origin) / diameter,
        faces=np.concatenate([part.faces + start for part, start in zip(present, starts[:-1], strict=True)]),
        canonical=np.concatenate([surface[part.name] for part in present]),
        group=np.concatenate([np.full(len(part.faces), groups.index(part.group)) for part in present]),
        smooth=np.concatenate([np.full(len(part.faces), part.smooth) for part in present]),
        keypoints=np.where(gaps[:, None] & (seed >= 0), np.nan, points),
        complete_keypoints=points,
        canonical_keypoints=points,
        diameter=diameter,
        groups=tuple(groups),
    )
