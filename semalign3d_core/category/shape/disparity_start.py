"""Start from depth: one disparity slope per image makes the shapes agree; then Betas and their likeliest constellation."""

from dataclasses import dataclass, field

import torch

from semalign3d_core.category.annotations.constellations import MIRROR, to_mirror_plane
from semalign3d_core.category.published.sparse import SparseOptions, reconstruct
from semalign3d_core.category.statistics.geometric_features import masked_mean_variance
from semalign3d_core.category.statistics.tables import ValidityRules, beta_table, noise_augmentation
from semalign3d_core.geometry.rotations import shape_diameter


@dataclass(frozen=True)
class DisparityOptions:
    """slope: start of b in 1/z = 1 + b d; prior: weight of (log b / slope)^2; steps, rate: of Adam on log b;
    triples: random triples per step; copies, noise: augmentation of the Beta statistics; features: random edge pairs
    (and as many triangle rows) whose Betas are fitted, enough for a start."""

    slope: float = 0.3
    prior: float = 0.05
    steps: int = 300
    rate: float = 0.02
    triples: int = 500
    copies: int = 10
    noise: float = 0.2
    features: int = 4000
    sparse: SparseOptions = field(default_factory=lambda: SparseOptions(6, 150, 300, 0.03, 512))


def disparity_start(data, options=None, generator=None):
    """Shape (K, 3), diameter 1, in its mirror frame, from the relative inverse depths of the keypoints.

    data: :class:`Constellations`. Keypoints that no valid feature reaches are put at the centre: a start only.
    """
    options = options or DisparityOptions()
    generator = generator or torch.Generator().manual_seed(0)
    slopes = fit_slopes(data, options, generator)
    points = back_projected(data, slopes).float()
    table, _ = camera_frame_statistics(points, data.visible & data.measured, data.flip, options, generator)
    shape = reconstruct(table, data.count, options.sparse, generator)[0].double()
    shape = to_mirror_plane(shape.nan_to_num(nan=0.0), data.flip)
    return shape / shape_diameter(shape)


def back_projected(data, slopes):
    """Camera-frame keypoints (N, K, 3), z = 1 / (1 + b d)."""
    z = 1 / (1 + slopes[:, None] * data.inverse).clamp(min=0.2)
    return torch.cat([data.points / data.focal[:, None, None] * z[..., None], z[..., None]], dim=-1)


def fit_slopes(data, options, generator):
    """One slope b > 0 per image, (N,), minimising the variance of triple features across images (and mirror images).

    Images whose depth is known up to scale keep their known slope. A random subset of triples per step stands for all.
    """
    known = torch.isfinite(data.slope)
    start = torch.where(known, data.slope.nan_to_num(nan=options.slope).clamp(min=1e-3), torch.full_like(data.slope, options.slope))
    logs = start.log().requires_grad_()
    optimiser = torch.optim.Adam([logs], lr=options.rate)
    visible = data.visible & data.measured
    for _ in range(options.steps):
        triple = torch.randint(data.count, (options.triples, 3), generator=generator)
        triple = triple[(triple[:, 0] != triple[:, 1]) & (triple[:, 0] != triple[:, 2]) & (triple[:, 1] != triple[:, 2])]
        points = back_projected(data, torch.where(known, start, logs.exp()))
        variance = _triple_variance(points, visible, triple, data.flip)
        loss = variance.mean() * data.count**3 + options.prior * ((logs - torch.log(torch.tensor(options.slope))) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.where(known, start, logs.detach().exp())


def _triple_variance(points, visible, triple, flip):
    """Summed variance of cosine and ratio of chosen triples (i; j, k); mirrored images only exchange labels."""
    features, mask = _some_triples(points, visible, triple)
    if flip is not None:
        partner, partner_mask = _some_triples(points, visible, flip[triple])
        features, mask = torch.cat([features, partner]), torch.cat([mask, partner_mask])
    return masked_mean_variance(features, mask[..., None])[1].sum(-1)


def _some_triples(points, visible, triple):
    first = points[:, triple[:, 1]] - points[:, triple[:, 0]]
    second = points[:, triple[:, 2]] - points[:, triple[:, 0]]
    a, b = (v.square().sum(-1).clamp(min=1e-12).sqrt() for v in (first, second))
    features = torch.stack([(first * second).sum(-1) / (a * b + 1e-6), a / (a + b + 1e-6)], dim=-1)
    return features, visible[:, triple].all(-1)


def camera_frame_statistics(points, visible, flip, options, generator):
    """Betas of camera-frame instances (N, K, 3) and their mirror images, noise added; also the instances used.

    Returns (:class:`BetaTable`, (points, visible) with mirror images).
    """
    if flip is not None:
        points = torch.cat([points, points[:, flip] * MIRROR.to(points)])
        visible = torch.cat([visible, visible[:, flip]])
    noisy, mask = noise_augmentation(points, visible, options.copies, options.noise, generator)
    rules = ValidityRules(minimum_samples=4 * options.copies)
    return beta_table(noisy, mask, rules=rules, limit=options.features, generator=generator), (points, visible)
