"""How a position is read off a map of similarities: arg-max, soft arg-max, window and kernel soft arg-max.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), section "inference"; positions are (x, y) in cells, cell centres
are integers. Similarities are cosines of unit-norm features; the temperature of all published results is 0.02.
"""

import torch

TEMPERATURE = 0.02


def arg_max(similarity: torch.Tensor) -> torch.Tensor:
    """Positions (Q, 2) float of the largest value of each map of ``similarity`` (Q, H, W)."""
    index = similarity.flatten(1).argmax(dim=1)
    columns = similarity.shape[2]
    return torch.stack([index % columns, index // columns], dim=-1).to(similarity.dtype)


def soft_arg_max(similarity: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Expected positions (Q, 2) under ``softmax(similarity / temperature)`` over all cells of ``similarity`` (Q, H, W)."""
    _, rows, columns = similarity.shape
    weight = torch.softmax(similarity.flatten(1) / temperature, dim=1).reshape(similarity.shape)
    x = weight.sum(1) @ torch.arange(columns, dtype=weight.dtype, device=weight.device)
    y = weight.sum(2) @ torch.arange(rows, dtype=weight.dtype, device=weight.device)
    return torch.stack([x, y], dim=-1)


def window_soft_arg_max(similarity: torch.Tensor, half_width: int, temperature: float = TEMPERATURE, outside: float = 0.0) -> torch.Tensor:
    """Soft arg-max (Q, 2) in the window of ``half_width`` cells around the arg-max of ``similarity`` (Q, H, W).

    outside: value of the cells outside the window. Published results set them to 0, so that they keep the weight
    ``exp(0 / temperature)``; ``-inf`` leaves them out.
    """
    dx, dy = _offsets_from_peak(similarity)
    inside = (dx.abs() <= half_width)[:, None, :] & (dy.abs() <= half_width)[:, :, None]
    return soft_arg_max(torch.where(inside, similarity, outside), temperature)


def kernel_soft_arg_max(similarity: torch.Tensor, sigma: int, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Soft arg-max (Q, 2) of ``similarity`` (Q, H, W) times a Gaussian of ``sigma`` cells around its arg-max."""
    dx, dy = _offsets_from_peak(similarity)
    kernel = torch.exp(-(dx.square()[:, None, :] + dy.square()[:, :, None]) / (2 * sigma**2))
    return soft_arg_max(similarity * kernel, temperature)


def _offsets_from_peak(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    peak = arg_max(similarity)
    x = torch.arange(similarity.shape[2], dtype=similarity.dtype, device=similarity.device)
    y = torch.arange(similarity.shape[1], dtype=similarity.dtype, device=similarity.device)
    return x - peak[:, :1], y - peak[:, 1:]


# how a position is read off a similarity map: name -> function(similarity (Q, H, W), width in cells) -> (Q, 2)
READOUTS = {
    "nearest_neighbour": lambda similarity, width: arg_max(similarity),
    "soft_argmax": lambda similarity, width: soft_arg_max(similarity),
    "window_soft_argmax": window_soft_arg_max,
    "kernel_soft_argmax": kernel_soft_arg_max,
}
