"""Mask transfer (Caltech-101 protocol of WeakAlign and SFNet): label-transfer accuracy and intersection over union."""

import numpy as np
import torch

from semalign3d_core.runtime.errors import InputError


def warp_mask(mask: np.ndarray | torch.Tensor, grid: np.ndarray | torch.Tensor, align_corners: bool = True) -> torch.Tensor:
    """Samples a source ``mask`` (h, w) bilinearly, zero outside, at ``grid`` (H, W, 2) of x, y in [-1, 1] of the source.

    Returns (H, W) float32. The published grids are ``linspace(-1, 1)``, hence ``align_corners``.
    """
    mask = torch.as_tensor(mask, dtype=torch.float32)
    grid = torch.as_tensor(grid, dtype=torch.float32, device=mask.device)
    warped = torch.nn.functional.grid_sample(mask[None, None], grid[None], padding_mode="zeros", align_corners=align_corners)
    return warped[0, 0]


def label_transfer_accuracy(transferred: np.ndarray | torch.Tensor, truth: np.ndarray) -> float:
    """LT-ACC: share of equal pixels over the whole target image. Both (H, W), binarised at > 0.5."""
    a, b = _pair(transferred, truth)
    return float((a == b).mean())


def intersection_over_union(transferred: np.ndarray | torch.Tensor, truth: np.ndarray) -> float:
    """IoU of two masks (H, W), binarised at > 0.5; NaN when both are empty."""
    a, b = _pair(transferred, truth)
    union = np.sum(a | b)
    return float(np.sum(a & b) / union) if union else float("nan")


class MaskTransferAccumulator:
    """Means over pairs. A pair with an undefined IoU (both masks empty) is left out of the IoU mean, as published, and counted."""

    def __init__(self) -> None:
        self._accuracy: list[float] = []
        self._iou: list[float] = []

    def add(self, transferred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
        """Adds a pair of (H, W) masks on the target image; returns its (LT-ACC, IoU)."""
        return self.add_scores(label_transfer_accuracy(transferred, truth), intersection_over_union(transferred, truth))

    def add_scores(self, accuracy: float, iou: float) -> tuple[float, float]:
        """As :meth:`add`, of known scores; a pair that could not be evaluated counts with (0, 0)."""
        self._accuracy.append(accuracy)
        self._iou.append(iou)
        return accuracy, iou

    def summary(self) -> dict[str, float | None]:
        """``{"lt_acc", "iou", "pairs", "undefined_iou"}``, scores in [0, 1] as published; None without pairs."""
        defined = [v for v in self._iou if not np.isnan(v)]
        return {
            "lt_acc": float(np.mean(self._accuracy)) if self._accuracy else None,
            "iou": float(np.mean(defined)) if defined else None,
            "pairs": len(self._accuracy),
            "undefined_iou": len(self._iou) - len(defined),
        }


def lattice(height: int, width: int, cells: int) -> np.ndarray:
    """Pixels (cells * cells, 2) float32 evenly spread over an image from corner to corner, row-major."""
    x, y = np.linspace(0, width - 1, cells, dtype=np.float32), np.linspace(0, height - 1, cells, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def sampling_grid(points: np.ndarray | torch.Tensor, target_size: tuple[int, int], source_size: tuple[int, int]) -> torch.Tensor:
    """Sampling grid (H, W, 2) for :func:`warp_mask` from where the points of a :func:`lattice` of the target are in the source.

    points: (cells * cells, 2) pixels of the source; target_size, source_size: (height, width). In between, the grid is bilinear, as
    published. Points that are not finite lie outside the source.
    """
    places = torch.as_tensor(points, dtype=torch.float32)
    cells = round(len(places) ** 0.5)
    extent = torch.tensor([max(source_size[1] - 1, 1), max(source_size[0] - 1, 1)])
    normalised = torch.where(torch.isfinite(places), 2 * places / extent - 1, -2.0).reshape(1, cells, cells, 2).permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(normalised, size=target_size, mode="bilinear", align_corners=True)[0].permute(1, 2, 0)


def _pair(transferred, truth):
    a, b = _binary(transferred), _binary(truth)
    if a.shape != b.shape:
        raise InputError(f"masks of {a.shape} and {b.shape} pixels cannot be compared: both belong to the target image")
    return a, b


def _binary(mask):
    mask = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    return mask.astype(np.float64) > 0.5
