"""Rotations, similarity alignment and covers of the rotation group. Everything is batched over leading dimensions."""

import math

import numpy as np
import torch


def rotation_from_vector(vector: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) from rotation vectors (..., 3) in radians (Rodrigues); smooth at zero."""
    angle2 = (vector * vector).sum(-1)[..., None, None]
    small = angle2 < 1e-8
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 1 - angle2 / 6, angle.sin() / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - angle.cos()) / safe)
    cross = cross_matrix(vector)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + a * cross + b * (cross @ cross)


def turned(rotation: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) turned by vectors (..., 3) in the outer frame: ``(I - [v] / 2)^-1 (I + [v] / 2) R``.

    The Cayley transform: an exact rotation that agrees with :func:`rotation_from_vector` to second order and needs no sine, so a cheap
    retraction for small steps.
    """
    across = torch.linalg.cross(vector[..., None], rotation, dim=-2)
    twice = torch.linalg.cross(vector[..., None], across, dim=-2)
    factor = (vector * vector).sum(-1).mul_(0.25).add_(1).reciprocal_()[..., None, None]
    return torch.addcmul(rotation, factor, across.add_(twice, alpha=0.5))


def cross_matrix(vector: torch.Tensor) -> torch.Tensor:
    """(..., 3) to (..., 3, 3) with ``cross_matrix(v) w = v x w``."""
    axes = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return torch.linalg.cross(vector[..., None, :], axes.expand(*vector.shape, 3)).transpose(-1, -2)


def rotation_angle(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angle in radians between rotation matrices (..., 3, 3)."""
    trace = (first * second).sum((-2, -1))
    return ((trace - 1) / 2).clamp(-1, 1).acos()


def quaternion(rotation: torch.Tensor) -> np.ndarray:
    """Unit quaternion (4,) as (x, y, z, w), the order of ROS, w >= 0, of a rotation matrix (3, 3).

    Not by SciPy, which takes 40 MiB of a node's memory.
    """
    m = rotation.double().cpu().numpy()
    x, y, z = (1 + 2 * m[i, i] - m.trace() for i in range(3))
    # 4 q q^T: any row is the quaternion but for its length, the one with the largest diagonal most exactly (Shepperd 1978).
    products = np.array([
        [x, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
        [m[0, 1] + m[1, 0], y, m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
        [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], z, m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + m.trace()],
    ])  # fmt: skip
    row = products[products.diagonal().argmax()]
    return np.copysign(1, row[3]) * row / np.linalg.norm(row)


def rotation_vector(rotation: torch.Tensor) -> torch.Tensor:
    """Rotation vector (3,) in radians, of length at most pi, of a rotation matrix (3, 3): the inverse of :func:`rotation_from_vector`."""
    *axis, w = quaternion(rotation).tolist()
    length = math.hypot(*axis)
    factor = 2 * math.atan2(length, w) / length if length > 1e-12 else 2.0
    return torch.tensor([factor * value for value in axis], dtype=torch.float64).to(rotation)


def rotation_from_quaternion(quaternion: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) from quaternions (..., 4) as (x, y, z, w)."""
    quaternion = torch.nn.functional.normalize(quaternion, dim=-1)
    vector, w = quaternion[..., :3], quaternion[..., 3, None, None]
    cross = cross_matrix(vector)
    identity = torch.eye(3, dtype=quaternion.dtype, device=quaternion.device)
    return identity + 2 * w * cross + 2 * cross @ cross


def similarity_alignment(
    source: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None, reflect: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Least-squares ``scale R source + t = target`` (Umeyama 1991).

    source, target: (..., K, 3); weight: (..., K) >= 0 or None; reflect: allow det R = -1.
    Returns scale (...), R (..., 3, 3), t (..., 3).
    """
    share = 1 / source.shape[-2] if weight is None else (weight / weight.sum(-1, keepdim=True))[..., None]
    source_mean, target_mean = (share * source).sum(-2), (share * target).sum(-2)
    a, b = source - source_mean[..., None, :], target - target_mean[..., None, :]
    covariance = (share * b).transpose(-1, -2) @ a
    u, s, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(s)
    if not reflect:
        first, second, third = (u @ vt).unbind(-2)
        sign[..., 2] = (torch.linalg.cross(first, second) * third).sum(-1).sign()  # of the determinant
    rotation = (u * sign[..., None, :]) @ vt
    scale = (s * sign).sum(-1) / (share * a * a).sum((-2, -1)).clamp(min=1e-20)
    translation = target_mean - scale[..., None] * (rotation @ source_mean[..., None])[..., 0]
    return scale, rotation, translation


def shape_diameter(points: torch.Tensor) -> torch.Tensor:
    """Largest distance between two of the points (..., K, 3)."""
    return torch.cdist(points, points).amax((-2, -1))


def similarity_directions(shape: torch.Tensor) -> torch.Tensor:
    """(7, 3K): displacements of points (K, 3) by translation, rotation and scale."""
    axes = torch.eye(3, dtype=shape.dtype, device=shape.device)[:, None].expand(3, len(shape), 3)
    rotations = torch.linalg.cross(axes, shape.expand(3, -1, -1))
    return torch.cat([axes, rotations, shape[None]]).reshape(7, -1)


def uniform_rotations(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An even, deterministic cover of all rotations, (count, 3, 3): super-Fibonacci spirals (Alexa, CVPR 2022)."""
    phi, psi = math.sqrt(2), 1.533751168755204288118041
    s = torch.arange(count, dtype=torch.float64) + 0.5
    r, big_r = (s / count).sqrt(), (1 - s / count).sqrt()
    alpha, beta = 2 * math.pi * s / phi, 2 * math.pi * s / psi
    quaternion = torch.stack([r * alpha.sin(), r * alpha.cos(), big_r * beta.sin(), big_r * beta.cos()], -1)
    return rotation_from_quaternion(quaternion).to(dtype)
