"""Section 3.2 of the method: a category model placed in an image."""

from dataclasses import dataclass

import torch

from semalign3d_core.alignment.category_tensors import CategoryTensors, spread_rows
from semalign3d_core.alignment.confidence import probability, statistics, undetermined_axis
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.alignment.observation import observe
from semalign3d_core.alignment.poses import Candidates, project_points
from semalign3d_core.alignment.report import make_alignment
from semalign3d_core.alignment.selection import Selection, front_normal, select
from semalign3d_core.alignment.solvers import SOLVERS, evaluate
from semalign3d_core.alignment.tracking import continues, needs_restart, warm_start
from semalign3d_core.category.storage import model_hash
from semalign3d_core.config import load_preset
from semalign3d_core.errors import choice


@dataclass(frozen=True)
class Solution:
    """Candidates of one image with their energy terms {name: (B,)}, the chosen one, and its statistics {name: float}."""

    candidates: Candidates
    terms: dict
    energies: torch.Tensor
    selection: Selection
    statistics: dict


class Aligner:
    """Places one category in images: ``Aligner(model).align(evidence)``.

    model: :class:`~semalign3d_core.category.model.CategoryModel`; config: an :class:`AlignConfig`, the name of a preset (``fast``,
    ``reference``) or the path of a YAML file; known_diameter: the object's diameter in metres, if it is known.
    """

    def __init__(self, model, config="fast", known_diameter=None):
        self.model, self.known_diameter = model, known_diameter
        self.config = config if isinstance(config, AlignConfig) else load_preset(AlignConfig, "align", config)
        self.model_hash = model_hash(model)
        self.category = CategoryTensors.of(model, self.config.gauss_newton.modes)
        self.betas = spread_rows(self.category.betas, self.config.energy.geometry_rows)
        self.solver = choice("solver", self.config.solver, SOLVERS)(self.category, model.pose_rotations, self.config)
        self.facing = front_normal(self.category.points, model.pose_rotations, self.config.selection.normal_share)
        self.axis = undetermined_axis(model.calibration, self.category.shape)
        self.depth_weight = model.calibration.get("depth_weight", self.config.selection.depth_weight)

    def align(self, evidence, previous=None):
        """The :class:`~semalign3d_core.alignment.result.Alignment` of an image.

        evidence: :class:`~semalign3d_core.evidence.ImageEvidence`; previous: the alignment of the frame before, or None.
        """
        observation = self.observe(evidence)  # Eq. 4
        if previous is not None and continues(previous, observation, self.config.selection):
            poses = warm_start(previous, self.category, observation)
            solution = self.judge(observation, evidence, self.solver.refine(observation, poses), previous)
            alignment = self._report(observation, evidence, solution, previous)
            if not needs_restart(alignment, previous, self.config.selection):
                return alignment
        candidates = self.solver.solve(observation)  # Eq. 13
        return self._report(observation, evidence, self.judge(observation, evidence, candidates))

    def observe(self, evidence):
        """What the image says about this category: an :class:`~semalign3d_core.alignment.observation.Observation`."""
        return observe(self.category, evidence, self.config)

    def judge(self, observation, evidence, candidates, previous=None):
        """The :class:`Solution` among candidates: energy (the same function for every solver), checks, statistics."""
        terms, energies = evaluate(self.category, self.betas, observation, candidates.keypoints, candidates.focal, self.config)
        depth = None if evidence.depth is None else evidence.depth.inverse().to(energies)
        chosen = select(self.category, observation, candidates, energies, depth, self.facing, self.depth_weight,
                        self.config.selection.rival_degrees, self.axis)  # fmt: skip
        winner = slice(chosen.winner, chosen.winner + 1)
        points = self.category.lift @ candidates.keypoints[winner]
        projected = project_points(points, candidates.focal[winner], observation.principal)[0]
        values = statistics(observation, chosen, points[0], projected, self.category.dense)
        if previous is not None:  # a warm start has no rivals: the margin found with the bank still stands
            values["margin"] = previous.diagnostics["statistics"]["margin"]
        return Solution(candidates, terms, energies, chosen, values)

    def _report(self, observation, evidence, solution, previous=None):
        calibration = self.model.calibration
        belief = {kind: probability(calibration, kind, solution.statistics) for kind in ("pose", "keypoints", "present")}
        return make_alignment(self, observation, evidence, solution, belief, previous)
