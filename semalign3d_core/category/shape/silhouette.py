"""Depth of objects whose keypoints are the two sides of their outline, as those of a bottle.

Such keypoints lie in one plane. A picture shows its tilt only by foreshortening, which the proportions of the object hide, and by
a depth map of unknown scale. But the surface between the two sides bulges towards the camera, as a body of revolution does by half
its width: how much the map rises there tells its scale, and with it the tilt. The cross-section is taken as an ellipse.
"""

from dataclasses import dataclass

import torch

from semalign3d_core.category.surface.surface_map import best_plane, normal

STEEPEST = 0.3  # least |cosine| between plane normal and ray; steeper views do not show the bulge


@dataclass(frozen=True)
class Outline:
    """What is read of the depth maps beside the keypoints; all float64 or bool.

    inset: (N, K) distance in the picture (units of L) from the outline to the pixel where the depth of each keypoint is read;
    middle: (N, K) relative inverse depth half-way to the mirror partner, 0 where unknown; measured: (N, K) bool, where known
    """

    inset: torch.Tensor
    middle: torch.Tensor
    measured: torch.Tensor

    def only(self, keypoints):
        """The readings of the keypoints (K',) bool alone."""
        return Outline(self.inset[:, keypoints], self.middle[:, keypoints], self.measured[:, keypoints])


def outline_readings(model, camera, data):
    """Heights of the surface over the keypoints' plane where depth maps are read, as a change of z, and its derivative.

    model: :class:`FactorModel` with ``thickness``, the depth of the cross-section relative to its width; camera: (N, K, 3).
    Returns (N, 2 K) for the keypoints, then for the middles, and (N, 2 K, 3) by the rotation vector.
    """
    half = (model.completed - model.completed[:, data.flip]).norm(dim=-1) / 2
    in_picture = data.focal[:, None] * half / camera[..., 2]
    across = (1 - data.outline.inset / in_picture.clamp(min=1e-6)).clamp(0, 1)
    height = model.thickness * half * (1 - across * across).sqrt()
    height = torch.cat([height, model.thickness * half], dim=1)
    middle = (camera + camera[:, data.flip]) / 2
    ray = torch.cat([camera / camera[..., 2:], middle / middle[..., 2:]], dim=1)
    axis = torch.nn.functional.normalize(normal(best_plane(model.shape), model.completed), dim=-1)
    axis = (model.rotation @ axis[..., None])[..., 0][:, None].expand_as(ray)
    cosine = (axis * ray).sum(-1)
    steep = cosine.abs().clamp(min=STEEPEST)
    turning = torch.linalg.cross(axis, ray) * (cosine.sign() * (cosine.abs() > STEEPEST) * height / steep**2)[..., None]
    return -height / steep, turning


def inner_pairs(shape, flip):
    """(K,) bool: the first keypoint of every mirrored pair between the ends of a flat shape (K, 3) in its mirror frame.

    Half-way between the two sides of an end the camera may see a lid or the ground.
    """
    plane = best_plane(shape) @ shape
    along = shape @ plane[plane[:, 0].abs().argmin()]  # the direction in the plane that the mirror leaves as it is
    span = along.max() - along.min()
    inner = (along > along.min() + 0.02 * span) & (along < along.max() - 0.02 * span)
    return inner & (torch.arange(len(flip)) < flip)
