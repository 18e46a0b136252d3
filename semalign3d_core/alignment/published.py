"""The published optimiser (paper, Table 5): AdamW on free keypoints and focal length, many random starts as one batch."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.category_tensors import CategoryTensors, chosen_rows
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.alignment.gauss_newton.poses import Candidates, Poses, poses_in_boxes, project_points
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.category.model import BetaTable
from semalign3d_core.geometry.rotations import rotation_from_quaternion, similarity_alignment

GEOMETRY_ROWS = 128  # edge pairs and tetrahedra drawn anew in every step
WARM_SHARE = 0.2  # of the schedule, its end, that a warm start goes through


class AdamWSolver:
    """The solver of the ``reference`` preset.

    Lengths are in units of L, as published, not in object scales. Gradients flow through the exact argmax of each maximum only (nothing
    else has a gradient), and Eq. 10 is evaluated on random rows of its tables.
    """

    needs_gradients = True

    def __init__(self, category: CategoryTensors, pose_rotations: Tensor, config: AlignConfig):
        self.category, self.config, self.weights = category, config.reference, config.energy
        self.phases = ((0, 1),), ((0, len(config.reference.focals) * config.reference.rotations),)
        self.schedules = config.reference.category_schedules.get(category.name, config.reference.schedules)

    def solve(self, observation: Observation) -> Candidates:
        """:class:`Candidates` from several focal lengths x random rotations, each placed in the mask's box."""
        config = self.config
        count = len(config.focals) * config.rotations
        rotations = rotation_from_quaternion(torch.randn(count, 4, generator=torch.Generator().manual_seed(0))).to(self.category.shape)
        focals = torch.tensor(config.focals).repeat_interleave(config.rotations).to(rotations)[:, None]
        focal = observation.focal.expand(count, 2) if observation.focal_known else focals * observation.focal / observation.focal.mean()
        boxes = observation.boxes[:1].expand(count, 4)
        starts = poses_in_boxes(self.category, replace(observation, focal=focal), rotations, boxes)
        return self._descend(observation, starts.keypoints(self.category), focal, range(config.steps))

    def refine(self, observation: Observation, poses: Poses) -> Candidates:
        """:class:`Candidates` from :class:`Poses`: the end of the published schedule."""
        focal = observation.focal * poses.log_focal.exp()[:, None]
        steps = range(round(self.config.steps * (1 - WARM_SHARE)), self.config.steps)
        return self._descend(observation, poses.keypoints(self.category), focal, steps)

    @torch.enable_grad()
    def _descend(self, observation: Observation, starts: Tensor, focal: Tensor, steps: Sequence[int]) -> Candidates:
        keypoints = starts.clone().requires_grad_()
        log_factor = torch.zeros(len(starts), 1).to(starts).requires_grad_()
        variables = [keypoints] if observation.focal_known else [keypoints, log_factor]
        optimizer = torch.optim.AdamW(variables, lr=self.config.learning_rate, weight_decay=0.0)
        generator = torch.Generator().manual_seed(1)
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

    def _energy(self, observation: Observation, keypoints: Tensor, focal: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """Eq. 13 at one step of the schedule, (B,). A term whose weight in the reported energy is 0 is left out."""
        category, config, weights = self.category, self.config, self.weights
        at = {name: float(np.interp(step, *polygon)) for name, polygon in vars(self.schedules).items()}
        projections = project_points(category.surface @ keypoints, focal, observation.principal)
        cloud, points = projections[:, : category.dense], projections[:, category.dense :]
        one = keypoints.new_ones(len(keypoints))
        result = torch.zeros_like(one)
        if weights.dense:
            result = result + energy.dense_reconstruction(observation.pixel_log, observation.pixels, cloud, one * at["sigma_dense"])
        rows = self._rows(generator)
        if weights.geometry:
            result = result + config.weight_geometry * energy.geometric_consistency(keypoints, rows)
        if weights.depth:
            result = result + config.weight_depth * energy.depth_regularisation(keypoints)
        if weights.sparse and at["weight_sparse"] > 0:
            seen = observation.keypoint_log, observation.keypoint_cells
            result = result + at["weight_sparse"] * energy.sparse_reconstruction(*seen, points, one * at["sigma_sparse"])
        if weights.background and observation.field is not None and at["weight_background"] > 0:
            cap = torch.full_like(one[0], energy.BACKGROUND_CAP)
            result = result + at["weight_background"] * energy.background(observation.field.sample(cloud), cap)
        return result

    def _rows(self, generator: torch.Generator) -> BetaTable:
        betas = self.category.betas
        edges, tets = (
            torch.randint(max(len(table), 1), (GEOMETRY_ROWS if len(table) else 0,), generator=generator).to(table.device)
            for table in (betas.edge1, betas.vertex)
        )
        return chosen_rows(betas, edges, tets)
