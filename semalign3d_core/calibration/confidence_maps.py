"""What is learned from a category's training images: where keypoints are annotated, and how often an alignment is right.

Run once, when the category is built; the result is stored in ``CategoryModel.calibration`` (its keys: alignment/judgement.py).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar

import torch
from torch import Tensor

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.judgement import DEPTH_WEIGHT, PRIOR, STATISTICS, rotation_distance
from semalign3d_core.alignment.result import Alignment, Alternatives, Diagnostics
from semalign3d_core.calibration.keypoint_bias import estimated_keypoint_bias, pixels_with_bias, stored_keypoint_bias
from semalign3d_core.calibration.logistic import area_under_roc, fit_logistic
from semalign3d_core.calibration.perturbed_views import HARDER, IMPOSSIBLE, without_depth
from semalign3d_core.calibration.symmetry import principal_axes, turning_losses, undetermined_axis_of
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.geometry.mask_field import mask_box
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence
from semalign3d_core.runtime.threads import in_parallel

RIGHT_DEGREES = 30.0  # largest error of a right pose
RIGHT_SHARE = 0.8  # of the visible keypoints within ALPHA of the longer box side
ALPHA = 0.1
AXIS_IMAGES = 12  # are tested for an axis about which the pose is not determined
HARDER_VERSIONS = 2  # of every training image
IMPOSSIBLE_VERSIONS = 2
FEW_PAIRS = 10  # candidates that the prior of the depth check is worth
USUAL_SEPARATION = 0.85  # of the depth check

Result = TypeVar("Result")


@dataclass(frozen=True)
class Trial:
    """One calibration alignment.

    Its statistics, whether pose and keypoints are right, and per candidate (B,) the depth-order correlation and whether its keypoints are
    right.
    """

    statistics: dict[str, float]
    pose: bool
    keypoints: bool
    depth_order: Tensor
    candidates: Tensor


@dataclass(frozen=True)
class Truth:
    """What is known of a training image: keypoints (K, 2), rotation (3, 3) or None, longer side of the mask's box in pixels or None."""

    keypoints: Tensor
    rotation: Tensor | None
    size: float | None


def calibrate(
    model: CategoryModel,
    evidences: Sequence[ImageEvidence],
    truth_keypoints: Tensor,
    truth_rotations: Tensor | None = None,
    held_out_models: Sequence[CategoryModel] | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, float]:
    """Entries of ``CategoryModel.calibration`` from N training images of a category.

    truth_keypoints: (N, K, 2) pixels, NaN where not annotated; truth_rotations: (N, 3, 3) object to camera, or None (then a pose is
    right when the keypoints are); held_out_models: N models built without the respective image (several may be the same object), or
    None: then the model itself has seen what it is tested on; progress: called as (done, total).

    On a CPU several images are worked on at a time; the result does not depend on how many.
    """
    workers = 1 if model.shape.is_cuda else None
    models, numbers = held_out_models or [model] * len(evidences), range(len(evidences))
    rotations = [None] * len(evidences) if truth_rotations is None else truth_rotations
    total, so_far = 2 * len(evidences), count(1)
    axis_images = set(range(0, len(evidences), max(len(evidences) // AXIS_IMAGES, 1)))
    axes, aligners = principal_axes(Aligner(replace(model, calibration={})).category), _aligners(models, {})

    def counted(results: Iterable[Result]) -> list[Result]:
        listed = []
        for result in results:
            listed.append(result)
            progress(next(so_far), total)
        return listed

    def unchanged(n: int) -> tuple[Alignment, Tensor | None]:
        evidence = _with_or_without_depth(evidences[n], n, 0)
        alignment = aligners[n].align(evidence)
        return alignment, turning_losses(aligners[n], evidence, alignment, axes) if n in axis_images else None

    first = counted(in_parallel(unchanged, numbers, workers))
    axis = undetermined_axis_of(axes, [losses for _, losses in first if losses is not None], model.pose_rotations)
    entries = {} if axis is None else {f"axis_{name}": float(value) for name, value in zip("xyz", axis, strict=True)}
    if axis is not None:  # solutions that are turned about it are no rivals any more, which changes the statistics of the winner
        aligners = _aligners(models, entries)
        first = list(in_parallel(unchanged, numbers, workers))
    bias = estimated_keypoint_bias(model.to("cpu"), [alignment for alignment, _ in first], truth_keypoints)
    entries |= stored_keypoint_bias(bias)
    aligners = _aligners(models, entries)

    def tested(n: int) -> tuple[list[Trial], list[dict[str, float]]]:
        alignment, truth = first[n][0], Truth(truth_keypoints[n], rotations[n], object_size(evidences[n]))
        alternatives, _ = _known(alignment)
        trial = _trial(alignment, pixels_with_bias(alternatives, alignment.camera, model, bias), truth)
        harder, impossible = _tested_versions(aligners[n], evidences[n], n, truth)
        return [trial, *harder], impossible

    done = counted(in_parallel(tested, numbers, workers))
    trials, absent = [t for some, _ in done for t in some], [v for _, some in done for v in some]
    return {**entries, **_depth_entry(trials), **_maps(samples_of(trials, absent))}


def _aligners(models: Sequence[CategoryModel], calibration: dict[str, float]) -> list[Aligner]:
    """The :class:`Aligner` of every model, with the given calibration; the same model has the same one."""
    made = {id(model): Aligner(replace(model, calibration=dict(calibration))) for model in {id(m): m for m in models}.values()}
    return [made[id(model)] for model in models]


def _tested_versions(aligner: Aligner, evidence: ImageEvidence, n: int, truth: Truth) -> tuple[list[Trial], list[dict[str, float]]]:
    """The trials of harder versions of the ``n``-th image, and the statistics of its impossible ones."""
    generator = torch.Generator().manual_seed(n)  # every image has its own: any may come first
    evidence = replace(evidence, features=FeatureMap(evidence.features.values, evidence.features.grid))  # widened once for all versions
    harder = (HARDER[(n + version) % len(HARDER)](evidence, generator) for version in range(HARDER_VERSIONS))
    impossible = [IMPOSSIBLE[(IMPOSSIBLE_VERSIONS * n + version) % len(IMPOSSIBLE)] for version in range(IMPOSSIBLE_VERSIONS)]
    changed = [*harder, *(change(evidence, generator) for change in impossible)]
    versions = [_with_or_without_depth(version, n, place + 1) for place, version in enumerate(changed)]
    alignments = [aligner.align(version) for version in versions[:HARDER_VERSIONS]]
    trials = [_trial(alignment, _known(alignment)[0].keypoints_2d, truth) for alignment in alignments]
    return trials, [_statistics(aligner, version) for version in versions[HARDER_VERSIONS:]]


def _with_or_without_depth(evidence: ImageEvidence, n: int, version: int) -> ImageEvidence:
    """Every other version of an image lacks the depth map, for many users have none; shifted, so that every kind is tested both ways."""
    return without_depth(evidence) if (version + n + n // len(HARDER)) % 2 else evidence


def _known(alignment: Alignment) -> tuple[Alternatives, Diagnostics]:
    """All solutions of an alignment that an aligner has just made, and how it came about."""
    assert alignment.alternatives is not None and alignment.diagnostics is not None
    return alignment.alternatives, alignment.diagnostics


def _statistics(aligner: Aligner, evidence: ImageEvidence) -> dict[str, float]:
    return _known(aligner.align(evidence))[1].statistics


def object_size(evidence: ImageEvidence) -> float | None:
    """Longer side of the mask's box in pixels; None without a mask."""
    if evidence.mask is None or not evidence.mask.any():
        return None
    box = mask_box(evidence.mask.cpu().numpy())
    return float((box[2:] - box[:2]).max())


def _trial(alignment: Alignment, pixels: Tensor, truth: Truth) -> Trial:
    """The :class:`Trial` of an alignment whose solutions have the given pixels (B, K, 2)."""
    alternatives, diagnostics = _known(alignment)
    right = keypoints_right(pixels, truth.keypoints, truth.size)
    best = bool(right[int(alternatives.scores.argmin())])
    pose = best if truth.rotation is None else rotation_right(alignment.rotation, truth.rotation, alignment.undetermined_axis)
    return Trial(diagnostics.statistics, pose, best, alternatives.depth_order, right)


def rotation_right(rotation: Tensor, truth: Tensor, axis: Tensor | None = None) -> bool:
    """Whether a rotation (3, 3) is within 30 degrees of the truth, as far as the pose is determined."""
    return math.degrees(float(rotation_distance(rotation[None], truth.to(rotation), axis))) < RIGHT_DEGREES


def keypoints_right(pixels: Tensor, truth: Tensor, size: float | None = None) -> Tensor:
    """(B,) bool: at least 80 % of the annotated keypoints of solutions (B, K, 2) lie within 0.1 of the object's longer side.

    truth: (K, 2); NaN in either for keypoints that are unknown; size: the longer side, None: of the annotation's box.
    """
    truth = torch.as_tensor(truth).to(pixels)
    known = torch.isfinite(truth).all(-1) & torch.isfinite(pixels[0]).all(-1)
    if not known.any():
        return torch.zeros(len(pixels), dtype=torch.bool)
    longer = size or (truth[known].amax(0) - truth[known].amin(0)).amax().clamp(min=1e-6)
    return ((pixels[:, known] - truth[known]).norm(dim=-1) < ALPHA * longer).float().mean(-1) >= RIGHT_SHARE


def _depth_entry(trials: Sequence[Trial]) -> dict[str, float]:
    """Weight of the depth-order check, by how often it prefers a right candidate of an image to a wrong one."""
    wins, pairs = USUAL_SEPARATION * FEW_PAIRS, FEW_PAIRS
    for trial in trials:
        right, wrong = trial.depth_order[trial.candidates], trial.depth_order[~trial.candidates]
        wins += float((right[:, None] > wrong).sum())
        pairs += len(right) * len(wrong)
    separation = wins / pairs
    return {"depth_weight": DEPTH_WEIGHT * min(max((separation - 0.5) / 0.35, 0.0), 1.0), "depth_separation": separation}


Samples = dict[str, tuple[Tensor, Tensor]]


def samples_of(trials: Sequence[Trial], absent: Sequence[dict[str, float]]) -> Samples:
    """{map: (table (N, S) float64, labels (N,) bool)}: what every map of a confidence is learned from.

    trials: list of :class:`Trial`; absent: statistics {name: float} of images without the object.
    """
    samples = {
        "pose": [(t.statistics, t.pose) for t in trials],
        "keypoints": [(t.statistics, t.keypoints) for t in trials],
        "present": [(t.statistics, True) for t in trials if t.keypoints] + [(values, False) for values in absent],
        # Not the product of pose and present: what makes a pose doubtful makes the object doubtful, and would count twice.
        "found": [(t.statistics, t.pose) for t in trials] + [(values, False) for values in absent],
    }
    tables = {}
    for name, rows in samples.items():
        table = torch.tensor([[values[s] for s in STATISTICS] for values, _ in rows], dtype=torch.float64)
        tables[name] = table, torch.tensor([label for _, label in rows])
    return tables


def _maps(samples: Samples) -> dict[str, float]:
    """The logistic maps and how well each separates the images it was learned from; samples as of :func:`samples_of`."""
    entries = {}
    for name, (table, labels) in samples.items():
        bias, *weights = fit_logistic(table, labels, torch.tensor(PRIOR[name], dtype=torch.float64))
        entries[f"{name}.bias"] = bias
        entries.update({f"{name}.{s}": weight for s, weight in zip(STATISTICS, weights, strict=True)})
        if labels.any() and not labels.all():  # else there is nothing to separate
            entries[f"{name}.auroc"] = area_under_roc(table @ torch.tensor(weights, dtype=torch.float64), labels)
    return entries
