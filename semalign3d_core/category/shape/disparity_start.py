"""Start from depth: one disparity slope per image makes the shapes agree; then Betas and their likeliest constellation."""

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.published.sparse import Descent, reconstruct
from semalign3d_core.category.shape.mirror import to_mirror_plane, with_mirror_images
from semalign3d_core.category.statistics.beta_tables import noisy_beta_table
from semalign3d_core.category.statistics.geometric_features import masked_mean_variance
from semalign3d_core.geometry.rotations import shape_diameter

USUAL_SLOPE = 0.3  # b in 1/z = 1 + b d, where the search starts
PRIOR = 0.05  # weight of (log b / USUAL_SLOPE)^2
STEPS, RATE = 300, 0.02  # of Adam on log b
TRIPLES = 500  # random triples per step
COPIES = 10  # noisy ones of every instance in the statistics
FEATURES = 4000  # random edge pairs, and as many triangle rows, whose Betas are fitted: enough for a start
DESCENT = Descent(starts=6, coarse_steps=150, steps=300, features=512)


def disparity_start(data: Constellations, generator: torch.Generator) -> Tensor:
    """Shape (K, 3), diameter 1, in its mirror frame, from the relative inverse depths of the keypoints.

    Keypoints that no valid feature reaches are put at the centre: a start only.
    Raises :class:`InputError` if too few keypoints have valid statistics.
    """
    points = _back_projected(data, _fitted_slopes(data, generator)).float()
    instances, visible = with_mirror_images(points, data.visible & data.measured, data.flip)
    table = noisy_beta_table(instances, visible, COPIES, generator, FEATURES)
    shape = reconstruct(table, data.count, DESCENT, generator)[0].double()
    shape = to_mirror_plane(shape.nan_to_num(nan=0.0), data.flip)
    return shape / shape_diameter(shape)


def _back_projected(data: Constellations, slopes: Tensor) -> Tensor:
    """Camera-frame keypoints (N, K, 3), z = 1 / (1 + b d)."""
    z = 1 / (1 + slopes[:, None] * data.inverse).clamp(min=0.2)
    return torch.cat([data.points / data.focal[:, None, None] * z[..., None], z[..., None]], dim=-1)


def _fitted_slopes(data: Constellations, generator: torch.Generator) -> Tensor:
    """One slope b > 0 per image, (N,), minimising the variance of triple features across images (and mirror images).

    Images whose depth is known up to scale keep their known slope. A random subset of triples per step stands for all.
    """
    known = torch.isfinite(data.slope)
    start = data.slope.nan_to_num(nan=USUAL_SLOPE).clamp(min=1e-3)
    logs = start.log().requires_grad_()
    optimiser = torch.optim.Adam([logs], lr=RATE)
    visible = data.visible & data.measured
    for _ in range(STEPS):
        triple = torch.randint(data.count, (TRIPLES, 3), generator=generator)
        triple = triple[(triple[:, 0] != triple[:, 1]) & (triple[:, 0] != triple[:, 2]) & (triple[:, 1] != triple[:, 2])]
        points = _back_projected(data, torch.where(known, start, logs.exp()))
        variance = _triple_variance(points, visible, triple, data.flip)
        loss = variance.mean() * data.count**3 + PRIOR * ((logs - torch.tensor(USUAL_SLOPE).log()) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.where(known, start, logs.detach().exp())


def _triple_variance(points: Tensor, visible: Tensor, triple: Tensor, flip: Tensor | None) -> Tensor:
    """Summed variance of cosine and ratio of chosen triples (i; j, k); mirrored images only exchange labels."""
    features, mask = _some_triples(points, visible, triple)
    if flip is not None:
        partner, partner_mask = _some_triples(points, visible, flip[triple])
        features, mask = torch.cat([features, partner]), torch.cat([mask, partner_mask])
    return masked_mean_variance(features, mask[..., None])[1].sum(-1)


def _some_triples(points: Tensor, visible: Tensor, triple: Tensor) -> tuple[Tensor, Tensor]:
    first = points[:, triple[:, 1]] - points[:, triple[:, 0]]
    second = points[:, triple[:, 2]] - points[:, triple[:, 0]]
    a, b = (v.square().sum(-1).clamp(min=1e-12).sqrt() for v in (first, second))
    features = torch.stack([(first * second).sum(-1) / (a * b + 1e-6), a / (a + b + 1e-6)], dim=-1)
    return features, visible[:, triple].all(-1)
