"""The fast solver: iteratively reweighted Gauss-Newton on rigid pose and deformation modes, batched over starts.

Shapes are fixed and nothing is read back, so a GPU never waits for the host and all steps can be captured in one graph.
"""

import math
from dataclasses import replace

import torch

from semalign3d_core.alignment.gauss_newton.jacobian import DeformableCloud
from semalign3d_core.alignment.gauss_newton.poses import FOCAL, MODES, SCALE, Candidates, Poses
from semalign3d_core.alignment.gauss_newton.residuals import Pulls
from semalign3d_core.alignment.gauss_newton.viewpoints import bank_rotations, best_starts, make_bank
from semalign3d_core.alignment.schedule import geometric
from semalign3d_core.geometry.rotations import turned

SMALLEST_DAMPING = 1e-3
LARGEST_SHIFT, LARGEST_SCALE, LARGEST_FOCAL = 0.5, 0.4, 0.3  # per step: units, and changes of the logarithms
COARSE_STRIDE = 2  # every which pixel is used while there are many starts
NEVER_DROPPED = 1e3  # advantage in energy that carries the distant rival through a halving


class GaussNewtonSolver:
    """The solver of the ``fast`` preset: viewpoints of a bank, scored, then refined; ``config`` is an :class:`AlignConfig`.

    While there are many starts, they see the scoring points and a part of the pixels only.
    """

    capturable = True

    def __init__(self, category, pose_rotations, config):
        self.category, self.config, self.bank_config = category, config.gauss_newton, config.bank
        self.bank = make_bank(category, bank_rotations(pose_rotations, config.bank))
        self.coarse = DeformableCloud(category, category.scoring[: category.dense_scoring])
        self.fine = DeformableCloud(category, torch.arange(category.dense, device=category.shape.device))
        self.phases = ((0, 1),), tuple(zip((0, *self.config.halvings), self.config.starts, strict=True))
        self.rival_trace = 1 + 2 * math.cos(math.radians(config.selection.rival_degrees))
        options, like = self.config, category.shape
        self.stiffness = self._stiffness()
        self.damping = torch.tensor(1 + options.damping).to(like)
        self.least = SMALLEST_DAMPING + self.damping * torch.cat([self.stiffness.new_zeros(3), self.stiffness])
        self.limits = torch.full_like(self.least, torch.inf)
        self.limits[:3], self.limits[3:5] = options.largest_rotation, LARGEST_SHIFT
        self.limits[3 + SCALE], self.limits[3 + FOCAL] = LARGEST_SCALE, LARGEST_FOCAL
        cold = [geometric(n, options.steps, *options.sigma, options.annealed) for n in range(options.steps)]
        warm = [geometric(n, options.warm_steps, options.warm_sigma, options.sigma[1], options.annealed) for n in range(options.warm_steps)]
        self.sigmas, self.warm_sigmas = torch.tensor(cold).to(like), torch.tensor(warm).to(like)

    def _stiffness(self):
        """(5 + M,) curvature of the priors: of the focal length, and of the deformation (a Gaussian in place of Eq. 10)."""
        config, variances = self.config, self.category.variances
        rigid = variances.new_zeros(MODES)
        rigid[FOCAL] = config.focal_prior / self.category.log_focal[1] ** 2
        return torch.cat([rigid, 2 * config.prior / variances])

    def solve(self, observation):
        """:class:`Candidates` of an image of which nothing is known: sigma from large to small, starts halved twice."""
        (first, second), starts = self.config.halvings, self.config.starts
        poses, scores = best_starts(self.bank, self.category, observation, starts[0], self.bank_config)
        began, traces, early = poses, [], None
        for sigmas, kept in ((self.sigmas[:first], starts[1]), (self.sigmas[first:second], starts[2])):
            poses, energies = self._descend(observation, self.coarse, poses, sigmas, COARSE_STRIDE)
            early = early or (poses.rotation, energies[-1])
            poses = poses[self._survivors(poses, energies[-1], kept)]
            traces.append(energies)
        poses, energies = self._descend(observation, self.fine, poses, self.sigmas[second:])
        candidates = self._candidates(observation, poses, [*traces, energies])
        return replace(candidates, starts=began.keypoints(self.category), start_scores=scores, early=early)

    def refine(self, observation, starts):
        """:class:`Candidates` from warm :class:`Poses`: few long steps, all starts kept."""
        poses, energies = self._descend(observation, self.fine, starts, self.warm_sigmas, relaxation=self.config.warm_relaxation)
        return self._candidates(observation, poses, [energies])

    def _candidates(self, observation, poses, energies):
        focal, trace = observation.focal * poses.log_focal.exp()[:, None], torch.cat([part.amin(1) for part in energies])
        return Candidates(poses.keypoints(self.category), focal, poses.rotation, trace, poses=poses)

    def _descend(self, observation, cloud, poses, sigmas, stride=1, relaxation=1.0):
        """Poses after one step, lengthened by ``relaxation``, for each of sigmas (S,), in units, and the energies (S, B) before every
        step."""
        pulls, rests = Pulls(observation, cloud, self.config, sigmas, stride), []
        limits = torch.cat([self.limits[:3], self.limits[3:5] * observation.unit, self.limits[5:]])
        limits = (-limits, limits)
        for step in range(len(sigmas)):
            rests.append(poses.rest)
            change = self._step(*self.normal_equations(observation, cloud, pulls, poses, step)).mul_(relaxation)
            poses = self._moved(poses, change, limits)
        return poses, pulls.energies() + 0.5 * (torch.stack(rests) ** 2 @ self.stiffness)

    def _survivors(self, poses, energy, kept):
        """Indices (kept,) of the best starts; the best one far from the leader always survives, so that the margin is known."""
        leader = poses.rotation.index_select(0, energy.argmin()[None])
        far = (poses.rotation * leader).sum((-2, -1)) < self.rival_trace
        rival = torch.where(far, energy, torch.inf).argmin()[None]
        bonus = torch.zeros_like(energy).scatter(0, rival, far.any().to(energy)[None] * NEVER_DROPPED)
        return (energy - bonus).topk(min(kept, len(energy)), largest=False).indices

    def normal_equations(self, observation, cloud, pulls, poses, step):
        """Hessian (B, D, D) without priors and descent direction (B, D) at ``poses``; D = 8 + M unknowns."""
        projection = cloud.project(poses, observation.focal)
        pull, weight = pulls(projection.places, step).split((2, 1), 1)
        jacobian = cloud.jacobian(projection, observation.focal_known)
        weighted, jacobian = (jacobian * weight[:, None]).flatten(2), jacobian.flatten(2)
        gradient = torch.bmm(jacobian, pull.flatten(1)[..., None]).squeeze(-1)
        gradient[:, 3:].addcmul_(self.stiffness, poses.rest, value=-1)
        return torch.bmm(weighted, jacobian.transpose(1, 2)), gradient

    def _step(self, hessian, gradient):
        """Levenberg-damped step (B, D)."""
        hessian.diagonal(dim1=1, dim2=2).mul_(self.damping).add_(self.least)
        factor, _ = torch.linalg.cholesky_ex(hessian)
        half = torch.linalg.solve_triangular(factor, gradient[..., None], upper=False)
        return torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(-1).nan_to_num_(nan=0.0)

    def _moved(self, poses, step, limits):
        """Poses after a step, of which every component is bounded; limits: least and largest, (D,) each."""
        turn, change = step.clamp_(*limits).split((3, poses.rest.shape[1]), 1)
        return Poses(turned(poses.rotation, turn), poses.rest + change)
