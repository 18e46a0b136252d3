"""The published optimiser (paper Table 5): AdamW on free keypoints and focal length, many random starts as one batch."""

from dataclasses import replace

import torch

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.category_tensors import chosen_rows
from semalign3d_core.alignment.gauss_newton.poses import Candidates, poses_in_boxes, project_points
from semalign3d_core.alignment.schedule import piecewise_linear
from semalign3d_core.geometry.rotations import rotation_from_quaternion, similarity_alignment


class AdamWSolver:
    """The solver of the ``reference`` preset; ``config`` is an :class:`AlignConfig`.

    Its schedules are the published ones. Gradients flow through the exact argmax of each maximum only (nothing else has a gradient), and
    Eq. 10 is evaluated on random rows of its tables.
    """

    capturable = False

    def __init__(self, category, pose_rotations, config):
        self.category, self.config, self.cap = category, config.reference, config.observation.cap
        self.phases = ((0, 1),), ((0, len(config.reference.focals) * config.reference.rotations),)
        self.schedules = config.reference.bottle if category.name == "bottle" else config.reference.schedules

    def solve(self, observation):
        """:class:`Candidates` from several focal lengths x random rotations, each placed in the mask's box."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed)
        count = len(config.focals) * config.rotations
        rotations = rotation_from_quaternion(torch.randn(count, 4, generator=generator)).to(self.category.shape)
        focals = torch.tensor(config.focals).repeat_interleave(config.rotations).to(rotations)[:, None]
        focal = observation.focal.expand(count, 2) if observation.focal_known else focals * observation.focal / observation.focal.mean()
        boxes = observation.boxes[:1].expand(count, 4)
        starts = poses_in_boxes(self.category, replace(observation, focal=focal), rotations, boxes)
        return self._descend(observation, starts.keypoints(self.category), focal, range(config.steps))

    def refine(self, observation, poses):
        """:class:`Candidates` from :class:`Poses`: the last fifth of the published schedule."""
        focal = observation.focal * poses.log_focal.exp()[:, None]
        return self._descend(observation, poses.keypoints(self.category), focal, range(self.config.steps * 4 // 5, self.config.steps))

    @torch.enable_grad()
    def _descend(self, observation, starts, focal, steps):
        keypoints = starts.clone().requires_grad_()
        log_factor = torch.zeros(len(starts), 1).to(starts).requires_grad_()
        variables = [keypoints] if observation.focal_known else [keypoints, log_factor]
        optimizer = torch.optim.AdamW(variables, lr=self.config.learning_rate, weight_decay=self.config.weight_decay)
        generator = torch.Generator().manual_seed(self.config.seed + 1)
        trace = []
        for step in steps:
            loss = self._energy(observation, keypoints, focal * log_factor.exp(), step, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
            trace.append(loss.detach().amin())
        found = keypoints.detach()
        rotations = similarity_alignment(self.category.shape.expand_as(found), found)[1]  # Procrustes of X to X0
        return Candidates(found, (focal * log_factor.exp()).detach(), rotations, torch.stack(trace), starts=starts)

    def _energy(self, observation, keypoints, focal, step, generator):
        """Eq. 13 at one step of the schedule, (B,)."""
        category, config = self.category, self.config
        unit = observation.unit if config.object_units else torch.ones_like(observation.unit)
        at = {name: piecewise_linear(step, *getattr(self.schedules, name)) for name in vars(self.schedules)}
        projections = project_points(category.lift @ keypoints, focal, observation.principal)
        cloud, points = projections[:, : category.dense], projections[:, category.dense :]
        sigma = unit.expand(len(keypoints))
        dense_seen = observation.pixel_log, observation.pixels
        result = config.weight_dense * energy.dense_reconstruction(*dense_seen, cloud, sigma * at["sigma_dense"])
        result = result + config.weight_geometry * energy.geometric_consistency(keypoints, self._rows(generator))
        result = result + config.weight_depth * energy.depth_regularisation(keypoints)
        if at["weight_sparse"] > 0:
            keypoints_seen = observation.keypoint_log, observation.keypoint_cells
            result = result + at["weight_sparse"] * energy.sparse_reconstruction(*keypoints_seen, points, sigma * at["sigma_sparse"])
        if observation.field is not None and at["weight_background"] > 0:
            result = result + at["weight_background"] * energy.background(cloud, observation.field, self.cap * unit) / unit
        return result

    def _rows(self, generator):
        betas, rows = self.category.betas, self.config.geometry_rows
        edges = torch.randint(max(len(betas.edge1), 1), (rows if len(betas.edge1) else 0,), generator=generator)
        tets = torch.randint(max(len(betas.vertex), 1), (rows if len(betas.vertex) else 0,), generator=generator)
        return chosen_rows(betas, edges.to(betas.edge1.device), tets.to(betas.edge1.device))
