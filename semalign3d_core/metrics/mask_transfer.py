"""Mask transfer (Caltech-101 protocol of WeakAlign and SFNet): label-transfer accuracy and intersection over union."""

import numpy as np
import torch


def warp_mask(mask, grid, align_corners=True):
    """Samples a source ``mask`` (h, w) bilinearly, zero outside, at ``grid`` (H, W, 2) of x, y in [-1, 1] of the source.

    Returns (H, W) float32. The published grids are ``linspace(-1, 1)``, hence ``align_corners``.
    """
    mask = torch.as_tensor(mask, dtype=torch.float32)
    grid = torch.as_tensor(grid, dtype=torch.float32, device=mask.device)
    warped = torch.nn.functional.grid_sample(mask[None, None], grid[None], padding_mode="zeros", align_corners=align_corners)
    return warped[0, 0]


def label_transfer_accuracy(transferred, truth):
    """LT-ACC: share of equal pixels over the whole target image. Both (H, W), binarised at > 0.5."""
    a, b = _binary(transferred), _binary(truth)
    return float((a == b).mean())


def intersection_over_union(transferred, truth):
    """IoU of two masks (H, W), binarised at > 0.5; NaN when both are empty."""
    a, b = _binary(transferred), _binary(truth)
    union = np.sum(a | b)
    return float(np.sum(a & b) / union) if union else float("nan")


class MaskTransferAccumulator:
    """Means over pairs. A pair with an undefined IoU (both masks empty) is left out of the IoU mean, as published, and counted."""

    def __init__(self):
        self._accuracy, self._iou = [], []

    def add(self, transferred, truth):
        """Adds a pair of (H, W) masks on the target image; returns its (LT-ACC, IoU)."""
        self._accuracy.append(label_transfer_accuracy(transferred, truth))
        self._iou.append(intersection_over_union(transferred, truth))
        return self._accuracy[-1], self._iou[-1]

    def summary(self):
        """``{"lt_acc", "iou", "pairs", "undefined_iou"}``, scores in [0, 1] as published; None without pairs."""
        defined = [v for v in self._iou if not np.isnan(v)]
        return {
            "lt_acc": float(np.mean(self._accuracy)) if self._accuracy else None,
            "iou": float(np.mean(defined)) if defined else None,
            "pairs": len(self._accuracy),
            "undefined_iou": len(self._iou) - len(defined),
        }


def _binary(mask):
    mask = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    return mask.astype(np.float64) > 0.5
