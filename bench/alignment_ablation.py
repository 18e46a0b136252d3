"""Each term of the energy left out: in the fast solver and in the energy by which it chooses among its solutions."""

import numpy as np
from alignment_scores import keypoint_pck, pck, pose_percent, score_of, text, transfer_distances

from semalign3d_core.aligned_image import aligned_image
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.config import load_preset
from semalign3d_core.evaluation.ablation import TERMS, ablated
from semalign3d_core.matchers import MATCHERS


def print_ablation(models, scenes, pairs):
    """Transfer of every category without each term, and the means over categories of keypoints and poses."""
    print(f"\n{'left out':34s}{''.join(f'{name:>15s}' for name in models)}{'mean transfer':>16s}{'keypoints':>16s}{'pose':>7s}")
    usual = load_preset(AlignConfig, "align", "fast")
    for title, changes in ({"nothing": {}} | TERMS | {"deformation (rigid only)": {"gauss_newton.modes": 0}}).items():
        cells, placed, poses = [], [], []
        for name, model in models.items():
            matcher = MATCHERS["semalign3d"](model=model, preset=ablated(usual, changes))
            scores = [score_of(model, scene, matcher.aligner.align(scene.evidence)) for scene in scenes[name]]
            images = [aligned_image(matcher.surface, scene.evidence, score.alignment) for scene, score in zip(scenes[name], scores, strict=True)]
            moved = transfer_distances(lambda i, j, points: matcher.match(images[i], images[j], points).points, scenes[name], pairs)
            cells.append(pck(moved))
            placed.append(keypoint_pck(scores))
            poses.append(pose_percent(scores))
        columns = "".join(f"{text(cell):>15s}" for cell in cells)
        print(f"{title:34s}{columns}{text(np.mean(cells, axis=0)):>16s}{text(np.mean(placed, axis=0)):>16s}{np.mean(poses):7.1f}", flush=True)
