"""How the alignment benchmarks score: against the truth of a scene, per visible keypoint."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from semalign3d_core.alignment.judgement import rotation_distance
from semalign3d_core.calibration.confidence_maps import RIGHT_DEGREES
from semalign3d_core.geometry.rotations import similarity_alignment

ALPHAS = (0.1, 0.05)


@dataclass
class Score:
    """Scores of one image.

    Distances (V,) of visible keypoints in sizes of the object, rotation error in degrees (about what is determined), CPU seconds, the
    alignment, and whether the image tells the object's turn about its upright axis (a mug whose handle is hidden has none).
    """

    distances: np.ndarray
    degrees: float
    seconds: float
    alignment: object
    determined: bool = True

    @property
    def pose(self):
        """Whether the pose is right."""
        return self.degrees < RIGHT_DEGREES

    @property
    def share(self):
        """Of the visible keypoints within 0.1; NaN without any."""
        return float((self.distances < ALPHAS[0]).mean()) if len(self.distances) else float("nan")


def true_rotation(model, scene):
    """(3, 3) rotation from the object frame of the model, which is its own, to the camera."""
    known = torch.isfinite(scene.shape).all(-1) & model.present
    return scene.rotation @ similarity_alignment(model.shape[known], scene.shape[known])[1]


def score_of(model, scene, alignment, seconds=float("nan")):
    """:class:`Score` of an alignment."""
    seen = scene.visible & model.present
    distances = (alignment.keypoints_2d - scene.keypoints).norm(dim=-1)[seen].numpy() / scene.size
    angle = rotation_distance(alignment.rotation[None], true_rotation(model, scene).to(alignment.rotation), alignment.undetermined_axis)
    return Score(distances, math.degrees(float(angle)), seconds, alignment, scene.determined)


def timed(call):
    """What ``call`` returns, and the CPU seconds it took."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def transfer_distances(match, images, scenes, pairs):
    """How far transferred keypoints are off.

    Returns distances (N,) of those that both images of a pair show, in sizes of the target object, and (N,) bool: whether both images tell
    the object's turn, without which nothing in them tells where the point is.

    match: (source, target, (Q, 2) pixels) -> :class:`Matches` for two of ``images``; pairs: number of random ordered pairs.
    """
    rng, found, told = np.random.default_rng(0), [], []
    for _ in range(pairs):
        i, j = rng.choice(len(scenes), 2, replace=False)
        common = scenes[i].visible & scenes[j].visible
        if common.any():
            miss = match(images[i], images[j], scenes[i].keypoints[common]).points - scenes[j].keypoints[common]
            found.append(miss.norm(dim=-1).numpy() / scenes[j].size)
            told.append(np.full(len(miss), scenes[i].determined and scenes[j].determined))
    return np.concatenate(found), np.concatenate(told)


def pck(distances):
    """Percent within each of ALPHAS, (2,)."""
    return np.array([100 * (distances < alpha).mean() for alpha in ALPHAS])


def keypoint_pck(scores):
    """PCK of the aligned keypoints over all scores, per point."""
    return pck(np.concatenate([score.distances for score in scores]))


def pose_percent(scores):
    """Percent of right poses among the images that determine it."""
    return 100 * np.mean([score.pose for score in scores if score.determined])


def text(values):
    """``12.3 / 4.5``."""
    return " / ".join(f"{value:5.1f}" for value in values)


def calibration_error(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 10) -> float:
    """Expected calibration error: mean over equally filled bins of |mean probability - share of positives|."""
    order = probabilities.argsort()
    chunks = [c for c in order.chunk(bins) if len(c)]
    gaps = [abs(float(probabilities[c].mean() - labels[c].to(probabilities).mean())) * len(c) for c in chunks]
    return sum(gaps) / len(order)
