"""Vectors of SFNet about keypoint and mask transfer."""

import numpy as np
import torch
from compare import difference, exact

from semalign3d_core.metrics.grid_transfer import inner_grid, pair_pck, transfer_points
from semalign3d_core.metrics.mask_transfer import intersection_over_union, label_transfer_accuracy, warp_mask


def _keypoint_transfer(data, path):
    shares = []
    for i, (source_h, source_w, target_h, target_w) in enumerate(data["sizes_srcHW_trgHW"].astype(int).tolist()):
        grid = inner_grid(torch.from_numpy(data["grid_T2S"][i]), target_h, target_w)
        found = transfer_points(grid, data["points_trg"][i].T, (source_h, source_w))
        expected = data["est_points_src"][i].T
        yield difference(f"points {i}", found, expected, atol=1e-2, rtol=0)
        shares.append(pair_pck(expected, data["points_src"][i].T, float(data["l_pck"][i]), float(data["alpha"])))
    yield difference("pck_per_pair", shares, data["pck_per_pair"], atol=1e-6, rtol=0)
    yield difference("pck_mean", np.mean(shares), data["pck_mean"], atol=1e-6, rtol=0)


def _mask_transfer(data, path):
    for name in sorted({key.split("_")[0] for key in data}):
        truth = data[f"{name}_mask_trg"]
        for suffix, align_corners in (("ac1", True), ("ac0", False)):
            warped = warp_mask(data[f"{name}_mask_src"], data[f"{name}_grid"], align_corners)
            expected = data[f"{name}_warped_{suffix}"]
            yield difference(f"{name} warped {suffix}", warped, expected, atol=1e-4, rtol=0)
            yield exact(f"{name} binary {suffix}", warped > 0.5, expected > 0.5)
            iou, accuracy = intersection_over_union(warped, truth), label_transfer_accuracy(warped, truth)
            yield difference(f"{name} iou {suffix}", iou, data[f"{name}_iou_{suffix}"], atol=1e-5, rtol=0)
            yield difference(f"{name} ltacc {suffix}", accuracy, data[f"{name}_ltacc_{suffix}"], atol=1e-5, rtol=0)


CHECKS = {"keypoint_transfer": _keypoint_transfer, "mask_transfer": _mask_transfer}
