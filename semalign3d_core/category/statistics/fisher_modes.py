"""Deformation modes from the Beta tables alone: a Laplace approximation of Eq. 10 for models without modes."""

import torch

from semalign3d_core.category.statistics import beta
from semalign3d_core.category.statistics.beta_tables import BetaTable
from semalign3d_core.category.statistics.geometric_features import edge_pair_features, triangle_vertex_features
from semalign3d_core.geometry.rotations import similarity_directions

# The marginals of Eq. 10 count every deformation many times over; measured, modes of this Fisher form want a prior about
# forty times as strong as modes with honest variances.
STRENGTH = 40.0


def fisher_modes(shape: torch.Tensor, betas: BetaTable, count: int, rows: int = 1500) -> tuple[torch.Tensor, torch.Tensor]:
    """Modes (M, K, 3), unit norm, and prior variances (M,) from ``J^T diag(1 / Var_Beta) J`` at X0.

    shape: (K, 3); betas: :class:`BetaTable`. The 7 similarity directions are projected out. Without tables there are
    no modes. The true Hessian of Eq. 10 is not used: it has negative eigenvalues where Betas have parameters below 1.
    """
    if not len(betas.edge1) or not count:
        return shape.new_zeros(0, *shape.shape), shape.new_zeros(0)
    shape64 = shape.double()
    edges = torch.randperm(len(betas.edge1), generator=torch.Generator().manual_seed(0))[:rows].to(shape.device)
    tets = torch.randperm(len(betas.vertex), generator=torch.Generator().manual_seed(0))[:rows].to(shape.device)

    def features(points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ratio, cosine = edge_pair_features(points, betas.edge1[edges], betas.edge2[edges])
        return ratio, cosine, triangle_vertex_features(points, betas.triangle[tets], betas.vertex[tets])

    edge_beta, tet_beta = betas.edge_beta[edges].double(), betas.tet_beta[tets].double().reshape(-1, 3, 2)
    variances = (
        beta.variance(edge_beta[:, 0], edge_beta[:, 1]),
        4 * beta.variance(edge_beta[:, 2], edge_beta[:, 3]),  # cosines live on an interval twice as long
        4 * beta.variance(tet_beta[..., 0], tet_beta[..., 1]),
    )
    information = shape64.new_zeros(shape64.numel(), shape64.numel())
    for jacobian, variance in zip(torch.func.jacfwd(features)(shape64), variances, strict=True):
        flat = jacobian.reshape(-1, shape64.numel()) / variance.reshape(-1, 1).clamp(min=1e-5).sqrt()
        information += flat.T @ flat / max(len(variance), 1) / 5  # Eq. 10 is a mean over five kinds of features
    free = _complement(similarity_directions(shape64))
    values, vectors = torch.linalg.eigh(free.T @ information @ free)
    modes = (free @ vectors).T[:count].reshape(-1, *shape.shape)
    return modes.to(shape), (1 / (STRENGTH * values[:count].clamp(min=1e-3))).to(shape)


def _complement(directions: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns that span what is orthogonal to the rows."""
    return torch.linalg.svd(directions, full_matrices=True)[2][7:].T
