"""Which of several solutions is the object: energy, order in depth, and the margin to a distant rival."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import EnergyConfig
from semalign3d_core.alignment.gauss_newton.poses import Candidates, project_points
from semalign3d_core.alignment.observation import ImageTensors, Observation
from semalign3d_core.alignment.visibility import BEHIND, TYPICAL_DIAMETER, behind_front
from semalign3d_core.geometry.rotations import rotation_angle
from semalign3d_core.runtime.values import ShortRepr

RIVAL_DEGREES = 40.0  # a rival is a solution further away than this
NO_RIVAL = 0.5  # margin where no rival exists
VIEW_DEGREES = 20.0  # standard deviation of the kernels of a view prior
LEAST_DENSITY = 0.01  # of a view prior, relative to usual views: nothing is impossible
FEWEST_RANKS = 5  # points that a rank correlation needs


@dataclass(frozen=True, repr=False)
class ProjectedSolutions(ShortRepr):
    """B solutions in the image: what energy, choice and confidence all need of them, computed once. J points, the first P the cloud.

    points: (B, J, 3) camera frame; projected: (B, J, 2) normalised; distance: (B, P) from the cloud to the mask in L, exactly 0 inside
    it, None without a mask; behind: (B, J) how far points lie behind the front of the cloud, in the unit of depth; front: (B, P) bool,
    points of the cloud that the cloud itself does not hide
    """

    points: Tensor
    projected: Tensor
    distance: Tensor | None
    behind: Tensor
    front: Tensor

    @classmethod
    def of(cls, category: CategoryTensors, observation: Observation, keypoints: Tensor, focal: Tensor) -> "ProjectedSolutions":
        """Solutions X (B, K, 3) seen with focal lengths (B, 2)."""
        points = category.surface @ keypoints
        projected = project_points(points, focal, observation.principal)
        cloud, depth = projected[:, : category.dense], points[..., 2]
        distance = None if observation.field is None else observation.field.sample(cloud)
        behind = behind_front(cloud, depth[:, : category.dense], projected, depth)
        return cls(points, projected, distance, behind, behind[:, : category.dense] <= BEHIND * TYPICAL_DIAMETER)

    def __getitem__(self, rows: slice) -> "ProjectedSolutions":
        return self._each(lambda values: values[rows])

    def only(self, index: Tensor) -> "ProjectedSolutions":
        """The solution (B = 1) with the given index, a () tensor, which is not read."""
        return self._each(lambda values: values.index_select(0, index[None]))

    def _each(self, taken: Callable[[Tensor], Tensor]) -> "ProjectedSolutions":
        distance = None if self.distance is None else taken(self.distance)
        return ProjectedSolutions(taken(self.points), taken(self.projected), distance, taken(self.behind), taken(self.front))

    def energy(self, category: CategoryTensors, observation: Observation, weights: EnergyConfig) -> tuple[dict[str, Tensor], Tensor]:
        """The terms {name: (B,)} of Eq. 13 and their weighted sum (B,)."""
        cloud, points = self.projected.split((category.dense, len(category.shape)), 1)
        dense = observation.pixel_log, observation.pixels, cloud
        sparse = observation.keypoint_log, observation.keypoint_cells, points
        keypoints, scale = self.points[:, category.dense :], observation.object_scale
        terms = energy.terms(dense, sparse, keypoints, category.spread_betas, self.distance, scale)
        return terms, energy.total(terms, vars(weights))


@dataclass(frozen=True, repr=False)
class Choice(ShortRepr):
    """The best of B solutions.

    Its index () int64; score (B,), the energy less the bonus for agreeing with the depth map; the depth-order correlation (B,); the
    margin () to its best rival, and the lead () of the best start over its best rival while the solver still had all of its starts:
    later, rivals have moved to the winner or are gone.
    """

    winner: Tensor
    score: Tensor
    depth_order: Tensor
    margin: Tensor
    lead: Tensor


class ViewPrior:
    """How unusual a view is among those of a category's training images: bottles stand, cars drive.

    pose_rotations: (N, 3, 3) object to camera; axis: (3,) undetermined axis, a turn about which changes no view, or None.
    Called with rotations (B, 3, 3): minus the logarithm of their density (B,), 0 for usual views, at most ``-log(LEAST_DENSITY)``.
    With the direction ``up`` (3,) in the camera's frame any view of an upright object is usual, from wherever the camera looks.
    """

    def __init__(self, pose_rotations: Tensor, axis: Tensor | None = None):
        self.axis, self.known = axis, pose_rotations
        self.usual = self._density(pose_rotations).median() if len(pose_rotations) else None
        self.upright = upright_axis(pose_rotations, axis) if len(pose_rotations) else None

    def _density(self, rotations: Tensor) -> Tensor:
        if self.axis is None:
            cosine = (rotations.flatten(1) @ self.known.flatten(1).T - 1) / 2  # of the angles between them
        else:
            cosine = (rotations @ self.axis) @ (self.known @ self.axis).T
        return _kernel(cosine).mean(1)

    def __call__(self, rotations: Tensor, up: Tensor | None = None) -> Tensor:
        """What every rotation (B, 3, 3) costs, (B,); see the class."""
        if self.usual is None or self.upright is None:
            return torch.zeros_like(rotations[:, 0, 0])
        density = self._density(rotations) / self.usual if up is None else _kernel(rotations @ self.upright @ up)
        return -density.clamp(LEAST_DENSITY, 1).log()


def _kernel(cosine: Tensor) -> Tensor:
    return torch.exp((cosine - 1) / math.radians(VIEW_DEGREES) ** 2)


def upright_axis(pose_rotations: Tensor, axis: Tensor | None = None) -> Tensor:
    """(3,) unit vector of the object's frame that points up in pictures: most nearly at right angles to the cameras' sides.

    pose_rotations: (N, 3, 3) object to camera, of cameras held level as most are; axis: (3,) undetermined axis, up or down, or None.
    """
    sides, above = pose_rotations[:, 0], -pose_rotations[:, 1].mean(0)
    upright = torch.linalg.eigh(sides.T @ sides)[1][:, 0] if axis is None else axis
    return torch.where(upright @ above < 0, -upright, upright)


def choose(
    image: ImageTensors,
    candidates: Candidates,
    solutions: ProjectedSolutions,
    energies: Tensor,
    depth_weight: float,
    axis: Tensor | None = None,
    known: tuple[Tensor, Tensor] | None = None,
) -> Choice:
    """The :class:`Choice` among candidates with energies (B,), what their views cost included.

    depth_weight: of the depth-order correlation; axis: (3,) undetermined axis, about which solutions do not count as rivals;
    known: margin and lead (), if known from an earlier frame.
    """
    order = torch.zeros_like(energies) if image.depth is None else depth_order(image, solutions)
    score = energies - depth_weight * order
    if known is None:
        margin = _gap(candidates.rotations, score, axis)
        known = margin, margin if candidates.early is None else _gap(*candidates.early, axis)
    return Choice(score.argmin(), score, order, *known)


def _gap(rotations: Tensor, score: Tensor, axis: Tensor | None) -> Tensor:
    """() by which the best of solutions with rotations (B, 3, 3) and scores (B,) is better than the best one far from it."""
    best = score.argmin()
    far = rotation_distance(rotations, row(rotations, best), axis) > math.radians(RIVAL_DEGREES)
    return (torch.where(far, score, torch.inf).amin() - row(score, best)).clamp(max=NO_RIVAL)


def rotation_distance(rotations: Tensor, reference: Tensor, axis: Tensor | None = None) -> Tensor:
    """Angle in radians between rotations (B, 3, 3) and one (3, 3); with an undetermined axis (3,), the angle between the axes."""
    if axis is None:
        return rotation_angle(rotations, reference)
    return (rotations @ axis * (reference @ axis)).sum(-1).clamp(-1, 1).acos()


def depth_order(image: ImageTensors, solutions: ProjectedSolutions) -> Tensor:
    """Spearman correlation (B,) of 1/z of the front-most cloud points with the inverse depth at their pixels."""
    cloud = solutions.front.shape[1]
    seen = image.inverse_depth(solutions.projected[:, :cloud])
    usable = solutions.front & torch.isfinite(seen)
    if solutions.distance is not None:
        usable &= solutions.distance <= 0
    return masked_spearman(1 / solutions.points[:, :cloud, 2].clamp(min=1e-3), seen.nan_to_num(), usable)


def masked_spearman(first: Tensor, second: Tensor, usable: Tensor) -> Tensor:
    """Rank correlation (B,) of the usable entries of (B, P) arrays; 0 where fewer than 5 are usable."""
    ranks = [_ranks(values, usable) for values in (first, second)]
    count = usable.sum(-1, keepdim=True)
    centred = [torch.where(usable, rank - (count - 1) / 2, torch.zeros_like(rank)) for rank in ranks]
    norm = ((centred[0] ** 2).sum(-1) * (centred[1] ** 2).sum(-1)).sqrt()
    correlation = (centred[0] * centred[1]).sum(-1) / norm.clamp(min=1e-9)
    return torch.where(count[:, 0] >= FEWEST_RANKS, correlation, torch.zeros_like(correlation))


def _ranks(values: Tensor, usable: Tensor) -> Tensor:
    order = torch.where(usable, values, torch.inf).argsort(-1)
    ranks = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device).expand_as(values)
    return torch.zeros_like(values).scatter(-1, order, ranks)


def row(values: Tensor, index: Tensor) -> Tensor:
    """Row ``index``, a () tensor, of values, without reading the index."""
    return values.index_select(0, index[None])[0]
