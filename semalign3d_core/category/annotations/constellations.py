"""The annotated keypoints of all training images as tensors, and the mirror symmetry they share."""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Constellations:
    """What N images say about the K keypoints that take part; all float64.

    points:   (N, K, 2) normalised image points minus the principal point; 0 where not visible
    visible:  (N, K) bool
    inverse:  (N, K) relative inverse depth at the keypoints in units of the object's own range (5th percentile over the
              mask 0, 95th 1); 0 where unknown
    measured: (N, K) bool, where ``inverse`` is known
    slope:    (N,) known b of ``1/z = (1 + b inverse) / z_far`` where depth is given up to scale only; NaN for disparity
    size:     (N,) longer side of the object's box in units of L
    focal:    (N,) focal length in units of L (measured, or the assumed one)
    flip:     (K,) int64, label in the mirror image, or None where the category has no symmetry
    depth:    (N, K) z at the keypoints as the published formula gives it (:meth:`DepthMap.z`), 0 where unknown; only for
              the published steps
    focal_known: (N,) bool, where ``focal`` is measured; only for the published steps
    outline:  :class:`Outline`, or None without symmetry
    masks:    :class:`MaskFields`, or None where nothing is known of the masks
    """

    points: torch.Tensor
    visible: torch.Tensor
    inverse: torch.Tensor
    measured: torch.Tensor
    slope: torch.Tensor
    size: torch.Tensor
    focal: torch.Tensor
    flip: torch.Tensor | None
    depth: torch.Tensor | None = None
    focal_known: torch.Tensor | None = None
    outline: object = None
    masks: object = None

    def only(self, keypoints):
        """The same images with the keypoints (K',) bool alone; mirror partners must stay together."""
        number = torch.cumsum(keypoints.long(), 0) - 1
        chosen = {name: getattr(self, name)[:, keypoints] for name in ("points", "visible", "inverse", "measured")}
        chosen |= {"depth": None if self.depth is None else self.depth[:, keypoints]}
        chosen |= {"outline": None if self.outline is None else self.outline.only(keypoints)}
        return replace(self, flip=None if self.flip is None else number[self.flip[keypoints]], **chosen)

    @property
    def count(self):
        """Number of keypoints K."""
        return self.points.shape[1]


MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)


def mirrored(vectors, flip):
    """Keypoint vectors (..., K, 3) of the mirror image: labels exchanged, x reversed."""
    return vectors[..., flip, :] * MIRROR.to(vectors)


def symmetrised(shape, flip):
    """The mean of a shape (..., K, 3) and its mirror image; the shape itself without symmetry."""
    return shape if flip is None else (shape + mirrored(shape, flip)) / 2


def mirror_rotation(rotation):
    """``R' = M R M``: the pose of the mirror image."""
    m = MIRROR.to(rotation)
    return m[:, None] * rotation * m


def to_mirror_plane(shape, flip):
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
