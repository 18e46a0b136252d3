"""The losses of a training pair: sparse contrastive, dense by soft arg-max, and their pose variants.

Source: GeoAware-SC (CVPR 2024), section 3.3. Tokens are (cells * cells, C), row-major, unit norm; keypoints live on the 840 canvas,
displacements and thresholds are in cells.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semalign3d_core.geometry.image_grid import CANVAS_SIDE, patch_index
from semalign3d_core.geometry.readouts import TEMPERATURE, soft_arg_max, window_soft_arg_max


@dataclass(frozen=True)
class TrainingImage:
    """One image of a pair, or its mirror image.

    tokens:    (cells * cells, C) unit norm
    keypoints: (K, 3) canvas x, y, visibility
    threshold: longest side of the object's box, in cells: what the perturbation scales with
    """

    tokens: Tensor
    keypoints: Tensor
    threshold: float

    @property
    def cells(self) -> int:
        """Side of the grid."""
        return round(len(self.tokens) ** 0.5)

    def indices(self, rows: Tensor) -> Tensor:
        """Row-major cells (M,) in which the keypoints ``rows`` (M,) lie."""
        return patch_index(self.keypoints[rows], CANVAS_SIDE, self.cells)


@dataclass(frozen=True)
class LossConfig:
    """Which losses a pair has.

    dense:   with the dense loss (without it, the pose variants have the contrastive one)
    noise:   perturbation of the dense targets: standard deviation in half box sides
    window:  half width in cells of the window of the training's soft arg-max; 0: all cells, as published
    variants: with the pose variants below;  single, double, own: weights of the flipped source against the target, of both flipped, and of
    the flipped source against the source itself. The paper lists all three; the shipped training never computes the single flip (weight 0).
    """

    dense: bool = True
    noise: float = 0.1
    window: int = 0
    variants: bool = True
    single: float = 1.0
    double: float = 1.0
    own: float = 0.25


def common_rows(source: TrainingImage, target: TrainingImage) -> Tensor:
    """Keypoints (M,) int64 that both images show; rows that only one of them has are left out."""
    count = min(len(source.keypoints), len(target.keypoints))
    return (source.keypoints[:count, 2] * target.keypoints[:count, 2] > 0).nonzero()[:, 0]


def mirrored_keypoints(keypoints: Tensor, permutation: Tensor) -> Tensor:
    """Keypoints (P, 3) of the mirrored canvas: ``x -> 840 - x``, every label exchanged with its partner (P,), seen or not."""
    mirrored = keypoints.clone()
    mirrored[:, 0] = CANVAS_SIDE - mirrored[:, 0]
    return mirrored[permutation]


def contrastive_loss(source: TrainingImage, target: TrainingImage, logit_scale: Tensor) -> Tensor:
    """Symmetric cross entropy of the similarities of common keypoints, each other one being a negative (section 3.3, sparse loss).

    logit_scale: logarithm of what similarities are multiplied with (0-d, learned).
    """
    rows = common_rows(source, target)
    similarity = source.tokens[source.indices(rows)] @ target.tokens[target.indices(rows)].T
    logits, label = logit_scale.exp() * similarity, torch.arange(len(rows), device=similarity.device)
    return 0.5 * (torch.nn.functional.cross_entropy(logits, label) + torch.nn.functional.cross_entropy(logits.T, label))


def displacement(source: TrainingImage, target: TrainingImage, indices: Tensor, window: int = 0, grid: Tensor | None = None) -> Tensor:
    """Soft arg-max position in the target minus the source cell, (M, 2) in cells, of the source's cells ``indices`` (M,).

    window: see :class:`LossConfig`;  grid: (2, cells) coordinates of columns and rows in [-1, 1] that the expectation is over;
    None: the exact ones.
    """
    cells = source.cells
    similarity = (source.tokens[indices] @ target.tokens.T).reshape(-1, target.cells, target.cells)
    if window:
        position = window_soft_arg_max(similarity, window)
    elif grid is None:
        position = soft_arg_max(similarity)
    else:
        weight = torch.softmax(similarity.flatten(1) / TEMPERATURE, dim=1).reshape(similarity.shape)
        x, y = (grid + 1) * (target.cells - 1) / 2
        position = torch.stack([weight.sum(1) @ x, weight.sum(2) @ y], dim=-1)
    return position - torch.stack([indices % cells, indices // cells], dim=-1)


def true_displacement(source: TrainingImage, target: TrainingImage, rows: Tensor) -> Tensor:
    """(M, 2) in cells: difference of the annotated positions.

    It is not rounded while the predicted one starts at a whole cell, so that positions are learned half a cell
    before the keypoint on average, which reading positions as cell centres undoes.
    """
    return (target.keypoints[rows, :2] - source.keypoints[rows, :2]) * (source.cells / CANVAS_SIDE)


def dense_loss(
    source: TrainingImage, target: TrainingImage, config: LossConfig, draw: Callable[[int], Tensor], grid: Tensor | None = None
) -> Tensor:
    """Mean distance in cells of predicted to perturbed true displacements of the common keypoints (section 3.3, dense loss).

    draw: function(M) -> (M, 2) standard normal numbers; not called without noise.
    """
    rows = common_rows(source, target)
    wanted = true_displacement(source, target, rows)
    if config.noise:
        wanted = wanted + config.noise * target.threshold / 2 * draw(len(rows)).to(wanted)
    return (displacement(source, target, source.indices(rows), config.window, grid) - wanted).norm(dim=1).mean()


def pair_loss(
    images: tuple[TrainingImage, ...],
    permutation: Tensor,
    config: LossConfig,
    logit_scale: Tensor,
    draw: Callable[[int], Tensor],
    grid: Tensor | None = None,
) -> dict[str, Tensor]:
    """The losses of a pair: ``loss`` is the weighted mean of the terms there are, beside it each term before weighting.

    images: source, target and, with pose variants, the tokens of both mirror images as two further images, whose keypoints are made here
    permutation: (P,) label that each label becomes in the mirror image;  draw, grid: see :func:`dense_loss`
    Returns {} for a pair without common keypoints.
    """
    source, target, *mirrored = images
    terms: list[tuple[str, TrainingImage, TrainingImage, float]] = [("base", source, target, 1.0)]
    if config.variants and mirrored:
        turned = [replace(m, keypoints=mirrored_keypoints(i.keypoints, permutation)) for m, i in zip(mirrored, images, strict=False)]
        terms += [("single", turned[0], target, config.single), ("double", turned[0], turned[1], config.double)]
        terms.append(("self", turned[0], source, config.own))
    losses: dict[str, Tensor] = {}
    total, weights = torch.zeros(()).to(source.tokens), 0.0
    for name, a, b, weight in terms:
        if not weight or not len(common_rows(a, b)):
            continue
        value = torch.zeros(()).to(total)
        if name == "base" or not config.dense:
            losses["sparse" if name == "base" else name] = value = contrastive_loss(a, b, logit_scale)
        if config.dense:
            losses["dense" if name == "base" else name] = dense = dense_loss(a, b, config, draw, grid)
            value = value + dense
        total, weights = total + weight * value, weights + weight
    return {"loss": total / weights, **losses} if weights else {}
