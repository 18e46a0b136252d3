"""The dense cloud: pixels moved into the object frame by each image's own pose and displacement, then clustered (section 1.5)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import ConvexHull, cKDTree

from semalign3d_core.category.annotations.constellations import MIRROR
from semalign3d_core.category.shape.factor_model import depth_readings
from semalign3d_core.category.surface.surface_map import half_width, normal, surface_map
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.threads import usual_workers


@dataclass(frozen=True)
class DenseOptions:
    """points: dense points kept; surplus: clusters per kept point; minimum_images: that must see a cluster; margin: kept
    outside the hull of the keypoints, in diameters; slope_prior: weight of the pull of an image's relative depth range
    towards ``depth_range``; sd_floor: least standard deviation of a cosine; iterations: of k-means."""

    points: int = 300
    surplus: float = 1.3
    minimum_images: int = 3
    margin: float = 0.1
    slope_prior: float = 0.01
    depth_range: float = 0.25
    sd_floor: float = 0.05
    iterations: int = 25


@dataclass(frozen=True)
class Samples:
    """Merged pixels in the object frame: points (P, 3) float64, image (P,) index of the view, row (P,) index of its pixel,
    mirrored (P,) bool."""

    points: torch.Tensor
    image: torch.Tensor
    row: torch.Tensor
    mirrored: torch.Tensor


def picture_depth(model, readings, data, index, inverse, options):
    """z (S,) in diameters of pixels with relative inverse depth ``inverse`` (S,) of image ``index``.

    readings: of :func:`depth_readings`. 1/z of the image's completed shape is regressed on the inverse depth read there, robustly; a
    weak prior pulls the slope towards a usual relative depth range, which decides where the readings do not.
    """
    z, value, known = (reading[index] for reading in readings)
    target, value = 1 / z[known], value[known]
    middle = 1 / model.in_camera()[index][data.visible[index], 2].mean()
    has_offset = bool(torch.isnan(data.slope[index]))
    scale = (lambda v: v) if has_offset else (lambda v: 1 + data.slope[index] * v)
    value, weight = scale(value), torch.ones_like(target)
    slope, level = options.depth_range * middle, middle - 0.5 * options.depth_range * middle
    for _ in range(6 if int(known.sum()) >= 2 else 0):
        slope, level = _regression(value, target, weight, has_offset, options, middle)
        relative = (target - level - slope * value) / middle
        weight = 1 / (1 + (relative / 0.05) ** 2)
    return 1 / (level + slope * scale(inverse)).clamp(min=0.2 * middle)


def _regression(value, target, weight, has_offset, options, middle):
    if not has_offset:
        return (weight * value * target).sum() / (weight * value * value).sum().clamp(min=1e-12), 0.0
    total = weight.sum()
    mean_value, mean_target = (weight * value).sum() / total, (weight * target).sum() / total
    a, b = value - mean_value, target - mean_target
    prior = options.slope_prior * len(value)
    slope = ((weight * a * b).sum() + prior * options.depth_range * middle) / ((weight * a * a).sum() + prior)
    slope = slope.clamp(min=0.2 * options.depth_range * middle)  # nearer is never farther
    return slope, mean_target - slope * mean_value


def merged_samples(views, model, data, options):
    """Pixels of all views in the object frame, less the displacement of their instance: :class:`Samples`.

    Without mirror images; only points within the margin of the hull of the mean shape.
    """
    points, image, row = [], [], []
    plane, readings = model.plane, depth_readings(model, model.in_camera(), data)
    for n, view in enumerate(views):
        z = picture_depth(model, readings, data, n, _relative_inverse(view), options)
        place = _object_points(view, model, n, z, plane)
        points.append(place)
        image.append(torch.full((len(place),), n))
        row.append(torch.arange(len(place)))
    points, image, row = torch.cat(points), torch.cat(image), torch.cat(row)
    near = within_hull(points, model.shape, plane, options.margin)
    return Samples(points[near], image[near], row[near], torch.zeros(int(near.sum()), dtype=torch.bool))


def _relative_inverse(view):
    low, high = view.inverse_range
    return (view.pixel_inverse.double() - low) / (high - low)


def _object_points(view, model, n, z, plane):
    flat = view.pixels.double() / max(view.height, view.width)
    camera = back_project(flat, z, view.focal.double(), view.principal.double())
    instance = (camera - model.translation[n]) @ model.rotation[n]
    return surface_map(instance, model.completed[n], plane) @ model.shape


def with_mirror_images(samples, views):
    """The samples and, for views with mirrored features, their mirror images."""
    has = torch.tensor([len(v.mirrored_pixel_features) > 0 for v in views])[samples.image]
    return Samples(
        torch.cat([samples.points, samples.points[has] * MIRROR]),
        torch.cat([samples.image, samples.image[has]]),
        torch.cat([samples.row, samples.row[has]]),
        torch.cat([samples.mirrored, torch.ones(int(has.sum()), dtype=torch.bool)]),
    )


def within_hull(points, shape, plane, margin):
    """(P,) bool: at most ``margin`` diameters outside a facet of the convex hull of ``shape`` (K, 3).

    plane: as in :class:`SurfaceMap`. The hull of coplanar keypoints is given the thickness of the lesser of their two extents.
    """
    diameter = float(torch.cdist(shape, shape).max())
    reach = half_width(plane, shape) * normal(plane, shape)
    facets = torch.from_numpy(ConvexHull(torch.cat([shape - reach, shape + reach]).numpy()).equations)
    outside = torch.cat([(part @ facets[:, :3].T + facets[:, 3]).amax(1) for part in points.split(4096)])
    return outside <= margin * diameter


def k_means(points, count, iterations, seed):
    """Centres (J, 3) and labels (P,) by k-means++ on a subset and Lloyd's iterations with a k-d tree; empty clusters drop out."""
    rng = np.random.default_rng(seed)
    values = points.numpy()
    subset = values[rng.permutation(len(values))[: 20 * count]]
    centres = _spread_centres(subset, min(count, len(subset)), rng)
    for _ in range(iterations):
        labels = cKDTree(centres).query(values, workers=usual_workers())[1]
        sizes = np.bincount(labels, minlength=len(centres))
        sums = np.stack([np.bincount(labels, values[:, axis], len(centres)) for axis in range(3)], axis=1)
        centres = sums[sizes > 0] / sizes[sizes > 0, None]
    labels = cKDTree(centres).query(values, workers=usual_workers())[1]
    return torch.from_numpy(centres), torch.from_numpy(labels).long()


def _spread_centres(values, count, rng):
    chosen = np.empty((count, 3))
    chosen[0] = values[rng.integers(len(values))]
    distance2 = ((values - chosen[0]) ** 2).sum(1)
    for n in range(1, count):
        total = distance2.sum()
        pick = rng.choice(len(values), p=distance2 / total) if total > 0 else rng.integers(len(values))
        chosen[n] = values[pick]
        distance2 = np.minimum(distance2, ((values - chosen[n]) ** 2).sum(1))
    return chosen


def supported_clusters(samples, options, seed):
    """Centres (J, 3) seen in enough images, best supported first to ``options.points``, and labels (P,), -1 where dropped."""
    if len(samples.points) < 50:
        raise InputError(f"only {len(samples.points)} pixels fall near the keypoints' hull; check masks, depth maps and keypoints")
    centres, labels = k_means(samples.points, round(options.surplus * options.points), options.iterations, seed)
    # Support counts images, not pixels: one picture must not make a cluster.
    pairs = torch.unique(torch.stack([labels, samples.image]), dim=1)
    support = torch.bincount(pairs[0], minlength=len(centres))
    minimum = min(options.minimum_images, int(samples.image.max()) + 1)
    order = support.argsort(descending=True, stable=True)
    kept = order[support[order] >= minimum][: options.points].sort().values
    renumbered = torch.full((len(centres),), -1)
    renumbered[kept] = torch.arange(len(kept))
    return centres[kept], renumbered[labels]


def cluster_features(samples, labels, count, views, sd_floor):
    """Mean feature (J, C), mu and s (J,) of clusters; an image (or mirror image) counts once however many pixels it gives.

    The mean is that of per-image means; mu and s are those of the single pixels' cosines. One image's features are in
    float32 at a time.
    """
    channels = views[0].pixel_features.shape[1]
    groups = list(_groups(samples, labels, len(views)))
    total = torch.zeros(count, channels)
    for features, share, cluster in _weighted_pixels(groups, views):
        total.index_add_(0, cluster, features * share[:, None])
    mean = torch.nn.functional.normalize(total, dim=1)
    moments = torch.zeros(count, 3, dtype=torch.float64)
    for features, share, cluster in _weighted_pixels(groups, views):
        cosine, share = (features * mean[cluster]).sum(1).double(), share.double()
        moments.index_add_(0, cluster, torch.stack([share, share * cosine, share * cosine * cosine], dim=1))
    mu = moments[:, 1] / moments[:, 0]
    variance = moments[:, 2] / moments[:, 0] - mu * mu
    return mean, mu.float(), variance.clamp(min=0).sqrt().clamp(min=sd_floor).float()


def _groups(samples, labels, images):
    """(image, mirrored, pixel rows, clusters) of every image and mirror image that has pixels in kept clusters."""
    used = labels >= 0
    for n in range(images):
        for side in (False, True):
            rows = (used & (samples.image == n) & (samples.mirrored == side)).nonzero()[:, 0]
            if len(rows):
                yield n, side, samples.row[rows], labels[rows]


def _weighted_pixels(groups, views):
    """Features of the pixels of each group and their share in the group's mean of their cluster."""
    for n, side, rows, cluster in groups:
        source = views[n].mirrored_pixel_features if side else views[n].pixel_features
        yield source[rows].float(), 1 / torch.bincount(cluster)[cluster].float(), cluster
