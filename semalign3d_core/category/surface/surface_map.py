"""The surface of an object as a function of its keypoints (method, section 1.6).

``Y = W X`` cannot leave the plane of coplanar keypoints, such as those of a silhouette. Categories whose mean keypoints are
(nearly) flat get one virtual direction: ``Y(X) = W X + o n(X)`` with a constant offset per point along the normal n(X)
of the keypoints' plane, which grows with the object. All other categories have ``o = 0``: for them the map is the matrix W.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOCALITY = 2.0  # a keypoint's share falls with this power of its squared distance
SMOOTHING = 0.02  # squared distances below this (in squared diameters) count as near
RANK = 1e-6
FLAT = 0.02  # RMS distance from the best plane, in diameters, below which keypoints count as coplanar
FEW, ENOUGH = 10, 20  # images between which the error of the mean shape, which falls with the root of their number, raises that limit
SMALLEST = 1e-12


@dataclass(frozen=True)
class SurfaceMap:
    """P surface points over K keypoints; ``surface @ X`` are the points of keypoints X (..., K, 3), (..., P, 3).

    weights: (P, K) W, rows sum to 1;  offsets: (P,) o;
    plane: (2, K), rows sum to 0: two directions in the keypoints' plane, ``plane @ X``; all 0 where keypoints are not flat
    raised: whether there is a plane; None: looked up

    The map follows every similarity transform of the keypoints exactly and is differentiable in them.
    """

    weights: Tensor
    offsets: Tensor
    plane: Tensor
    raised: bool | None = None

    def __post_init__(self) -> None:
        if self.raised is None:  # read once, for a GPU has to be waited for
            object.__setattr__(self, "raised", bool(self.plane.any()))

    def __matmul__(self, keypoints: Tensor) -> Tensor:
        if not self.raised:
            return self.weights @ keypoints
        return self.weights @ keypoints + self.offsets[:, None] * normal(self.plane, keypoints)[..., None, :]

    def __getitem__(self, rows: Tensor) -> "SurfaceMap":
        return SurfaceMap(self.weights[rows], self.offsets[rows], self.plane, self.raised)

    def __len__(self) -> int:
        return len(self.weights)

    def over(self, keypoints: Tensor) -> "SurfaceMap":
        """The same map of the keypoints with the given labels (K',) alone; the others must have no weight."""
        return SurfaceMap(self.weights[:, keypoints], self.offsets, self.plane[:, keypoints], self.raised)

    def among(self, keypoints: Tensor, count: int) -> "SurfaceMap":
        """The same map over ``count`` keypoints of which those of this map have the labels ``keypoints`` (K,)."""
        weights, plane = self.weights.new_zeros(len(self), count), self.plane.new_zeros(2, count)
        weights[:, keypoints], plane[:, keypoints] = self.weights, self.plane
        return SurfaceMap(weights, self.offsets, plane)

    def with_keypoints(self) -> "SurfaceMap":
        """The map of P + K points: the surface, then the keypoints themselves."""
        identity = torch.eye(self.weights.shape[1]).to(self.weights)
        return SurfaceMap(torch.cat([self.weights, identity]), torch.cat([self.offsets, torch.zeros_like(identity[0])]), self.plane)

    def derivative(self, keypoints: Tensor, directions: Tensor) -> Tensor:
        """(M, P, 3) derivative of the points of ``keypoints`` (K, 3) along ``directions`` (M, K, 3)."""
        moved = self.weights @ directions
        if not self.raised:
            return moved
        # Not by torch.func, which imports 800 modules (70 MiB).
        tilt = torch.autograd.functional.jacobian(lambda shape: normal(self.plane, shape), keypoints)  # (3, K, 3)
        return moved + self.offsets[:, None] * torch.einsum("nkc,mkc->mn", tilt, directions)[:, None]


def normal(plane: Tensor, keypoints: Tensor) -> Tensor:
    """n(X) (..., 3): normal of the plane of keypoints (..., K, 3); its length is their scale (1 at the shape that ``plane`` was made of).

    0 where ``plane`` is 0. The cross product of the two directions over the root of their lengths: it turns, moves and grows with X.
    """
    first, second = (plane @ keypoints).unbind(-2)
    lengths = first.square().sum(-1) * second.square().sum(-1)
    return torch.linalg.cross(first, second) / lengths.clamp(min=SMALLEST).pow(0.25)[..., None]


def is_flat(shape: Tensor, images: int = ENOUGH) -> bool:
    """Whether keypoints (K, 3) are coplanar up to ``FLAT`` diameters; few images cannot tell so exactly, so that the limit rises."""
    values = torch.linalg.svdvals(shape - shape.mean(0))
    limit = FLAT * (ENOUGH / min(max(images, FEW), ENOUGH)) ** 0.5
    return bool(values[2] / len(shape) ** 0.5 < limit * torch.cdist(shape, shape).max())


def best_plane(shape: Tensor) -> Tensor:
    """``plane`` (2, K) of the best plane through keypoints (K, 3): ``plane @ shape`` are its two principal axes, of length 1."""
    left, values, _ = torch.linalg.svd(shape - shape.mean(0), full_matrices=False)
    return left.T[:2] / values[:2, None].clamp(min=SMALLEST)  # rows of the pseudo-inverse


def plane_of_some(plane: Tensor, shape: Tensor, chosen: Tensor) -> Tensor:
    """(2, V): the directions of ``plane`` by the keypoints ``chosen`` (K,) bool of ``shape`` (K, 3) alone."""
    centred = shape[chosen] - shape[chosen].mean(0)
    return (plane @ shape) @ torch.linalg.pinv(centred, rtol=FLAT)


def half_width(plane: Tensor, shape: Tensor) -> float:
    """Half of the lesser of the two extents of a flat shape (K, 3): how far its surface may rise over the plane; 0 without a plane."""
    along = shape @ (plane @ shape).T  # coordinates in the plane, whose axes have length 1 at the mean shape
    return float((along.amax(0) - along.amin(0)).min() / 2)


def surface_map(points: Tensor, keypoints: Tensor, plane: Tensor) -> SurfaceMap:
    """The :class:`SurfaceMap` with ``surface @ keypoints = points``.

    points: (P, 3); keypoints: (K, 3); plane: that of the category's mean shape (see :func:`best_plane`), of which ``keypoints`` may be
    a deformation, or zeros. With a plane the weights express the point's foot in the plane, the offset is what remains.
    """
    axis = normal(plane, keypoints)
    length2 = axis.square().sum().clamp(min=SMALLEST)
    centre = keypoints.mean(0)
    offsets = (points - centre) @ axis / length2
    # Keypoints are taken into their plane too: weights must not come from how they happen to scatter about it.
    height = (keypoints - centre) @ axis / length2
    weights = affine_weights(points - offsets[:, None] * axis, keypoints - height[:, None] * axis)
    return SurfaceMap(weights, offsets - weights @ height, plane)


def affine_weights(points: Tensor, keypoints: Tensor) -> Tensor:
    """W (P, K): rows sum to 1, ``W keypoints = points``, least norm with near keypoints favoured (method, section 1.6).

    points: (P, 3); keypoints: (K, 3), any batch in front (..., K, 3) with (..., P, 3). Flat keypoints cannot express what
    lies off their plane: the nearest point in their plane is expressed instead.
    """
    scale2 = torch.cdist(keypoints, keypoints).amax((-2, -1))[..., None, None] ** 2
    distance2 = torch.cdist(points, keypoints) ** 2 / scale2
    share = 1 / (distance2 + SMOOTHING) ** LOCALITY  # D of the weighted least norm: small where a keypoint is far
    ones = torch.ones_like(keypoints[..., :1])
    augmented = torch.cat([keypoints - keypoints.mean(-2, keepdim=True), ones * scale2.sqrt()], dim=-1)
    target = torch.cat([points - keypoints.mean(-2, keepdim=True), torch.ones_like(points[..., :1]) * scale2.sqrt()], dim=-1)
    gram = torch.einsum("...pk,...ka,...kb->...pab", share, augmented, augmented)
    solution = torch.linalg.pinv(gram, rtol=RANK, hermitian=True) @ target[..., None]
    weights = share * torch.einsum("...pa,...ka->...pk", solution[..., 0], augmented)
    return weights / weights.sum(-1, keepdim=True)
