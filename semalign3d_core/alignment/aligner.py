"""Section 3.2 of the method: a category model aligned to an image."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.alignment.gauss_newton.poses import Candidates, Poses, poses_of_keypoints, project_points
from semalign3d_core.alignment.gauss_newton.solver import GaussNewtonSolver
from semalign3d_core.alignment.judgement import (
    MAPS,
    STATISTICS,
    Calibration,
    Choice,
    ViewPrior,
    choose,
    keypoint_evidence,
    row,
    statistics,
    with_keypoint_bias,
)
from semalign3d_core.alignment.observation import ImageTensors, Observation
from semalign3d_core.alignment.published import AdamWSolver
from semalign3d_core.alignment.result import (
    Alignment,
    Alternatives,
    Diagnostics,
    TrackState,
    continues,
    inside_image,
    needs_search,
    start_of,
    warm_start,
)
from semalign3d_core.alignment.visibility import BEHIND, ProjectedSolutions, behind_depth_map, metric_scale
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.storage import model_hash
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.rotations import shape_diameter, similarity_alignment
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.errors import choice as chosen_name
from semalign3d_core.runtime.threads import one_thread
from semalign3d_core.runtime.values import ShortRepr

DIAMETERS = 1e-4, 1e4  # metres
UNIT = 1.01  # largest value in a unit vector, in half precision
OCCLUDED = 0.5  # share of a keypoint's confidence without any evidence for it: the other keypoints place an occluded one too


class Solver(Protocol):
    """Minimises Eq. 13. What a solution is worth is not the solver's business: :meth:`ProjectedSolutions.energy` is the same for all.

    phases: of a warm and of a cold solution, ((first step, number of starts), ...) each;  needs_gradients: of PyTorch
    """

    phases: tuple[tuple[tuple[int, int], ...], ...]
    needs_gradients: bool

    def solve(self, observation: Observation) -> Candidates:
        """Solutions of an image of which nothing is known."""

    def refine(self, observation: Observation, poses: Poses) -> Candidates:
        """Solutions from given poses."""


# name -> factory(category, pose_rotations, config)
SOLVERS = {"gauss_newton": GaussNewtonSolver, "adamw": AdamWSolver}


@dataclass(frozen=True, repr=False)
class Solution(ShortRepr):
    """What was computed of an image.

    The candidates with their energies (B,), the choice, evidence for the keypoints of the best one (K,), its statistics (S,), and the
    probabilities (4,) that follow from them. Reported: the candidates with keypoint bias, their energies (B,), and terms {name: (B,)}.
    """

    candidates: Candidates
    energies: Tensor
    choice: Choice
    evidence: Tensor
    statistics: Tensor
    probabilities: Tensor
    reported: ProjectedSolutions
    reported_energies: Tensor
    reported_terms: dict[str, Tensor]


@dataclass(frozen=True, repr=False)
class Report(ShortRepr):
    """What is reported of a :class:`Solution`, as tensors.

    Of all candidates, keypoints (B, K, 3) with their bias and their projections (B, K, 2) in L;
    of the best one the focal length (2,), energy () and terms {name: ()}, visible (K,) bool, diameter (), and the factor to metres () by
    metric depth, NaN if unknown; pose rotation (3, 3) and parameters (5 + M,) without bias; the box (4,) that it fills.
    Of the solver's starts the projections (S, K, 2) in L.
    """

    keypoints: Tensor
    projected: Tensor
    focal: Tensor
    energy: Tensor
    terms: dict[str, Tensor]
    visible: Tensor
    diameter: Tensor
    metres: Tensor
    rotation: Tensor
    parameters: Tensor
    box: Tensor
    starts: Tensor | None


class Aligner:
    """Aligns one category to images: ``Aligner(model).align(evidence)``.

    model: :class:`~semalign3d_core.category.model.CategoryModel`, on the device and in the precision in which everything is to be
    computed; config: an :class:`AlignConfig`, the name of a preset (``fast``, ``reference``) or the path of a YAML file;
    known_diameter: the object's diameter in metres, if it is known;  typical_diameter: what counts where nothing else gives the scale.
    """

    def __init__(
        self,
        model: CategoryModel,
        config: AlignConfig | str = "fast",
        known_diameter: float | None = None,
        typical_diameter: float | None = None,
    ):
        self.model, self.model_hash = model, model_hash(model)
        self.known_diameter, self.typical_diameter = known_diameter, typical_diameter
        if known_diameter is not None and not DIAMETERS[0] <= known_diameter <= DIAMETERS[1]:
            raise InputError(f"the diameter is {known_diameter} m, expected {DIAMETERS[0]:g} to {DIAMETERS[1]:g}")
        self.config: AlignConfig = config if isinstance(config, AlignConfig) else load_preset(AlignConfig, "align", config)
        self.category = CategoryTensors.of(model, self.config.gauss_newton.modes, self.config.observation)
        self.calibration = Calibration.of(model.calibration, self.category)
        self.views = ViewPrior(model.pose_rotations, self.calibration.axis)
        factory = chosen_name("solver", self.config.solver, SOLVERS)
        self.solver: Solver = factory(self.category, model.pose_rotations, self.config)
        self._labels, self._shape = self.category.keypoints.cpu(), self.category.shape.cpu()
        self._surface = model.to("cpu").surface.over(self._labels)  # of all points of the model, also stray ones

    @one_thread()
    def align(self, evidence: ImageEvidence, previous: Alignment | None = None) -> Alignment:
        """The :class:`~semalign3d_core.alignment.result.Alignment` of an image.

        evidence: :class:`~semalign3d_core.perception.evidence.ImageEvidence`; previous: the alignment of the frame before, or None; one
        of another model, or without tracking state, is ignored.
        Raises :class:`~semalign3d_core.runtime.errors.InputError` for features of another width than the model's.
        """
        image, state = self.prepare(evidence), start_of(previous, self.model_hash)
        if state is not None and continues(state, image.mask_box):
            alignment = self._alignment(evidence, image, state)
            if not needs_search(alignment, state):
                return alignment
        return self._alignment(evidence, image, None)

    def prepare(self, evidence: ImageEvidence) -> ImageTensors:
        """The image on the device of the model: all work on the CPU that an alignment needs before the solver."""
        channels, expected = len(evidence.features.values), self.category.features.shape[1]
        if channels != expected:
            raise InputError(
                f"{evidence.name}: its features have {channels} channels, those of the model of {self.model.category!r} {expected}; "
                f"extract them with the backbone that the model was built with ({self.model.backbone})"
            )
        evidence.camera.check()
        least, most = torch.aminmax(evidence.features.values)
        if not (least >= -UNIT and most <= UNIT):  # also NaN
            text = f"its features have values from {least:.3g} to {most:.3g}, expected unit vectors; another precision (dtype) may help"
            raise InputError(f"{evidence.name}: {text}")
        return ImageTensors.of(evidence, self.category.shape, self.config.bank.extended)

    def observe(self, image: ImageTensors, search: bool = True) -> Observation:
        """The image in terms of this category (Eq. 4); search: viewpoints will be scored, not only a given pose refined."""
        return Observation.of(self.category, image, self.config, search)

    def solve(self, image: ImageTensors, state: TrackState | None = None) -> tuple[Solution, Report]:
        """The solution, and what is reported of it. A GPU is never waited for. state: where the object was in the frame before."""
        # On small tensors most of the time goes into the calls, which are fastest in inference mode; that mode knows no gradients.
        with torch.no_grad() if self.solver.needs_gradients else torch.inference_mode():
            observation = self.observe(image, search=state is None)
            if state is None:
                solution = self.judge(observation, self.solver.solve(observation))  # Eq. 13
            else:
                candidates = self.solver.refine(observation, warm_start(state, observation))
                solution = self.judge(observation, candidates, (state.margin, state.lead))
            return solution, self._report(observation, solution)

    def judge(self, observation: Observation, candidates: Candidates, known: tuple[Tensor, Tensor] | None = None) -> Solution:
        """The :class:`Solution` among candidates; known: margin and lead () of an earlier frame, for a warm start has no rivals."""
        bias, count = self.calibration.keypoint_bias if self.config.keypoint_bias else None, len(candidates.keypoints)
        keypoints, focal = candidates.keypoints, candidates.focal
        if bias is not None:  # the keypoints without and with it in one batch: calls on small tensors take as long for both as for one
            biased = with_keypoint_bias(keypoints, candidates.rotations, self.category.shape, bias)
            keypoints, focal = torch.cat([keypoints, biased]), torch.cat([focal, focal])
        both = ProjectedSolutions.of(self.category, observation, keypoints, focal)
        terms, all_energies = both.energy(self.category, observation, self.config.energy)
        solutions, energies = both[:count], all_energies[:count]
        weight, axis = self.calibration.depth_weight, self.calibration.axis
        likely = energies + self.config.view_weight * self.views(candidates.rotations, observation.image.up)
        choice = choose(observation.image, candidates, solutions, likely, weight, axis, known)
        best = solutions.only(choice.winner)
        evidence = keypoint_evidence(self.category, observation, best)
        values = statistics(self.category, observation, candidates, choice, best, evidence)
        reported = slice(len(keypoints) - count, None)
        return Solution(
            candidates, energies, choice, evidence, values, self.calibration.probabilities(values),
            both[reported], all_energies[reported], {name: value[reported] for name, value in terms.items()},
        )  # fmt: skip

    @torch.no_grad()
    def terms(self, evidence: ImageEvidence, keypoints: Tensor, camera: PinholeCamera) -> dict[str, Tensor]:
        """The terms {name: (B,)} of Eq. 13 of given keypoints (B, K, 3) of the model, camera frame, in an image seen by a camera."""
        observation = self.observe(self.prepare(evidence), search=False)
        chosen = keypoints.to(self.category.shape)[:, self.category.keypoints]
        solutions = ProjectedSolutions.of(self.category, observation, chosen, camera.focal.to(chosen).expand(len(chosen), 2))
        return solutions.energy(self.category, observation, self.config.energy)[0]

    def _report(self, observation: Observation, solution: Solution) -> Report:
        candidates, winner, dense = solution.candidates, solution.choice.winner, self.category.dense
        reported = solution.reported.only(winner)
        diameter = shape_diameter(reported.points[0, dense:])
        visible, metres = self._seen(observation.image, reported, diameter)
        poses = candidates.poses
        if poses is None:
            poses = poses_of_keypoints(self.category, candidates.keypoints, torch.zeros_like(solution.energies))
        starts = candidates.starts
        if starts is not None:
            starts = project_points(starts, observation.focal.expand(len(starts), 2), observation.principal)
        return Report(
            solution.reported.points[:, dense:], solution.reported.projected[:, dense:], row(candidates.focal, winner),
            row(solution.reported_energies, winner), {name: row(values, winner) for name, values in solution.reported_terms.items()},
            visible, diameter, metres, row(poses.rotation, winner), row(poses.parameters, winner), observation.boxes[0], starts,
        )  # fmt: skip

    def _seen(self, image: ImageTensors, reported: ProjectedSolutions, diameter: Tensor) -> tuple[Tensor, Tensor]:
        """Which keypoints nothing hides, (K,) bool, and the factor to metres by metric depth, () NaN if unknown."""
        dense, depth, projected = self.category.dense, reported.points[..., 2], reported.projected
        seen = reported.behind[0] <= BEHIND * diameter
        usable = seen[:dense] if reported.distance is None else seen[:dense] & (reported.distance[0] <= 0)
        # The turn about an undetermined axis is arbitrary, and with it what the object hides of itself.
        visible = seen[dense:] if self.calibration.axis is None else torch.ones_like(seen[dense:])
        metres = torch.full_like(diameter, torch.nan)
        if image.depth is not None:
            readings, depth = image.inverse_depth(projected[0]), depth[0]
            visible = visible & ~behind_depth_map(readings[:dense], depth[:dense], usable, readings[dense:], depth[dense:], diameter)
            if image.depth.kind == "metric":
                metres = metric_scale(1 / readings[:dense], depth[:dense], usable)
        return visible, metres

    def _alignment(self, evidence: ImageEvidence, image: ImageTensors, state: TrackState | None) -> Alignment:
        """The :class:`Alignment`. Here alone the CPU waits for results of a GPU."""
        solution, report = self.solve(image, state)
        candidates, choice = solution.candidates, solution.choice
        camera = evidence.camera if evidence.camera.known else evidence.camera.with_focal(_host(report.focal))
        factor = self._metres(report)
        keypoints, projected = _host(report.keypoints) * (factor or 1.0), _host(report.projected) * camera.longer_side
        points, pixels = self._of_all(torch.cat([keypoints, projected], -1), torch.nan).split((3, 2), -1)
        winner = int(choice.winner)
        scale, rotation, translation = similarity_alignment(self._shape, keypoints[winner])
        values = dict(zip(STATISTICS, solution.statistics.tolist(), strict=True))
        probabilities = dict(zip(MAPS, solution.probabilities.tolist(), strict=True))
        share = (OCCLUDED + (1 - OCCLUDED) * _host(solution.evidence)).clamp(max=1)  # beyond by rounding
        believed = share * (probabilities["keypoints"] * probabilities["present"])
        return Alignment(
            category=self.model.category, model_hash=self.model_hash, keypoint_names=self.model.keypoint_names,
            keypoints_3d=points[winner], keypoints_2d=pixels[winner],
            visible=self._of_all(_host(report.visible)[None], False)[0] & inside_image(pixels[winner], camera),
            keypoint_confidence=self._of_all(believed[None], 0.0)[0],
            cloud_3d=self._surface @ keypoints[winner], rotation=rotation, translation=translation, scale=float(scale), camera=camera,
            scale_kind="relative" if factor is None else "metric", energy=float(report.energy),
            terms={name: float(value) for name, value in report.terms.items()},
            confidence=probabilities["found"], found=probabilities["found"] >= self.config.found_threshold,
            undetermined_axis=None if self.calibration.axis is None else self.calibration.axis.cpu(),
            tracking=TrackState(
                report.rotation.clone(), report.parameters.clone(), report.focal.log().mean(), choice.margin.clone(), choice.lead.clone(),
                report.box.clone(), image.mask_box, values["energy"], 0 if state is None else state.warm_frames + 1,
            ),
            alternatives=Alternatives(
                points, pixels, _host(candidates.focal), _host(candidates.rotations), _host(choice.score), _host(choice.depth_order)
            ),
            diagnostics=Diagnostics(
                values, probabilities, _host(candidates.trace), self.solver.phases[state is None],
                None if report.starts is None else _host(report.starts) * camera.longer_side,
                None if candidates.start_scores is None else _host(candidates.start_scores),
            ),
        )  # fmt: skip

    def _metres(self, report: Report) -> float | None:
        """Factor to metres from a known diameter, metric depth or a typical diameter; None if none of them is at hand."""
        metres = float(report.metres)
        if self.known_diameter is None and not math.isnan(metres):
            return metres
        diameter = self.known_diameter or self.typical_diameter
        return None if diameter is None else diameter / float(report.diameter)

    def _of_all(self, values: Tensor, missing: float) -> Tensor:
        """Values (B, K', ...) of the present keypoints at their places among all keypoints of the model, (B, K, ...)."""
        full = torch.full((len(values), len(self.model.present), *values.shape[2:]), missing, dtype=values.dtype)
        full[:, self._labels] = values
        return full


def _host(values: Tensor) -> Tensor:
    """A copy on the host, outside of inference mode."""
    return values.to("cpu", copy=True)
