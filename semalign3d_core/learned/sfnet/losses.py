"""The three losses: what is the object in one image must be it in the other, there and back must meet, neighbours must move alike.

Source: SFNet (CVPR 2019), section 3.2. Masks are (B, 1, h, w) of zeros and ones, flows and grids as in :mod:`.network`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import grid_sample, pad

from semalign3d_core.learned.sfnet.network import Matching


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms (Eq. 6), and which smoothness is meant.

    published: adds both channels of a flow before it takes differences, as the authors' code does (opposite differences cancel); else the
        L1 norm of the full gradient, as the paper says (Eq. 10)
    """

    mask: float = 3.0
    flow: float = 16.0
    smooth: float = 0.5
    published: bool = True


@dataclass(frozen=True)
class Direction:
    """One direction of a pair, on the positions of the image that it starts from.

    mask: its own (B, 1, h, w);  seen_mask: the other image's mask through the grid;  flow: on the object (B, 2, h, w);
    returning: minus the opposite flow through the grid, on the object;  differences: of the flow (B, 2, h, w), see :func:`smoothness`
    """

    mask: torch.Tensor
    seen_mask: torch.Tensor
    flow: torch.Tensor
    returning: torch.Tensor
    differences: torch.Tensor


def directions(
    matching: Matching, source_mask: torch.Tensor, target_mask: torch.Tensor, align_corners: bool = True, published: bool = True
) -> list[Direction]:
    """The two :class:`Direction` of a :class:`Matching`, S to T first. their code has ``align_corners`` False since PyTorch 1.3."""
    masks = source_mask, target_mask
    found = []
    for way, grid, flow in zip((0, 1), matching.grids, matching.flows, strict=True):
        mask, other = masks[way], 1 - way
        returning = -mask * grid_sample(matching.flows[other], grid, align_corners=align_corners)
        seen = grid_sample(masks[other], grid, align_corners=align_corners)
        found.append(Direction(mask, seen, mask * flow, returning, smoothness(flow, mask, published)))
    return found


def smoothness(flow: torch.Tensor, mask: torch.Tensor, published: bool = True) -> torch.Tensor:
    """Central differences (B, 2, h, w) of ``flow`` along x and y, without sign, on the object; beyond the border the flow is zero.

    published: of the sum of both channels; else of each channel, then added.
    """
    field = flow.sum(1, keepdim=True) if published else flow
    wide = pad(field, (1, 1, 1, 1))
    dx = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2
    dy = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2
    return torch.cat([difference.abs().sum(1, keepdim=True) * mask for difference in (dx, dy)], dim=1)


def loss_terms(both: Sequence[Direction], weights: LossWeights) -> dict[str, torch.Tensor]:
    """{"mask", "flow", "smooth"}: the weighted terms of two :class:`Direction`, sums over the batch divided by its size; add them up."""
    mask = flow = smooth = torch.zeros(())
    for way in both:
        count = 1 + way.mask.sum((1, 2, 3))
        mask = mask.to(count) + (way.seen_mask - way.mask).square().mean((1, 2, 3))  # Eq. 7
        flow = flow.to(count) + (way.flow - way.returning).square().sum((1, 2, 3)) / count  # Eq. 8 and 9
        smooth = smooth.to(count) + way.differences.sum((1, 2, 3)) / count  # Eq. 10
    return {"mask": weights.mask * mask.mean(), "flow": weights.flow * flow.mean(), "smooth": weights.smooth * smooth.mean()}
