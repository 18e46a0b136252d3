"""The mirror symmetry of a category: the mirror image of an object is an object of the category with left and right labels exchanged."""

import torch
from torch import Tensor

MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)  # across x = 0


def mirrored(vectors: Tensor, flip: Tensor) -> Tensor:
    """Keypoint vectors (..., K, 3) of the mirror image: labels exchanged by ``flip`` (K,), x reversed."""
    return vectors[..., flip, :] * MIRROR.to(vectors)


def with_mirror_images(points: Tensor, visible: Tensor, flip: Tensor | None) -> tuple[Tensor, Tensor]:
    """Instances (N, K, 3) with visibility (N, K), their mirror images appended: (2N, K, 3), (2N, K); unchanged without symmetry."""
    if flip is None:
        return points, visible
    return torch.cat([points, mirrored(points, flip)]), torch.cat([visible, visible[:, flip]])


def symmetrised(shape: Tensor, flip: Tensor | None) -> Tensor:
    """The mean of a shape (..., K, 3) and its mirror image; the shape itself without symmetry."""
    return shape if flip is None else (shape + mirrored(shape, flip)) / 2


def with_mirror_poses(rotation: Tensor, flip: Tensor | None) -> Tensor:
    """Rotations (N, 3, 3), those of the mirror images appended: ``R' = M R M``; unchanged without symmetry."""
    if flip is None:
        return rotation
    m = MIRROR.to(rotation)
    return torch.cat([rotation, m[:, None] * rotation * m])


def to_mirror_plane(shape: Tensor, flip: Tensor | None) -> Tensor:
    """Turns a nearly symmetric shape (K, 3) so that its mirror plane becomes x = 0, and symmetrises it.

    The best alignment of the shape with its relabelled mirror image is a rotation whose axis is the plane's normal
    composed with that mirror; its symmetric part gives the normal. Without symmetry the shape is only centred.
    """
    shape = shape - shape.mean(0)
    if flip is None:
        return shape
    # Householder normal n minimises |(I - 2 n n^T) X - X[flip]|: largest eigenvector of -(X^T X[flip] + transpose).
    product = shape.T @ shape[flip]
    normal = torch.linalg.eigh(-(product + product.T)).eigenvectors[:, -1]
    helper = torch.eye(3, dtype=shape.dtype)[normal.abs().argmin()]
    second = torch.nn.functional.normalize(torch.linalg.cross(normal, helper), dim=0)
    frame = torch.stack([normal, second, torch.linalg.cross(normal, second)])
    return symmetrised(shape @ frame.T, flip)
