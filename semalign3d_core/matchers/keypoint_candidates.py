"""Nearest neighbour with the knowledge of ``semalign3d_keypoints``: queries are different keypoints of the category.

What the alignment is worth shows only beside a method that is told the same: the category's mean features of its keypoints, and that
no two queries of a pair are the same keypoint. It has no shape, no pose and no mask.
"""

from typing import Any

import torch

from semalign3d_core.category.model import CategoryModel
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.matchers.soft_argmax import cell_features
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import distinct_keypoints
from semalign3d_core.transfer.matches import Matches


class KeypointCandidatesMatcher(Matcher):
    """Every keypoint of the category has one candidate in the target, the cell nearest to its mean feature.

    Queries get different candidates, by the largest sum of the cosines between their own features and those of the cells; the assignment is
    that of the transfer of keypoints. Queries beyond the number of keypoints get their nearest neighbour.
    """

    name = "nearest_neighbour_keypoints"
    told_keypoints = True

    def __init__(self, model: CategoryModel) -> None:
        self.model = model
        self.keypoints = model.keypoint_features[model.present]
        self.preference = load_preset(Transfer, "transfer", "keypoints").keypoint_preference

    def match(self, source: Any, target: Any, points: torch.Tensor) -> Matches:
        """Finds ``points`` (Q, 2), pixels of ``source``, in ``target`` (two :class:`ImageEvidence`). Confidence: cosine, in [0, 1]."""
        grid, queries = target.features.grid, cell_features(source.features, points)
        candidates = target.features.similarity(self.keypoints.to(queries)).argmax(1)
        everywhere = target.features.similarity(queries)
        free, nearest = everywhere.max(1)
        scores = torch.cat([everywhere[:, candidates], free[:, None]], 1)
        is_keypoint = torch.arange(scores.shape[1], device=scores.device) < len(candidates)
        chosen = distinct_keypoints(scores, is_keypoint, self.preference)
        cells = torch.where(chosen < len(candidates), candidates[chosen.clamp(max=len(candidates) - 1)], nearest)
        column_row = torch.stack([cells % grid.cells, cells // grid.cells], 1).float()
        return Matches(grid.cell_to_pixel(column_row), scores.gather(1, chosen[:, None])[:, 0].clamp(0, 1))
