"""What the solvers need of a category model, computed once per category."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment.config import ObservationConfig
from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.category.statistics.fisher_modes import fisher_modes
from semalign3d_core.category.surface.surface_map import SurfaceMap
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.values import ShortRepr

STRAY = 0.16  # diameters; surfaces with keypoints on them stay below 0.1, bodies of revolution below their radius
SCORING_POINTS = 128  # dense points used for scoring
GEOMETRY_ROWS = 256  # edge pairs and tetrahedra that the reported energy looks at, evenly spread over the tables
FEWEST = 4  # keypoints


@dataclass(frozen=True, repr=False)
class CategoryTensors(ShortRepr):
    """K present keypoints, P dense points (those near the keypoints), J = P + K points (dense first), M modes.

    name:       of the category
    keypoints:  (K,) indices of the present keypoints in the model
    shape:      (K, 3) X0;  surface: :class:`SurfaceMap`, all points are ``surface @ X`` (the dense ones, then the keypoints themselves)
    dense:      P;  points: (J, 3) at X0;  point_modes: (3, J, M) their derivative by the mode coefficients
    modes:      (M, K, 3);  variances: (M,)
    features:   (J, C);  mu, sd: (J,) of similarities;  semantic_sd: (J,) the standard deviation in Eq. 4
    scoring:    (J',) indices of the points by which viewpoints and images are judged: dense ones far from one another, the first
                dense_scoring, then all keypoints; scoring_features: (J', C) theirs
    betas:      :class:`BetaTable` of the present keypoints;  spread_betas: some of its rows
    log_focal:  (2,) mean and sd of log f
    """

    name: str
    keypoints: Tensor
    shape: Tensor
    surface: SurfaceMap
    dense: int
    points: Tensor
    point_modes: Tensor
    modes: Tensor
    variances: Tensor
    features: Tensor
    mu: Tensor
    sd: Tensor
    semantic_sd: Tensor
    scoring: Tensor
    dense_scoring: int
    scoring_features: Tensor
    betas: BetaTable
    spread_betas: BetaTable
    log_focal: Tensor

    @classmethod
    def of(cls, model: CategoryModel, modes: int, options: ObservationConfig) -> "CategoryTensors":
        """From a :class:`CategoryModel`; at most ``modes`` deformation modes are used.

        Raises :class:`InputError` for a model of fewer than four annotated keypoints.
        """
        keep = model.present.nonzero()[:, 0]
        if len(keep) < FEWEST:
            raise InputError(f"the model of {model.category!r} has {len(keep)} annotated keypoints, at least {FEWEST} are needed")
        shape = model.shape[keep]
        betas = _present_rows(model.betas, model.present)
        basis, variances = _largest(model.modes[:, keep], model.mode_variances, modes)
        if not len(basis):
            basis, variances = fisher_modes(shape, betas, modes)
        surface = model.surface.over(keep)
        dense = near_keypoints(surface @ shape, shape).nonzero()[:, 0]
        surface = surface[dense].with_keypoints()
        points = surface @ shape
        features = torch.cat([model.dense_features[dense], model.keypoint_features[keep]])
        chosen, sd = scoring_points(points, len(dense), SCORING_POINTS), torch.cat([model.dense_sd[dense], model.keypoint_sd[keep]])
        return cls(
            name=model.category, keypoints=keep, shape=shape, surface=surface, dense=len(dense), points=points,
            modes=basis, variances=variances,
            point_modes=surface.derivative(shape, basis).permute(2, 1, 0).contiguous(), features=features,
            scoring=chosen, dense_scoring=len(chosen) - len(shape),
            scoring_features=features[chosen].contiguous(), mu=torch.cat([model.dense_mu[dense], model.keypoint_mu[keep]]), sd=sd,
            semantic_sd=semantic_sd(sd, options), betas=betas, spread_betas=_spread_rows(betas),
            log_focal=torch.stack([model.focal[0].log(), model.focal[1].clamp(min=0.05)]),
        )  # fmt: skip


def semantic_sd(sd: Tensor, options: ObservationConfig) -> Tensor:
    """Standard deviations (J,) in Eq. 4, from those of the similarities (J,); NaN (seen once) is the least."""
    return (options.sd_scale * sd).nan_to_num(nan=0.0).clamp(min=options.sd_floor)


def near_keypoints(points: Tensor, keypoints: Tensor) -> Tensor:
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


def scoring_points(points: Tensor, dense: int, count: int) -> Tensor:
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


def _largest(modes: Tensor, variances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    order = variances.argsort(descending=True)[:count]
    return modes[order], variances[order].clamp(min=1e-8)


def _present_rows(betas: BetaTable, present: Tensor) -> BetaTable:
    """The rows of a table that use only present keypoints, renumbered."""
    number = torch.cumsum(present.long(), 0) - 1
    edges = present[betas.edge1].all(-1) & present[betas.edge2].all(-1)
    tets = present[betas.triangle].all(-1) & present[betas.vertex]
    return BetaTable(
        number[betas.edge1[edges]], number[betas.edge2[edges]], betas.edge_beta[edges],
        number[betas.triangle[tets]], number[betas.vertex[tets]], betas.tet_beta[tets],
    )  # fmt: skip


def _spread_rows(betas: BetaTable) -> BetaTable:
    """A table of at most ``GEOMETRY_ROWS`` edge pairs and tetrahedra, evenly spread over ``betas``."""
    return chosen_rows(betas, *(_spread(len(table), betas.edge1.device) for table in (betas.edge1, betas.vertex)))


def _spread(count: int, device: torch.device) -> Tensor:
    rows = min(count, GEOMETRY_ROWS)
    return (torch.arange(rows, device=device) * (count / max(rows, 1))).long()


def chosen_rows(betas: BetaTable, edges: Tensor, tets: Tensor) -> BetaTable:
    """The table of the edge pairs and tetrahedra with the given indices."""
    return BetaTable(
        betas.edge1[edges], betas.edge2[edges], betas.edge_beta[edges], betas.triangle[tets], betas.vertex[tets], betas.tet_beta[tets]
    )
