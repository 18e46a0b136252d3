"""The fast solver: iteratively reweighted Gauss-Newton on rigid pose and deformation modes, batched over starts.

With ``e_u = p_sem p_spat`` of the maximising point, the dense term ``-mean e_u`` is a Welsch-robust least-squares problem: weight
``e_u / sigma^2``, residual ``u - pi(y_j(u))``. The sparse term is the same for keypoints and their best cells; the
background pulls points outside the mask to it. Shapes are fixed and nothing is read back, so a GPU never waits for the host.
"""

import math
from dataclasses import replace

import torch

from semalign3d_core.alignment.bank import bank_rotations, best_starts, make_bank
from semalign3d_core.alignment.energy import best_cells, best_points, selected_likelihood
from semalign3d_core.alignment.poses import NEAREST, Candidates, Poses
from semalign3d_core.alignment.schedule import geometric
from semalign3d_core.geometry import rotation_from_vector

ROTATION, SHIFT, SCALE, FOCAL, MODES = slice(0, 3), slice(3, 5), 5, 6, 7  # layout of the unknowns
BACKGROUND_KNEE = 0.1  # units; beyond it a point outside the mask is pulled less and less
SMALLEST_DAMPING = 1e-3


class GaussNewtonSolver:
    """The solver of the ``fast`` preset: viewpoints of a bank, scored, then refined; ``config`` is an :class:`AlignConfig`."""

    def __init__(self, category, pose_rotations, config):
        self.category, self.config, self.bank_config = category, config.gauss_newton, config.bank
        self.bank = make_bank(category, bank_rotations(pose_rotations, config.bank), config.bank)
        modes = category.point_modes  # (3, J, M)
        self.mode_columns = modes.flatten(0, 1).T.contiguous()
        self.mode_rows = modes.transpose(1, 2).flatten(1).contiguous()
        self.rival_trace = 1 + 2 * math.cos(math.radians(config.selection.rival_degrees))

    def solve(self, observation):
        """:class:`Candidates` of an image of which nothing is known: sigma from large to small, starts halved twice."""
        starts, scores = best_starts(self.bank, self.category, observation, self.config.starts[0], self.bank_config)
        plan = [
            (self._sigma(observation, step, self.config.steps, self.config.sigma[0]), self._kept(step))
            for step in range(self.config.steps)
        ]
        candidates = self._descend(observation, starts, plan)
        return replace(candidates, starts=starts.keypoints(self.category), start_scores=scores)

    def refine(self, observation, starts):
        """:class:`Candidates` from warm :class:`Poses`: few steps, all starts kept."""
        steps = self.config.warm_steps
        plan = [(self._sigma(observation, step, steps, self.config.warm_sigma), None) for step in range(steps)]
        return self._descend(observation, starts, plan)

    def _sigma(self, observation, step, steps, first):
        return observation.unit * geometric(step, steps, first, self.config.sigma[1], self.config.annealed)

    def _kept(self, step):
        return self.config.starts[1 + self.config.halvings.index(step)] if step in self.config.halvings else None

    def _descend(self, observation, poses, plan):
        trace, energy = [], None
        for sigma, kept in plan:
            if kept is not None and kept < len(energy):
                poses = poses[self._survivors(poses, energy, kept)]
            hessian, gradient, energy = self._normal_equations(observation, poses, sigma)
            poses = self._retract(poses, self._step(hessian, gradient), observation.unit)
            trace.append(energy.amin())
        focal = observation.focal * poses.log_focal.exp()[:, None]
        return Candidates(poses.keypoints(self.category), focal, torch.stack(trace))

    def _survivors(self, poses, energy, kept):
        """Indices (kept,) of the best starts; the best one far from the leader always survives, so that the margin is known."""
        leader = poses.rotation[energy.argmin()]
        far = (poses.rotation * leader).sum((-2, -1)) < self.rival_trace
        rival = torch.where(far, energy, torch.inf).argmin()
        bonus = torch.zeros_like(energy).scatter(0, rival[None], far.any().to(energy)[None] * 1e3)
        return (energy - bonus).topk(kept, largest=False).indices

    def _normal_equations(self, observation, poses, sigma):
        """Hessian (B, D, D), descent direction (B, D) and energy (B,) at ``poses``."""
        turned, position, projected, focal = self._place(observation, poses)
        weight, pull, energy = self._pulls(observation, projected, sigma)
        jacobian = self._jacobian(poses, turned, position, projected, focal, observation)
        rows = (jacobian * weight.sqrt()[:, None, None]).flatten(0, 1)
        hessian = (rows @ rows.transpose(1, 2)).unflatten(0, (-1, 2)).sum(1)
        gradient = (jacobian.flatten(0, 1) @ pull.transpose(1, 2).reshape(len(rows), -1, 1)).unflatten(0, (-1, 2)).sum(1)[..., 0]
        return self._add_priors(poses, hessian, gradient, energy)

    def _place(self, observation, poses):
        """Points turned and scaled (B, 3, J), in the camera frame (B, 3, J), projected (B, J, 2), and focal lengths (B, 2)."""
        category = self.category
        shape = category.points.T + (poses.coefficients @ self.mode_columns).reshape(len(poses.shift), 3, -1)
        turned = (poses.log_scale.exp()[:, None, None] * poses.rotation) @ shape
        depth = (turned[:, 2:] + 1).clamp(min=NEAREST)
        position = torch.cat([turned[:, :2] + poses.shift[..., None], depth], 1)
        focal = observation.focal * poses.log_focal.exp()[:, None]
        projected = focal[..., None] * position[:, :2] / depth + observation.principal[:, None]
        return turned, position, projected.transpose(1, 2).contiguous(), focal

    def _pulls(self, observation, projected, sigma):
        """Weight (B, J) and weighted residual (B, J, 2) of every point by all terms, and their energy (B,)."""
        config, dense, batch = self.config, self.category.dense, len(projected)
        cloud, keypoints = projected[:, :dense], projected[:, dense:]
        weight, pull = torch.zeros_like(projected[..., 0]), torch.zeros_like(projected)

        spread = torch.full_like(projected[:, 0, 0], sigma)
        index = best_points(observation.pixel_log, observation.pixels, cloud, spread)  # Eq. 7, 8
        residual = observation.pixels - cloud.gather(1, index[..., None].expand(-1, -1, 2))
        log_chosen = observation.pixel_log.expand(batch, -1, -1).gather(2, index[..., None])[..., 0]
        likelihood = selected_likelihood(log_chosen, (residual**2).sum(-1), spread)
        energy = -config.dense * likelihood.mean(-1)
        strength = config.dense * likelihood / (sigma * sigma * likelihood.shape[1])
        weight.scatter_add_(1, index, strength)
        pull.scatter_add_(1, index[..., None].expand(-1, -1, 2), strength[..., None] * residual)

        sharp = max(sigma, config.keypoint_sigma * observation.unit)
        spread = torch.full_like(spread, sharp)
        index = best_cells(observation.keypoint_log, observation.keypoint_cells, keypoints, spread)[..., None]  # Eq. 9
        target = observation.keypoint_cells.expand(batch, -1, -1, -1).gather(2, index[..., None].expand(-1, -1, -1, 2))[:, :, 0]
        residual = target - keypoints
        log_chosen = observation.keypoint_log.expand(batch, -1, -1).gather(2, index)[..., 0]
        likelihood = selected_likelihood(log_chosen, (residual**2).sum(-1), spread)
        energy = energy - config.sparse * likelihood.mean(-1)
        strength = config.sparse * likelihood / (sharp * sharp * likelihood.shape[1])
        weight[:, dense:] = strength
        pull[:, dense:] = strength[..., None] * residual
        if observation.field is None:
            return weight, pull, energy
        return self._add_background(observation, cloud, weight, pull, energy)

    def _add_background(self, observation, cloud, weight, pull, energy):
        """Adds Eq. 11 in its robust form ``log(1 + (d / knee)^2)``."""
        config, dense = self.config, self.category.dense
        residual = observation.field.nearest_offset(cloud)
        relative2 = (residual**2).sum(-1) / (BACKGROUND_KNEE * observation.unit) ** 2
        strength = config.background / ((config.background_scale * observation.unit) ** 2 * dense) / (1 + relative2) * (relative2 > 0)
        weight[:, :dense] += strength
        pull[:, :dense] += strength[..., None] * residual
        scale = 0.5 * config.background * (BACKGROUND_KNEE / config.background_scale) ** 2
        return weight, pull, energy + scale * torch.log1p(relative2).mean(-1)

    def _jacobian(self, poses, turned, position, projected, focal, observation):
        """Derivative (B, 2, D, J) of the projections by rotation vector, shift, log scale, log focal and mode coefficients."""
        batch, _, points = turned.shape
        columns = turned.new_zeros(batch, 3, MODES + poses.coefficients.shape[1], points)
        x, y, z = turned.unbind(1)
        columns[:, 1, 0], columns[:, 2, 0] = -z, y
        columns[:, 0, 1], columns[:, 2, 1] = z, -x
        columns[:, 0, 2], columns[:, 1, 2] = -y, x
        columns[:, 0, 3] = 1
        columns[:, 1, 4] = 1
        columns[:, :, SCALE] = turned
        scaled = poses.log_scale.exp()[:, None, None] * poses.rotation
        columns[:, :, MODES:] = (scaled @ self.mode_rows).reshape(batch, 3, columns.shape[2] - MODES, points)
        slope = (focal[..., None] / position[:, 2:])[:, :, None]
        ray = (position[:, :2] / position[:, 2:])[:, :, None]
        jacobian = slope * torch.addcmul(columns[:, :2], ray, columns[:, 2:], value=-1)
        if not observation.focal_known:
            jacobian[:, :, FOCAL] = projected.transpose(1, 2) - observation.principal[:, None]
        return jacobian

    def _add_priors(self, poses, hessian, gradient, energy):
        """Adds the priors of deformation (a Gaussian in place of Eq. 10) and of the focal length."""
        config, variances = self.config, self.category.variances
        stiffness = torch.cat([hessian.new_zeros(MODES), 2 * config.prior / variances])
        stiffness[FOCAL] = config.focal_prior / self.category.log_focal[1] ** 2
        values = torch.cat([torch.zeros_like(gradient[:, :MODES]), poses.coefficients], -1)
        values[:, FOCAL] = poses.log_focal
        gradient = gradient - stiffness * values
        energy = energy + 0.5 * (stiffness * values * values).sum(-1)
        return hessian + torch.diag(stiffness), gradient, energy

    def _step(self, hessian, gradient):
        """Levenberg-damped step (B, D)."""
        damping = self.config.damping * hessian.diagonal(dim1=1, dim2=2) + SMALLEST_DAMPING
        factor, _ = torch.linalg.cholesky_ex(hessian + torch.diag_embed(damping))
        return torch.cholesky_solve(gradient[..., None], factor)[..., 0].nan_to_num(nan=0.0)

    def _retract(self, poses, step, unit):
        """Poses after a step whose rotation, shift and scale are bounded."""
        turn = step[:, ROTATION]
        turn = turn * (self.config.largest_rotation / turn.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
        return Poses(
            rotation_from_vector(turn) @ poses.rotation,
            poses.shift + step[:, SHIFT].clamp(-0.5 * unit, 0.5 * unit),
            poses.log_scale + step[:, SCALE].clamp(-0.4, 0.4),
            poses.log_focal + step[:, FOCAL].clamp(-0.3, 0.3),
            poses.coefficients + step[:, MODES:],
        )
