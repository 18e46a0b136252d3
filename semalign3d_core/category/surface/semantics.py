"""Mean features and presence certainty (method, section 1.4)."""

import torch

NO_DATA_MEAN, NO_DATA_SD = 0.5, 0.01


def feature_statistics(features, counts):
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


def neighbour_statistics(centres, points, features, neighbours):
    """Mean feature, mean and population variance of the cosines over the ``neighbours`` points nearest to each centre.

    centres: (J, 3); points: (P, 3); features: (P, C) unit. Returns (J, C) unit, (J,), (J,). One centre at a time, so
    centres x points x channels never exists.
    """
    neighbours = min(neighbours, len(points))
    hats, means, variances = [], [], []
    for centre in centres:
        nearest = ((points - centre) ** 2).sum(1).topk(neighbours, largest=False).indices
        chosen = features[nearest]
        hat = torch.nn.functional.normalize(chosen.mean(0), dim=0)
        cosine = chosen @ hat
        hats.append(hat)
        means.append(cosine.mean())
        variances.append(cosine.var(correction=0))
    return torch.stack(hats), torch.stack(means), torch.stack(variances)
