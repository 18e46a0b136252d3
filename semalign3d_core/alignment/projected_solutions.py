"""Solutions in the picture: what energy, checks and confidence all ask of them, computed once."""

from dataclasses import dataclass

import torch

from semalign3d_core.alignment.gauss_newton.poses import project_points
from semalign3d_core.alignment.visibility import front_most


@dataclass(frozen=True)
class Placed:
    """B solutions of one image, or one of them without the first dimension (J points, the first P of them the cloud).

    points: (B, J, 3) camera frame; projected: (B, J, 2) normalised; distance: (B, P) from the cloud to the mask in L, exactly 0 inside it,
    None without a mask; front: (B, P) bool, points of the cloud that the cloud itself does not hide
    """

    points: torch.Tensor
    projected: torch.Tensor
    distance: torch.Tensor | None
    front: torch.Tensor

    @classmethod
    def of(cls, category, observation, keypoints, focal):
        """Solutions X (B, K, 3) seen with focal lengths (B, 2)."""
        points = category.lift @ keypoints
        projected = project_points(points, focal, observation.principal)
        cloud = projected[:, : category.dense]
        distance = None if observation.field is None else observation.field.sample(cloud)
        return cls(points, projected, distance, front_most(cloud, points[:, : category.dense, 2]))

    def only(self, index):
        """The solution with the given index, a () tensor, which is not read."""
        return Placed(*(None if value is None else picked(value, index) for value in vars(self).values()))


def picked(values, index):
    """Row ``index`` (a tensor) of values, without reading the index."""
    return values.index_select(0, index[None])[0]
