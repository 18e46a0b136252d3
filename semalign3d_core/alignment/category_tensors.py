"""What the solvers need of a category model, computed once per category."""

from dataclasses import dataclass

import torch

from semalign3d_core.alignment.fisher import fisher_modes
from semalign3d_core.category.model import BetaTable
from semalign3d_core.category.surface.surface_map import SurfaceMap
from semalign3d_core.runtime.errors import InputError

STRAY = 0.16  # diameters; surfaces with keypoints on them stay below 0.1, bodies of revolution below their radius


@dataclass(frozen=True)
class CategoryTensors:
    """K present keypoints, P dense points (those near the keypoints), J = P + K points (dense first), M modes.

    name:       of the category
    keypoints:  (K,) indices of the present keypoints in the model
    shape:      (K, 3) X0;  lift: :class:`SurfaceMap`, all points are ``lift @ X`` (the surface, then the keypoints themselves)
    points:     (J, 3) at X0;  point_modes: (3, J, M) their derivative by the mode coefficients
    modes:      (M, K, 3);  variances: (M,)
    features:   (J, C), mu, sd: (J,)
    scoring:    (J',) indices of the points by which viewpoints and images are judged: dense ones far from one another, then all
                keypoints; scoring_features: (J', C) theirs
    betas:      :class:`BetaTable` of the present keypoints
    log_focal:  (2,) mean and sd of log f
    """

    name: str
    keypoints: torch.Tensor
    shape: torch.Tensor
    lift: SurfaceMap
    points: torch.Tensor
    point_modes: torch.Tensor
    modes: torch.Tensor
    variances: torch.Tensor
    features: torch.Tensor
    mu: torch.Tensor
    sd: torch.Tensor
    scoring: torch.Tensor
    scoring_features: torch.Tensor
    betas: BetaTable
    log_focal: torch.Tensor

    @property
    def dense(self):
        """P, the number of dense points."""
        return len(self.points) - len(self.shape)

    @property
    def dense_scoring(self):
        """Number of dense points among the scoring points."""
        return len(self.scoring) - len(self.shape)

    @classmethod
    def of(cls, model, modes, scoring):
        """From a :class:`CategoryModel`; at most ``modes`` deformation modes and ``scoring`` dense points for scoring are used."""
        keep = model.present.nonzero()[:, 0]
        if len(keep) < 4:
            raise InputError(f"the model of {model.category!r} has {len(keep)} annotated keypoints, at least 4 are needed")
        shape = model.shape[keep]
        betas = _present_rows(model.betas, model.present)
        basis, variances = _largest(model.modes[:, keep], model.mode_variances, modes)
        if not len(basis):
            basis, variances = fisher_modes(shape, betas, modes)
        surface = model.surface.over(keep)
        dense = near_keypoints(surface @ shape, shape).nonzero()[:, 0]
        lift = surface[dense].with_keypoints()
        features = torch.cat([model.dense_features[dense], model.keypoint_features[keep]])
        chosen = scoring_points(lift @ shape, len(dense), scoring)
        return cls(
            name=model.category, keypoints=keep, shape=shape, lift=lift, points=lift @ shape, modes=basis, variances=variances, betas=betas,
            point_modes=lift.derivative(shape, basis).permute(2, 1, 0).contiguous(), features=features, scoring=chosen,
            scoring_features=features[chosen].contiguous(),
            mu=torch.cat([model.dense_mu[dense], model.keypoint_mu[keep]]), sd=torch.cat([model.dense_sd[dense], model.keypoint_sd[keep]]),
            log_focal=torch.stack([model.focal[0].log(), model.focal[1].clamp(min=0.05)]),
        )  # fmt: skip


def near_keypoints(points, keypoints):
    """(P,) bool: points (P, 3) within ``STRAY`` of a line between two keypoints (K, 3).

    A cloud of few or coplanar keypoints can hold points thrown far out by bad depth; a handful would spoil the box by
    which every start is placed. When fewer than ten points are near, nothing is dropped.
    """
    first, second = torch.triu_indices(len(keypoints), len(keypoints), 1, device=keypoints.device)
    start, line = keypoints[first], keypoints[second] - keypoints[first]
    along = ((points[:, None] - start) * line).sum(-1) / (line * line).sum(-1).clamp(min=1e-12)
    distance = (points[:, None] - start - along.clamp(0, 1)[..., None] * line).norm(dim=-1).amin(1)
    near = distance < STRAY
    return near if int(near.sum()) >= 10 else torch.ones_like(near)


def scoring_points(points, dense, count):
    """Indices of at most ``count`` of the first ``dense`` points (J, 3), far from one another, and of all others, the keypoints."""
    cloud, keypoints = points[:dense], torch.arange(dense, len(points), device=points.device)
    if dense <= count:
        return torch.cat([torch.arange(dense, device=points.device), keypoints])
    distance = torch.full_like(cloud[:, 0], torch.inf)
    chosen = [torch.zeros((), dtype=torch.long, device=points.device)]
    for _ in range(count - 1):  # once per category
        distance = torch.minimum(distance, ((cloud - cloud[chosen[-1]]) ** 2).sum(-1))
        chosen.append(distance.argmax())
    return torch.cat([torch.stack(chosen), keypoints])


def _largest(modes, variances, count):
    order = variances.argsort(descending=True)[:count]
    return modes[order], variances[order].clamp(min=1e-8)


def _present_rows(betas, present):
    """The rows of a table that use only present keypoints, renumbered."""
    number = torch.cumsum(present.long(), 0) - 1
    edges = present[betas.edge1].all(-1) & present[betas.edge2].all(-1)
    tets = present[betas.triangle].all(-1) & present[betas.vertex]
    return BetaTable(
        number[betas.edge1[edges]], number[betas.edge2[edges]], betas.edge_beta[edges],
        number[betas.triangle[tets]], number[betas.vertex[tets]], betas.tet_beta[tets],
    )  # fmt: skip


def spread_rows(betas, rows):
    """A table of at most ``rows`` edge pairs and ``rows`` tetrahedra, evenly spread over ``betas``."""
    edges = _spread(len(betas.edge1), rows, betas.edge1.device)
    tets = _spread(len(betas.vertex), rows, betas.edge1.device)
    return chosen_rows(betas, edges, tets)


def chosen_rows(betas, edges, tets):
    """The table of the edge pairs and tetrahedra with the given indices."""
    return BetaTable(
        betas.edge1[edges], betas.edge2[edges], betas.edge_beta[edges], betas.triangle[tets], betas.vertex[tets], betas.tet_beta[tets]
    )


def _spread(count, rows, device):
    if count <= rows:
        return torch.arange(count, device=device)
    return (torch.arange(rows, device=device) * (count / rows)).long()
