"""Mean features of keypoints and dense points, and how similar single views of them are to the mean (method, section 1.4)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from semalign3d_core.category.annotations.views import View
from semalign3d_core.category.surface.dense_cloud import Samples

NO_DATA_MEAN, NO_DATA_SD = 0.5, 0.01

PointFeatures = tuple[Tensor, Tensor, Tensor]  # (J, C) unit mean features; (J,) mu and (J,) s, mean and deviation of the cosines to them
Group = tuple[int, bool, Tensor, Tensor]


def feature_statistics(features: Tensor, counts: Tensor) -> PointFeatures:
    """Mean feature and cosine statistics of each keypoint.

    features: (K, N, C) unit vectors of which the first ``counts[k]`` are valid. Returns the normalised mean (K, C) and
    mean (K,) and unbiased standard deviation (K,) of the cosines to it. No data: zero feature, 0.5 and 0.01. One
    instance: the deviation is NaN (the presence certainty replaces it).
    """
    valid = torch.arange(features.shape[1])[None] < counts[:, None]
    weight = valid.to(features.dtype)
    mean = (features * weight[..., None]).sum(1) / counts.clamp(min=1)[:, None]
    mean = torch.nn.functional.normalize(mean, dim=-1)
    cosine = torch.einsum("knc,kc->kn", features, mean)
    mu = (cosine * weight).sum(1) / counts.clamp(min=1)
    sd = ((((cosine - mu[:, None]) * weight) ** 2).sum(1) / (counts - 1).clamp(min=1)).sqrt()
    sd = torch.where(counts == 1, torch.nan, sd)
    none = counts == 0
    return mean, torch.where(none, NO_DATA_MEAN, mu), torch.where(none, NO_DATA_SD, sd)


def keypoint_features(views: Sequence[View], present: Tensor, flip: Tensor | None, sd_floor: float) -> PointFeatures:
    """:data:`PointFeatures` of the K keypoints over all images and mirror images (labels exchanged); rows of absent ones are 0.

    present: (K,) bool; flip: (K,) or None; sd_floor: smallest s.
    """
    observations = [v.keypoint_features.float() for v in views]
    seen = [v.annotated for v in views]
    for view in views:
        if flip is not None and len(view.mirrored_keypoint_features):
            observations.append(view.mirrored_keypoint_features.float()[flip])
            seen.append(view.annotated[flip])
    all_features, valid = torch.stack(observations, dim=1), torch.stack(seen, dim=1) & present[:, None]
    order = (~valid).long().argsort(dim=1, stable=True)  # the valid rows of each keypoint first
    sorted_rows = torch.gather(all_features, 1, order[..., None].expand_as(all_features))
    mean, mu, sd = feature_statistics(sorted_rows, valid.sum(1))
    sd = sd.nan_to_num(nan=sd_floor).clamp(min=sd_floor)
    return mean * present[:, None], torch.where(present, mu, 0.0), torch.where(present, sd, 0.0)


def cluster_features(samples: Samples, labels: Tensor, count: int, views: Sequence[View], sd_floor: float) -> PointFeatures:
    """:data:`PointFeatures` of ``count`` clusters; an image (or mirror image) counts once however many pixels it gives.

    labels: (P,) cluster of each sample, -1 for none. The mean is that of per-image means; mu and s are those of the single
    pixels' cosines. One image's features are in float32 at a time.
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


def _groups(samples: Samples, labels: Tensor, images: int) -> Iterator[Group]:
    """(image, mirrored, pixel rows, clusters) of every image and mirror image that has pixels in kept clusters."""
    used = labels >= 0
    for n in range(images):
        for side in (False, True):
            rows = (used & (samples.image == n) & (samples.mirrored == side)).nonzero()[:, 0]
            if len(rows):
                yield n, side, samples.row[rows], labels[rows]


def _weighted_pixels(groups: Sequence[Group], views: Sequence[View]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features of the pixels of each group and their share in the group's mean of their cluster."""
    for n, side, rows, cluster in groups:
        source = views[n].mirrored_pixel_features if side else views[n].pixel_features
        yield source[rows].float(), 1 / torch.bincount(cluster)[cluster].float(), cluster
