"""The fast solver: iteratively reweighted Gauss-Newton on rigid pose and deformation modes, batched over starts.

Shapes are fixed and nothing is read back, so a GPU never waits for the host.
"""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.choice import RIVAL_DEGREES
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.alignment.gauss_newton import native
from semalign3d_core.alignment.gauss_newton.poses import FOCAL, MODES, SCALE, Candidates, DeformableCloud, Poses
from semalign3d_core.alignment.gauss_newton.residuals import PRIOR, RobustResiduals
from semalign3d_core.alignment.gauss_newton.viewpoints import ViewpointBank, bank_rotations, best_starts
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.geometry.rotations import turned

STARTS = (16, 6, 3)  # from the bank, after the first and after the second halving
HALVINGS = (4, 8)  # steps before which starts are halved
STEPS, WARM_STEPS = 14, 6
ANNEALED = 0.87  # share of the steps in which sigma falls
WARM_SIGMA = 0.08  # of the first warm step, object scales
WARM_RELAXATION = 1.6  # by which warm steps are lengthened: reweighted least squares falls short, and there are few of them
FOCAL_PRIOR = 0.02  # of (log f - mean)^2 / (2 sd^2)
DAMPING, SMALLEST_DAMPING = 0.02, 1e-3
LARGEST_TURN = 0.5  # radians per step
LARGEST_SHIFT, LARGEST_SCALE, LARGEST_FOCAL = 0.5, 0.4, 0.3  # per step: object scales, and changes of the logarithms
COARSE_STRIDE = 2  # every second sampled pixel is used while there are many starts
NEVER_DROPPED = 1e3  # advantage in energy that keeps the distant rival through a halving


class GaussNewtonSolver:
    """The solver of the ``fast`` preset: viewpoints of a bank, scored, then refined.

    While there are many starts, they see the scoring points and a part of the pixels only.
    """

    needs_gradients = False

    def __init__(self, category: CategoryTensors, pose_rotations: Tensor, config: AlignConfig):
        self.category, self.weights = category, config.energy
        self.bank = ViewpointBank.of(category, bank_rotations(pose_rotations, config.bank))
        self.coarse = DeformableCloud(category, category.scoring[: category.dense_scoring])
        self.fine = DeformableCloud(category, torch.arange(category.dense, device=category.shape.device))
        self.phases = ((0, 1),), tuple(zip((0, *HALVINGS), STARTS, strict=True))
        like = category.shape
        self.stiffness = self._stiffness()
        self.damping = torch.tensor(1 + DAMPING).to(like)
        self.least = SMALLEST_DAMPING + self.damping * torch.cat([self.stiffness.new_zeros(3), self.stiffness])
        self.limits = torch.full_like(self.least, torch.inf)
        self.limits[:3], self.limits[3:5] = LARGEST_TURN, LARGEST_SHIFT
        self.limits[3 + SCALE], self.limits[3 + FOCAL] = LARGEST_SCALE, LARGEST_FOCAL
        first, last = config.gauss_newton.sigma
        self.sigmas, self.warm_sigmas = annealed(first, last, STEPS).to(like), annealed(WARM_SIGMA, last, WARM_STEPS).to(like)

    def _stiffness(self) -> Tensor:
        """(5 + M,) curvature of the priors: of the focal length, and of the deformation (a Gaussian in place of Eq. 10)."""
        variances = self.category.variances
        rigid = variances.new_zeros(MODES)
        rigid[FOCAL] = FOCAL_PRIOR / self.category.log_focal[1] ** 2
        return torch.cat([rigid, 2 * (PRIOR * self.weights.geometry) / variances])

    def solve(self, observation: Observation) -> Candidates:
        """:class:`Candidates` of an image of which nothing is known: sigma from large to small, starts halved twice."""
        (first, second), traces, early = HALVINGS, [], None
        poses, scores = best_starts(self.bank, self.category, observation, STARTS[0])
        began = poses
        for sigmas, kept in ((self.sigmas[:first], STARTS[1]), (self.sigmas[first:second], STARTS[2])):
            poses, energies = self._descend(observation, self.coarse, poses, sigmas, COARSE_STRIDE)
            early = early or (poses.rotation, energies[-1])
            poses = poses[self._survivors(poses, energies[-1], kept)]
            traces.append(energies)
        poses, energies = self._descend(observation, self.fine, poses, self.sigmas[second:])
        candidates = self._candidates(observation, poses, [*traces, energies])
        return replace(candidates, starts=began.keypoints(self.category), start_scores=scores, early=early)

    def refine(self, observation: Observation, poses: Poses) -> Candidates:
        """:class:`Candidates` from warm :class:`Poses`: few long steps, all starts kept."""
        poses, energies = self._descend(observation, self.fine, poses, self.warm_sigmas, relaxation=WARM_RELAXATION)
        return self._candidates(observation, poses, [energies])

    def _candidates(self, observation: Observation, poses: Poses, energies: list[Tensor]) -> Candidates:
        focal, trace = observation.focal * poses.log_focal.exp()[:, None], torch.cat([part.amin(1) for part in energies])
        return Candidates(poses.keypoints(self.category), focal, poses.rotation, trace, poses=poses)

    def _descend(
        self, observation: Observation, cloud: DeformableCloud, poses: Poses, sigmas: Tensor, stride: int = 1, relaxation: float = 1.0
    ) -> tuple[Poses, Tensor]:
        """One step for each of sigmas (S,), in object scales, lengthened by ``relaxation``.

        Returns the poses after them and the energies (S, B) before every step.
        """
        largest = torch.cat([self.limits[:3], self.limits[3:5] * observation.object_scale, self.limits[5:]])
        if native.usable(cloud.mean, cloud.parts[2]):
            priors = self.stiffness, self.least, largest
            return native.descend(observation, cloud, poses, self.weights, sigmas, stride, priors, 1 + DAMPING, relaxation)
        residuals, visited = RobustResiduals(observation, cloud, self.weights, sigmas, stride), []
        for step in range(len(sigmas)):
            visited.append(poses.parameters)
            equations = self.normal_equations(observation, cloud, partial(residuals, step=step), poses)
            change = self._step(*equations).mul_(relaxation).clamp_(-largest, largest)
            turn, shift = change.split((3, poses.parameters.shape[1]), 1)
            poses = Poses(turned(poses.rotation, turn), poses.parameters + shift)
        return poses, residuals.energies() + 0.5 * (torch.stack(visited) ** 2 @ self.stiffness)

    def _survivors(self, poses: Poses, energy: Tensor, kept: int) -> Tensor:
        """Indices (kept,) of the best starts; the best one far from the leader always survives, so that the margin is known."""
        leader = poses.rotation.index_select(0, energy.argmin()[None])
        far = (poses.rotation * leader).sum((-2, -1)) < 1 + 2 * math.cos(math.radians(RIVAL_DEGREES))
        rival = torch.where(far, energy, torch.inf).argmin()[None]
        bonus = torch.zeros_like(energy).scatter(0, rival, far.any().to(energy)[None] * NEVER_DROPPED)
        return (energy - bonus).topk(min(kept, len(energy)), largest=False).indices

    def normal_equations(self, observation: Observation, cloud: DeformableCloud, residuals: partial, poses: Poses) -> tuple[Tensor, Tensor]:
        """Hessian (B, D, D) without priors and descent direction (B, D) at ``poses``; D = 8 + M unknowns.

        residuals: of places (B, 2, J), (B, 3, J), see :class:`RobustResiduals`.
        """
        projection = cloud.project(poses, observation.focal)
        residual, weight = residuals(projection.places).split((2, 1), 1)
        jacobian = cloud.jacobian(projection, observation.focal_known)
        weighted, jacobian = (jacobian * weight[:, None]).flatten(2), jacobian.flatten(2)
        gradient = torch.bmm(jacobian, residual.flatten(1)[..., None]).squeeze(-1)
        gradient[:, 3:].addcmul_(self.stiffness, poses.parameters, value=-1)
        return torch.bmm(weighted, jacobian.transpose(1, 2)), gradient

    def _step(self, hessian: Tensor, gradient: Tensor) -> Tensor:
        """Levenberg-damped step (B, D)."""
        hessian.diagonal(dim1=1, dim2=2).mul_(self.damping).add_(self.least)
        factor, _ = torch.linalg.cholesky_ex(hessian)
        half = torch.linalg.solve_triangular(factor, gradient[..., None], upper=False)
        return torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(-1).nan_to_num_(nan=0.0)


def annealed(first: float, last: float, steps: int) -> Tensor:
    """(steps,) float64: falls geometrically from first to last within the first ``ANNEALED`` share of the steps, then stays."""
    progress = (torch.arange(steps, dtype=torch.float64) / max(ANNEALED * (steps - 1), 1)).clamp(max=1.0)
    return first * (last / first) ** progress
