"""Section 3.2 of the method: a category model placed in an image."""

from dataclasses import dataclass

import torch

from semalign3d_core.alignment.category_tensors import CategoryTensors, spread_rows
from semalign3d_core.alignment.choice import Selection, front_normal, select
from semalign3d_core.alignment.confidence import belief_weights, keypoint_evidence, statistics, undetermined_axis
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.alignment.gauss_newton.poses import Candidates
from semalign3d_core.alignment.graphs import GraphedCalls
from semalign3d_core.alignment.image_tensors import image_tensors
from semalign3d_core.alignment.keypoint_bias import read_offsets
from semalign3d_core.alignment.observation import observe
from semalign3d_core.alignment.outcome import outcome_of
from semalign3d_core.alignment.projected_solutions import Placed
from semalign3d_core.alignment.report import Reporter
from semalign3d_core.alignment.solvers import SOLVERS, evaluate
from semalign3d_core.alignment.tracking import continues, needs_restart, warm_start
from semalign3d_core.category.storage import model_hash
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.runtime.threads import one_thread


@dataclass(frozen=True)
class Solution:
    """Candidates of one image with their energy terms {name: (B,)}, the chosen one, what speaks for its keypoints (K,), its statistics
    (S,), and the probabilities (4,) that follow from them."""

    candidates: Candidates
    terms: dict
    energies: torch.Tensor
    selection: Selection
    evidence: torch.Tensor
    statistics: torch.Tensor
    belief: torch.Tensor


class Aligner:
    """Places one category in images: ``Aligner(model).align(evidence)``.

    model: :class:`~semalign3d_core.category.model.CategoryModel`, on the device and in the precision in which everything is to be
    computed; config: an :class:`AlignConfig`, the name of a preset (``fast``, ``reference``) or the path of a YAML file;
    known_diameter: the object's diameter in metres, if it is known. On a GPU the work on an image is captured in a graph.
    """

    def __init__(self, model, config="fast", known_diameter=None):
        self.model = model
        self.config = config if isinstance(config, AlignConfig) else load_preset(AlignConfig, "align", config)
        self.category = CategoryTensors.of(model, self.config.gauss_newton.modes, self.config.bank.points)
        self.betas = spread_rows(self.category.betas, self.config.energy.geometry_rows)
        self.solver = choice("solver", self.config.solver, SOLVERS)(self.category, model.pose_rotations, self.config)
        self.facing = front_normal(self.category.points, model.pose_rotations, self.config.selection.normal_share)
        self.axis = undetermined_axis(model.calibration, self.category.shape)
        self.offsets = read_offsets(model.calibration, self.category.keypoints, self.category.shape) if self.config.offsets else None
        self.depth_weight = model.calibration.get("depth_weight", self.config.selection.depth_weight)
        self.belief = belief_weights(model.calibration, self.category.shape)
        self.reporter = Reporter(model, model_hash(model), self.category, self.axis, self.config, known_diameter, self.solver.phases)
        self.captured = GraphedCalls(self._outcome, self.category.shape.is_cuda and self.solver.capturable)

    @one_thread()
    def align(self, evidence, previous=None):
        """The :class:`~semalign3d_core.alignment.result.Alignment` of an image.

        evidence: :class:`~semalign3d_core.perception.evidence.ImageEvidence`; previous: the alignment of the frame before, or None.
        Raises :class:`~semalign3d_core.runtime.errors.InputError` for features of another width than the model's.
        """
        image = self.prepare(evidence)
        if previous is not None and continues(previous, image, self.config.selection):
            alignment = self._alignment(evidence, image, previous)
            if not needs_restart(alignment, previous, self.config.selection):
                return alignment
        return self._alignment(evidence, image)

    def _alignment(self, evidence, image, previous=None):
        # Small tensors cost what their calls cost, which is least in inference mode; a solver that needs gradients cannot have it.
        with torch.inference_mode() if self.solver.capturable else torch.no_grad():
            outcome = self.captured(image, None if previous is None else previous.diagnostics["state"])
        return self.reporter.alignment(evidence, image, outcome, previous)

    def prepare(self, evidence, whole=None):
        """The :class:`~semalign3d_core.alignment.image_tensors.ImageTensors` of an image: all that the host has to do with it."""
        channels, expected = len(evidence.features.values), self.category.features.shape[1]
        if channels != expected:
            raise InputError(
                f"{evidence.name}: its features have {channels} channels, those of the model of {self.model.category!r} {expected}; "
                f"extract them with the backbone that the model was built with ({self.model.backbone})"
            )
        return image_tensors(self.category, evidence, self.config, whole)

    def observe(self, image, for_bank=True):
        """What the image says about this category: an :class:`~semalign3d_core.alignment.observation.Observation`."""
        return observe(self.category, image, self.config, for_bank)  # Eq. 4

    def _outcome(self, image, state=None):
        """All that is to be known of an image, {name: tensor}, from tensors alone; with a ``state``, from where the object was."""
        observation = self.observe(image, for_bank=state is None)
        if state is None:
            candidates, known = self.solver.solve(observation), None  # Eq. 13
        else:
            poses, known = warm_start(state, observation)
            candidates = self.solver.refine(observation, poses)
        return outcome_of(self, image, observation, self.judge(image, observation, candidates, known))

    def judge(self, image, observation, candidates, known=None):
        """The :class:`Solution` among candidates: energy (the same function for every solver), checks, statistics.

        known: (2,) margin and lead of an earlier frame, for a warm start has no rivals of its own.
        """
        placed = Placed.of(self.category, observation, candidates.keypoints, candidates.focal)
        terms, energies = evaluate(self.category, self.betas, observation, placed, self.config)
        chosen = select(image, candidates, placed, energies, self.facing, self.depth_weight, self.config.selection.rival_degrees,
                        self.axis, known)  # fmt: skip
        winner = placed.only(chosen.winner)
        evidence = keypoint_evidence(self.category, observation, winner.projected)
        values = statistics(self.category, observation, candidates, chosen, winner, evidence)
        bias, weights = self.belief
        return Solution(candidates, terms, energies, chosen, evidence, values, torch.sigmoid(bias + weights @ values))
