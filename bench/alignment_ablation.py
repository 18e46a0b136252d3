"""Each term of the energy left out: in the fast solver and in the energy by which it chooses among its solutions."""

import numpy as np
from alignment_scores import keypoint_pck, pck, pose_percent, score_of, text, transfer_distances

from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.evaluation.studies.ablation import TERMS, ablated
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.transfer.aligned_image import aligned_image


def print_ablation(models, scenes, pairs):
    """Transfer of every category without each term, and the means over categories of keypoints and poses."""
    names = "".join(f"{name:>15s}" for name in models)
    print(f"\n{'left out':34s}{names}{'mean transfer':>16s}{'keypoints':>16s}{'pose':>7s}")
    usual = load_preset(AlignConfig, "align", "fast")
    for title, changes in ({"nothing": {}} | TERMS | {"deformation (rigid only)": {"gauss_newton.modes": 0}}).items():
        rows = [_scores(model, scenes[name], ablated(usual, changes), pairs) for name, model in models.items()]
        moved, placed, poses = (np.array(column) for column in zip(*rows, strict=True))
        columns = "".join(f"{text(cell):>15s}" for cell in moved)
        print(f"{title:34s}{columns}{text(moved.mean(0)):>16s}{text(placed.mean(0)):>16s}{poses.mean():7.1f}", flush=True)


def _scores(model, scenes, config, pairs):
    """PCK of transfer and of keypoints, and percent of right poses."""
    matcher = MATCHERS["semalign3d_keypoints"](model=model, preset=config)
    scores = [score_of(model, scene, matcher.aligner.align(scene.evidence)) for scene in scenes]
    images = [aligned_image(matcher.surface, scene.evidence, score.alignment) for scene, score in zip(scenes, scores, strict=True)]
    return pck(transfer_distances(matcher.match, images, scenes, pairs)[0]), keypoint_pck(scores), pose_percent(scores)
