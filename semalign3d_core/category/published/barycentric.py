"""Points expressed by the tetrahedra of a skeleton, and carried to another skeleton (method, section 1.5 and 1.6).

Points x tetrahedra is only ever held for a chunk of points; the result per point is one row of ``W`` (points x keypoints).
"""

import torch
from torch import Tensor

from semalign3d_core.runtime.errors import InputError

REGULARISATION = 1e-7  # as published
INSIDE = 0.1  # how far below 0 a coordinate of a point inside may be
CHUNK_VALUES = 2_000_000  # points x tetrahedra x 4 at a time


def barycentric_coordinates(points: Tensor, skeleton: Tensor, tets: Tensor) -> Tensor:
    """Coordinates (P, Q, 4) of points (P, 3) in tetrahedra (Q, 4) of ``skeleton`` (K, 3).

    ``(b1, b2, b3) = (M + 1e-7 I)^-1 (p - v0)`` with the edges from the first corner as columns of M; ``b0 = 1 - b1 - b2 - b3``.
    """
    corners = skeleton[tets]
    matrix = (corners[:, 1:] - corners[:, :1]).transpose(1, 2)
    matrix = matrix + REGULARISATION * torch.eye(3, dtype=skeleton.dtype, device=skeleton.device)
    # Solved rather than inverted: near-flat tetrahedra keep their accuracy.
    rest = torch.linalg.solve(matrix, (points[None] - corners[:, :1]).transpose(1, 2)).permute(2, 0, 1)
    return torch.cat([1 - rest.sum(-1, keepdim=True), rest], dim=-1)


def inside_tets(coordinates: Tensor, threshold: float = INSIDE) -> Tensor:
    """(P, Q) bool: no coordinate below ``-threshold`` (and they sum to 1)."""
    return (coordinates >= -threshold).all(-1) & ((coordinates.sum(-1) - 1).abs() < threshold)


def tet_weights(points: Tensor, skeleton: Tensor, tets: Tensor, inside: Tensor) -> Tensor:
    """Weights (P, Q) of the tetrahedra that hold a point, falling with the distance to their centroid; rows sum to 1 or are 0."""
    distance = torch.cdist(points, skeleton[tets].mean(1), compute_mode="donot_use_mm_for_euclid_dist")
    weight = distance.amin(1, keepdim=True) / (distance + 1e-6) * inside
    return weight / (weight.sum(1, keepdim=True) + 1e-9)


def keypoint_weights(points: Tensor, skeleton: Tensor, tets: Tensor, threshold: float = INSIDE) -> tuple[Tensor, Tensor]:
    """One row of keypoint weights per point, W (P, K), and whether the point is inside any tetrahedron, (P,) bool.

    ``W X = sum_q w_q sum_c b_qc x_qc`` for any keypoints X: tetrahedra q weighted by :func:`tet_weights`, in each the point at its
    barycentric coordinates. Works on chunks of points, so points x tetrahedra x 4 never exists. Rows of points inside no tetrahedron are 0.
    Raises :class:`InputError` without tetrahedra.
    """
    if len(tets) == 0:
        raise InputError("no tetrahedron is given: at least four keypoints, not in one plane, are needed")
    chunk = max(1, CHUNK_VALUES // (4 * len(tets)))
    rows, inside_any = [], []
    for part in points.split(chunk):
        coordinates = barycentric_coordinates(part, skeleton, tets)
        inside = inside_tets(coordinates, threshold)
        weights = tet_weights(part, skeleton, tets, inside)[..., None] * coordinates
        row = torch.zeros(len(part), len(skeleton), dtype=points.dtype, device=points.device)
        rows.append(row.index_add_(1, tets.flatten(), weights.flatten(1)))
        inside_any.append(inside.any(1))
    return torch.cat(rows), torch.cat(inside_any)


def in_hull(points: Tensor, skeleton: Tensor, tets: Tensor, threshold: float = INSIDE) -> Tensor:
    """(P,) bool: inside any tetrahedron up to ``threshold``; in chunks of points."""
    chunk = max(1, CHUNK_VALUES // (4 * max(1, len(tets))))
    return torch.cat([inside_tets(barycentric_coordinates(part, skeleton, tets), threshold).any(1) for part in points.split(chunk)])


def relative_volumes(skeleton: Tensor, tets: Tensor) -> Tensor:
    """Volume of each tetrahedron relative to the cube of its longest edge, (Q,); flat ones are near 0."""
    corners = skeleton[tets]
    edges = corners[:, 1:] - corners[:, :1]
    longest = torch.cdist(corners, corners).amax((1, 2)).clamp(min=1e-12)
    return torch.linalg.det(edges).abs() / 6 / longest**3
