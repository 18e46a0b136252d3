"""The dense cloud: pixels moved into the object frame by each image's own pose and displacement, then clustered (section 1.5)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq
from scipy.interpolate import RBFInterpolator
from scipy.spatial import ConvexHull
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.annotations.views import NO_DEPTH, View
from semalign3d_core.category.shape.depth_term import Readings, depth_readings
from semalign3d_core.category.shape.factor_model import FactorModel
from semalign3d_core.category.shape.mirror import MIRROR
from semalign3d_core.category.surface.surface_map import half_width, normal, surface_map
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.runtime.errors import InputError

SURPLUS = 1.3  # clusters per point that is kept
MINIMUM_IMAGES = 3  # that must see a cluster
MINIMUM_PIXELS = 50  # near the keypoints' hull, in all images
MARGIN = 0.1  # kept outside the hull of the keypoints, in diameters
DEPTH_RANGE = 0.25  # usual range of an object's inverse depth, relative to that of its middle
SLOPE_PRIOR = 0.01  # weight of the pull of an image's range towards the usual one
DEPTH_OUTLIER = 0.05  # relative inverse depth at which the weight of a reading is halved
SMOOTHING, BEYOND_KEYPOINTS = 1e-4, 0.2  # of depth between keypoints; share of their range of 1/z by which pixels may lie outside of it
REWEIGHTINGS = 6  # of the robust regression


@dataclass(frozen=True)
class Samples:
    """Merged pixels in the object frame.

    points: (P, 3) float64;  image: (P,) index of the view;  row: (P,) index of its pixel;  mirrored: (P,) bool
    """

    points: Tensor
    image: Tensor
    row: Tensor
    mirrored: Tensor


def merged_samples(views: Sequence[View], model: FactorModel, data: Constellations) -> Samples:
    """Pixels of all views and mirror images in the object frame, less the displacement of their instance.

    Only points within the margin of the hull of the mean shape; mirror images where a view has features of them.
    """
    points, image, row = [], [], []
    plane, readings = model.plane, depth_readings(model, model.in_camera(), data)
    for n, view in enumerate(views):
        if view.kind == NO_DEPTH:
            z = _depth_between_keypoints(model, data, n, view)
        else:
            z = _pixel_depth(model, readings, data, n, view.relative_inverse(view.pixel_inverse))
        points.append(_object_points(view, model, n, z, plane))
        image.append(torch.full((len(z),), n))
        row.append(torch.arange(len(z)))
    near = within_hull(torch.cat(points), model.shape, plane, MARGIN)
    return _with_mirror_images(torch.cat(points)[near], torch.cat(image)[near], torch.cat(row)[near], views)


def _pixel_depth(model: FactorModel, readings: Readings, data: Constellations, index: int, inverse: Tensor) -> Tensor:
    """Depth z (S,) in diameters of pixels with relative inverse depth ``inverse`` (S,) of image ``index``.

    readings: of :func:`depth_readings`. 1/z of the image's completed shape is regressed on the inverse depth read there, robustly; a
    weak prior pulls the slope towards a usual relative depth range, which decides where the readings do not.
    """
    z, value, known = (reading[index] for reading in readings)
    target, value = 1 / z[known], value[known]
    middle = 1 / model.in_camera()[index][data.visible[index], 2].mean()
    has_offset = bool(torch.isnan(data.slope[index]))
    if not has_offset:  # depth up to scale: 1/z is proportional to 1 + b v, a regression through the origin
        value, inverse = (1 + data.slope[index] * v for v in (value, inverse))
    weight = torch.ones_like(target)
    slope, level = DEPTH_RANGE * middle, middle - 0.5 * DEPTH_RANGE * middle
    for _ in range(REWEIGHTINGS if int(known.sum()) >= 2 else 0):
        slope, level = _regression(value, target, weight, has_offset, middle)
        relative = (target - level - slope * value) / middle
        weight = 1 / (1 + (relative / DEPTH_OUTLIER) ** 2)
    return 1 / (level + slope * inverse).clamp(min=0.2 * middle)


def _depth_between_keypoints(model: FactorModel, data: Constellations, index: int, view: View) -> Tensor:
    """Depth z (S,) in diameters of the pixels of a view without a depth map: 1/z between the annotated keypoints of its completed shape.

    1/z is affine in the image over a plane, so a linear spline with an affine part is right on flat sides; no pixel is taken for nearer or
    farther than the keypoints by more than a share of their range.
    """
    seen = data.visible[index]
    camera = model.in_camera()[index][seen]
    places = (camera[:, :2] / camera[:, 2:]).numpy()
    inverse = (1 / camera[:, 2]).numpy()
    pixels = back_project(view.pixels.double() / view.longer_side, torch.ones(len(view.pixels)).double(), view.focal.double(),
                          view.principal.double())[:, :2].numpy()  # fmt: skip
    spread = np.linalg.svd(places - places.mean(0), compute_uv=False)
    affine = len(places) > 3 and spread[1] > 0.1 * spread[0]
    spline = RBFInterpolator(places, inverse, kernel="linear", degree=1 if affine else 0, smoothing=SMOOTHING)
    low, high = inverse.min(), inverse.max()
    reach = BEYOND_KEYPOINTS * (high - low)
    return 1 / torch.from_numpy(spline(pixels)).clamp(low - reach, high + reach)


def _regression(value: Tensor, target: Tensor, weight: Tensor, has_offset: bool, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and level of ``target = level + slope value``, weighted; with an offset the slope is pulled to the usual one."""
    if not has_offset:
        return (weight * value * target).sum() / (weight * value * value).sum().clamp(min=1e-12), torch.zeros_like(middle)
    total = weight.sum()
    mean_value, mean_target = (weight * value).sum() / total, (weight * target).sum() / total
    a, b = value - mean_value, target - mean_target
    prior = SLOPE_PRIOR * len(value)
    slope = ((weight * a * b).sum() + prior * DEPTH_RANGE * middle) / ((weight * a * a).sum() + prior)
    slope = slope.clamp(min=0.2 * DEPTH_RANGE * middle)  # nearer is never farther
    return slope, mean_target - slope * mean_value


def _object_points(view: View, model: FactorModel, n: int, z: Tensor, plane: Tensor) -> Tensor:
    flat = view.pixels.double() / view.longer_side
    camera = back_project(flat, z, view.focal.double(), view.principal.double())
    instance = (camera - model.translation[n]) @ model.rotation[n]
    return surface_map(instance, model.completed[n], plane) @ model.shape


def _with_mirror_images(points: Tensor, image: Tensor, row: Tensor, views: Sequence[View]) -> Samples:
    """The samples and, for views with mirrored features, their mirror images."""
    has = torch.tensor([len(v.mirrored_pixel_features) > 0 for v in views])[image]
    return Samples(
        torch.cat([points, points[has] * MIRROR]),
        torch.cat([image, image[has]]),
        torch.cat([row, row[has]]),
        torch.arange(len(points) + int(has.sum())) >= len(points),
    )


def within_hull(points: Tensor, shape: Tensor, plane: Tensor, margin: float) -> Tensor:
    """(P,) bool: at most ``margin`` diameters outside a facet of the convex hull of ``shape`` (K, 3).

    plane: as in :class:`SurfaceMap`. The hull of coplanar keypoints is given the thickness of the lesser of their two extents.
    """
    diameter = float(torch.cdist(shape, shape).max())
    reach = half_width(plane, shape) * normal(plane, shape)
    facets = torch.from_numpy(ConvexHull(torch.cat([shape - reach, shape + reach]).numpy()).equations)
    outside = torch.cat([(part @ facets[:, :3].T + facets[:, 3]).amax(1) for part in points.split(4096)])
    return outside <= margin * diameter


def k_means(points: Tensor, count: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Centres (J, 3) and labels (P,) of points (P, 3): k-means++ on a subset, then Lloyd's iterations; empty clusters drop out."""
    rng = np.random.default_rng(seed)
    values = points.numpy()
    subset = values[rng.permutation(len(values))[: 20 * count]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        centres, _ = kmeans2(values, _spread_centres(subset, min(count, len(subset)), rng), iterations, minit="matrix")
    used, labels = np.unique(vq(values, centres)[0], return_inverse=True)
    return torch.from_numpy(centres[used]), torch.from_numpy(labels).long()


def _spread_centres(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++; that of SciPy computes all distances to all centres again for each new centre."""
    chosen = np.empty((count, 3))
    chosen[0] = values[rng.integers(len(values))]
    distance2 = ((values - chosen[0]) ** 2).sum(1)
    for n in range(1, count):
        total = distance2.sum()
        pick = rng.choice(len(values), p=distance2 / total) if total > 0 else rng.integers(len(values))
        chosen[n] = values[pick]
        distance2 = np.minimum(distance2, ((values - chosen[n]) ** 2).sum(1))
    return chosen


def supported_clusters(samples: Samples, count: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Centres (J, 3) of the at most ``count`` clusters that most images see, and labels (P,), -1 where dropped.

    iterations: of k-means. Raises :class:`InputError` where nothing is seen in enough images.
    """
    if len(samples.points) < MINIMUM_PIXELS:
        raise InputError(f"only {len(samples.points)} pixels fall near the keypoints' hull; check masks, depth maps and keypoints")
    centres, labels = k_means(samples.points, round(SURPLUS * count), iterations, seed)
    # Support counts images, not pixels: one image must not make a cluster.
    pairs = torch.unique(torch.stack([labels, samples.image]), dim=1)
    support = torch.bincount(pairs[0], minlength=len(centres))
    minimum = min(MINIMUM_IMAGES, int(samples.image.max()) + 1)
    order = support.argsort(descending=True, stable=True)
    kept = order[support[order] >= minimum][:count].sort().values
    if len(kept) == 0:
        raise InputError("no dense point is seen in enough images; check masks and depth maps, or annotate more images")
    renumbered = torch.full((len(centres),), -1)
    renumbered[kept] = torch.arange(len(kept))
    return centres[kept], renumbered[labels]
