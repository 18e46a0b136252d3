"""How well an alignment is determined: covariances from the curvature of the energy at the solution.

The normal equations of the fast solver at the solution are those of weighted least squares, so their inverse, times the variance of the
residuals, is the covariance of the unknowns (Gauss 1823). Neighbouring pixels are not independent, and another viewpoint that explains the
picture is no part of it: what is reported is how sharp the minimum is, and the confidence of an alignment says whether it is the right one.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.gauss_newton.poses import FOCAL, Poses
from semalign3d_core.alignment.gauss_newton.residuals import RobustResiduals
from semalign3d_core.alignment.gauss_newton.solver import GaussNewtonSolver
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.geometry.rotations import turned
from semalign3d_core.perception.evidence import ImageEvidence

STEP = 1e-3  # of the unknowns, for derivatives of the keypoints
DEPTH_OF_ORIGIN = 3 + 2  # the unknown that stays 1
SENSOR = 0.01  # relative standard deviation of a scale that a depth image gives
TURN = math.pi**2 / 3  # variance of an angle of which nothing is known

UNKNOWN = 1e6  # variance of what nothing tells, in the units of the unknowns


@dataclass(frozen=True)
class Uncertainty:
    """Covariances of an alignment; NaN for keypoints that its category never shows.

    pose:      (6, 6) of x, y, z and turns about the fixed axes of the camera frame, as in geometry_msgs/PoseWithCovariance, in the
               unit of the positions and radians
    positions: (K, 3, 3) in that unit squared;  pixels: (K, 2, 2) in square pixels
    """

    pose: Tensor
    positions: Tensor
    pixels: Tensor


@torch.no_grad()
def uncertainty_of(aligner: Aligner, evidence: ImageEvidence, alignment: Alignment) -> Uncertainty | None:
    """The :class:`Uncertainty` of what ``aligner`` found in ``evidence``; None for a solver without normal equations."""
    solver, state = aligner.solver, alignment.tracking
    if not isinstance(solver, GaussNewtonSolver) or state is None:
        return None
    focal = alignment.camera.focal.to(aligner.category.shape)
    observation = aligner.observe(aligner.prepare(evidence), search=False)
    log_focal = (focal / observation.focal).log().mean()[None]
    poses = Poses(state.rotation[None], torch.cat([state.parameters[:FOCAL], log_focal, state.parameters[FOCAL + 1 :]])[None])
    used = [index for index in range(3 + poses.parameters.shape[1]) if index != DEPTH_OF_ORIGIN]
    if observation.focal_known:
        used.remove(3 + FOCAL)
    covariance = _of_unknowns(solver, observation, poses, used)
    turn, shift = _steps(covariance.shape[0], used, poses)
    moved = Poses(turned(poses.rotation.expand(len(turn), -1, -1), turn), poses.parameters + shift)
    unit = float(alignment.translation[2])  # of a frame in which the origin's depth is 1
    factor = _factors(alignment, evidence, moved, poses) * unit
    points = moved.keypoints(aligner.category) * factor[:, None, None]
    origins = moved.translation * factor[:, None]
    zoom = (observation.focal * moved.log_focal.exp()[:, None])[:, None]
    pixels = (points[..., :2] / points[..., 2:] * zoom + observation.principal) * alignment.camera.longer_side
    count = len(used)

    def spread(values: Tensor) -> Tensor:
        """(..., n, n) covariance of values (2 D, ..., n) at the steps up and down."""
        slope = (values[:count] - values[count:]) / (2 * STEP)
        return torch.einsum("i...a,ij,j...b->...ab", slope, covariance, slope)

    six = torch.cat([origins, turn], 1)
    return Uncertainty(_with_axis(spread(six), alignment), _of_all(aligner, spread(points)), _of_all(aligner, spread(pixels)))


def _of_unknowns(solver: GaussNewtonSolver, observation: Observation, poses: Poses, used: Tensor) -> Tensor:
    """(D, D) covariance of the used unknowns."""
    residuals = RobustResiduals(observation, solver.fine, solver.weights, solver.sigmas[-1:])
    kept = []

    def once(places: Tensor) -> Tensor:
        kept.append(residuals(places, step=0))
        return kept[-1]

    hessian, _ = solver.normal_equations(observation, solver.fine, partial(once), poses)
    moment, weight = kept[0][0].split((2, 1), 0)
    total, squares = weight.sum(), weight.square().sum().clamp(min=1e-30)
    independent = total.square() / squares
    mean_square = (moment.square().sum(0) / weight[0].clamp(min=1e-12)).sum() / total
    variance = mean_square * independent / (2 * independent - len(used)).clamp(min=1)
    prior = torch.cat([hessian.new_zeros(3), solver.stiffness])
    matrix = (hessian[0] + torch.diag(prior)) * independent / total
    matrix = matrix[used][:, used].double()
    if not torch.isfinite(matrix * variance).all():  # nothing is known, as with absurd cameras
        return UNKNOWN * torch.eye(len(matrix)).to(hessian)
    return (torch.linalg.pinv(matrix, hermitian=True) * variance).to(hessian)


def _steps(count: int, used: Tensor, poses: Poses) -> tuple[Tensor, ...]:
    """Small steps of every used unknown up, then down: turns (2 D, 3) and changes of the parameters (2 D, 5 + M)."""
    steps = poses.parameters.new_zeros(count, 3 + poses.parameters.shape[1])
    steps[torch.arange(count), used] = STEP
    return torch.cat([steps, -steps]).split((3, poses.parameters.shape[1]), 1)


def _factors(alignment: Alignment, evidence: ImageEvidence, moved: Poses, poses: Poses) -> Tensor:
    """(2 D,) by how much the unit changes: a known size fixes what scale leaves open, a depth image fixes the distance."""
    metric_depth = evidence.depth is not None and evidence.depth.kind == "metric"
    if alignment.scale_kind != "metric" or metric_depth:
        return torch.ones_like(moved.log_scale)
    return (poses.log_scale - moved.log_scale).exp()


def _with_axis(pose: Tensor, alignment: Alignment) -> Tensor:
    """Adds what the solver does not see: the turn about an axis that the category leaves open, and the depth sensor's own scale."""
    pose = pose.clone()
    if alignment.scale_kind == "metric":
        translation = alignment.translation.to(pose)
        pose[:3, :3] += SENSOR**2 * translation[:, None] * translation
    if alignment.undetermined_axis is not None:
        axis = (alignment.rotation @ alignment.undetermined_axis).to(pose)
        pose[3:, 3:] += TURN * axis[:, None] * axis
    return pose.cpu()


def _of_all(aligner: Aligner, values: Tensor) -> Tensor:
    full = torch.full((len(aligner.model.present), *values.shape[1:]), torch.nan, dtype=values.dtype)
    full[aligner.category.keypoints.cpu()] = values.cpu()
    return full
