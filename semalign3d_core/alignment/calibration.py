"""What a category's training images teach: where keypoints are annotated, and how far an alignment is to be trusted.

Run once, when the category is built; the result is stored in ``CategoryModel.calibration`` (see ``confidence.py`` and ``offsets.py`` for
its keys).
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.confidence import DEFAULTS, STATISTICS
from semalign3d_core.alignment.logistic import area_under_roc, fit_logistic
from semalign3d_core.alignment.offsets import estimated_offsets, stored_offsets
from semalign3d_core.alignment.selection import rotation_distance
from semalign3d_core.alignment.symmetry import undetermined_axis_of
from semalign3d_core.alignment.variants import HARDER, IMPOSSIBLE, without_depth
from semalign3d_core.evidence import FeatureMap
from semalign3d_core.mask_field import mask_box
from semalign3d_core.threads import in_parallel

RIGHT_DEGREES = 30.0  # largest error of a right pose
RIGHT_SHARE = 0.8  # of the visible keypoints within ALPHA of the longer box side
ALPHA = 0.1
HARDER_VERSIONS = 2  # of every training image
IMPOSSIBLE_VERSIONS = 2
FEW_PAIRS = 10  # candidates the prior belief in the depth check is worth
USUAL_SEPARATION = 0.85  # of the depth check


@dataclass(frozen=True)
class Trial:
    """One calibration alignment: its statistics, whether pose and keypoints are right, and per candidate (B,) the
    depth-order correlation and whether its keypoints are right."""

    statistics: dict
    pose: bool
    keypoints: bool
    depth_order: torch.Tensor
    candidates: torch.Tensor


def calibrate(model, evidences, truth_keypoints, config="fast", truth_rotations=None, held_out_models=None, negatives=(), progress=None):
    """{name: float} for ``CategoryModel.calibration`` from the training images of a category.

    evidences: N :class:`ImageEvidence`; truth_keypoints: (N, K, 2) pixels, NaN where not annotated; truth_rotations:
    (N, 3, 3) object to camera, or None (then a pose is right when the keypoints are); held_out_models: N models
    built without the respective image (several may be the same object), or None: then the model itself has seen what it is tried on;
    negatives: evidence of images without the object, besides those made here; progress: called as (done, total).

    On a CPU several images are worked on at a time; what comes out does not depend on how many.
    """
    plain, workers = replace(model, calibration={}), 1 if model.shape.is_cuda else None  # the graphs of a GPU serve one caller at a time
    axis = undetermined_axis_of(Aligner(plain, config), evidences, workers)
    entries = {} if axis is None else {f"axis_{name}": float(value) for name, value in zip("xyz", axis, strict=True)}
    models, numbers = held_out_models or [model] * len(evidences), range(len(evidences))
    progress = progress or (lambda *_: None)
    told = _Told(progress, 2 * len(evidences) + len(negatives))
    aligners = _aligners(models, entries, config)
    first = told(in_parallel(lambda n: aligners[n].align(evidences[n]), numbers, workers))
    entries |= stored_offsets(estimated_offsets(model, first, truth_keypoints))
    rotations = [None] * len(evidences) if truth_rotations is None else truth_rotations
    aligners = _aligners(models, entries, config)
    tried = told(in_parallel(lambda n: _tried(aligners[n], evidences[n], n, truth_keypoints[n], rotations[n]), numbers, workers))
    aligner = Aligner(replace(plain, calibration=entries), config)
    absent = told(in_parallel(partial(_statistics, aligner), negatives, workers))
    trials, absent = [t for some, _ in tried for t in some], [v for _, some in tried for v in some] + absent
    return {**entries, **_depth_entry(trials, aligner.config), **_maps(samples_of(trials, absent))}


class _Told:
    """Lists results as they come and says how many of all came so far."""

    def __init__(self, progress, total):
        self.progress, self.done, self.total = progress, 0, total

    def __call__(self, results):
        listed = []
        for result in results:
            listed.append(result)
            self.done += 1
            self.progress(self.done, self.total)
        return listed


def _aligners(models, calibration, config):
    """The :class:`Aligner` of every model, with the given calibration; the same model has the same one."""
    made = {id(model): Aligner(replace(model, calibration=dict(calibration)), config) for model in {id(m): m for m in models}.values()}
    return [made[id(model)] for model in models]


def _tried(aligner, evidence, n, keypoints, rotation):
    """The trials of the ``n``-th image as it is and in harder versions, and the statistics of its impossible ones."""
    generator, size = torch.Generator().manual_seed(n), object_size(evidence)  # every image has chance of its own: any may come first
    evidence = replace(evidence, features=FeatureMap(evidence.features.values, evidence.features.grid))  # widened once for all versions
    harder = (HARDER[(n + version) % len(HARDER)](evidence, generator) for version in range(HARDER_VERSIONS))
    impossible = [IMPOSSIBLE[(IMPOSSIBLE_VERSIONS * n + version) % len(IMPOSSIBLE)] for version in range(IMPOSSIBLE_VERSIONS)]
    versions = [evidence, *harder, *(change(evidence, generator) for change in impossible)]
    # Every other one lacks the depth map, for many users have none; shifted, so that every kind is tried with and without.
    shift = n // len(HARDER)
    versions = [without_depth(v) if (place + n + shift) % 2 else v for place, v in enumerate(versions)]
    trials = [_trial(aligner, version, keypoints, rotation, size) for version in versions[: 1 + HARDER_VERSIONS]]
    return trials, [_statistics(aligner, version) for version in versions[1 + HARDER_VERSIONS :]]


def _statistics(aligner, evidence):
    return aligner.align(evidence).diagnostics["statistics"]


def object_size(evidence):
    """Longer side of the mask's box in pixels; None without a mask."""
    if evidence.mask is None or not evidence.mask.any():
        return None
    box = mask_box(evidence.mask.cpu().numpy())
    return float((box[2:] - box[:2]).max())


def _trial(aligner, evidence, keypoints, rotation, size):
    alignment = aligner.align(evidence)
    scores = alignment.diagnostics
    right = keypoints_right(scores["candidates_2d"], keypoints, aligner.category.keypoints, size)
    winner = int(scores["scores"].argmin())
    pose = bool(right[winner]) if rotation is None else rotation_right(alignment.rotation, rotation, aligner.axis)
    return Trial(scores["statistics"], pose, bool(right[winner]), scores["depth_order"], right)


def rotation_right(rotation, truth, axis=None):
    """Whether a rotation (3, 3) is within 30 degrees of the truth, as far as the pose is determined."""
    return math.degrees(float(rotation_distance(rotation[None], truth.to(rotation), axis))) < RIGHT_DEGREES


def keypoints_right(placed, truth, labels, size=None):
    """(B,) bool: at least 80 % of the annotated keypoints of candidates (B, K', 2) lie within 0.1 of the object's longer side.

    truth: (K, 2) with NaN; labels: (K',) the keypoints that ``placed`` holds; size: the longer side, None: of the annotation's box.
    """
    truth = torch.as_tensor(truth).to(placed)[labels]
    known = torch.isfinite(truth).all(-1)
    if not known.any():
        return torch.zeros(len(placed), dtype=torch.bool)
    longer = size or (truth[known].amax(0) - truth[known].amin(0)).amax().clamp(min=1e-6)
    return ((placed[:, known] - truth[known]).norm(dim=-1) < ALPHA * longer).float().mean(-1) >= RIGHT_SHARE


def _depth_entry(trials, config):
    """Weight of the depth-order check, by how often it prefers a right candidate of an image to a wrong one."""
    wins, pairs = USUAL_SEPARATION * FEW_PAIRS, FEW_PAIRS
    for trial in trials:
        right, wrong = trial.depth_order[trial.candidates], trial.depth_order[~trial.candidates]
        wins += float((right[:, None] > wrong).sum())
        pairs += len(right) * len(wrong)
    separation = wins / pairs
    return {"depth_weight": config.selection.depth_weight * min(max((separation - 0.5) / 0.35, 0.0), 1.0), "depth_separation": separation}


def samples_of(trials, absent):
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


def _maps(samples):
    """The logistic maps and how well each separates the images it was learned from; samples as of :func:`samples_of`."""
    entries = {}
    for name, (table, labels) in samples.items():
        prior = [DEFAULTS[f"{name}.bias"], *(DEFAULTS.get(f"{name}.{s}", 0.0) for s in STATISTICS)]
        bias, *weights = fit_logistic(table, labels, torch.tensor(prior, dtype=torch.float64))
        entries[f"{name}.bias"] = bias
        entries.update({f"{name}.{s}": weight for s, weight in zip(STATISTICS, weights, strict=True)})
        entries[f"{name}.auroc"] = area_under_roc(table @ torch.tensor(weights, dtype=torch.float64), labels)
    return entries
