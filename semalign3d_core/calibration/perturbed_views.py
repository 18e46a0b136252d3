"""Harder and impossible versions of training images, on which a confidence is learned."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d

from semalign3d_core.geometry.mask_field import mask_box
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence

CUT = 0.35  # share of the object's box that a cut mask lacks
NOISE = 1.0  # norm of the added feature noise relative to the features
TILES = 4  # along each side, that scrambling moves as a whole
FILLINGS = 12  # pieces of the surroundings that take the place of a removed object

Change = Callable[[ImageEvidence, Generator], ImageEvidence]


def with_noisy_features(evidence: ImageEvidence, generator: Generator, strength: float = NOISE) -> ImageEvidence:
    """Evidence with white noise of ``strength`` times their own norm added to the features."""
    values = evidence.features.values
    noisy = torch.randn(values.shape, generator=generator).to(values).mul_(strength / len(values) ** 0.5).add_(values)
    return _with_features(evidence, noisy.div_(torch.linalg.vector_norm(noisy, dim=0).clamp(min=1e-12)))


def with_cut_mask(evidence: ImageEvidence, generator: Generator, share: float = CUT) -> ImageEvidence:
    """Evidence whose mask lacks a share of the object at one side, as if another thing were there; unchanged without a mask."""
    lacking = _side(evidence, generator, share)
    mask = None if lacking is None or evidence.mask is None else evidence.mask & ~lacking
    return evidence if mask is None or not mask.any() else replace(evidence, mask=mask)


def behind_something(evidence: ImageEvidence, generator: Generator, share: float = CUT) -> ImageEvidence:
    """Evidence of which something hides a share of the object at one side: there are other features, and no mask."""
    lacking = _side(evidence, generator, share)
    if lacking is None or evidence.mask is None or not (evidence.mask & ~lacking).any():
        return evidence
    hidden = evidence.features.grid.cells_inside(lacking).to(evidence.features.values.device) > 0.3
    other = rolled(evidence, generator).features.values
    return replace(_with_features(evidence, torch.where(hidden, other, evidence.features.values)), mask=evidence.mask & ~lacking)


def _side(evidence: ImageEvidence, generator: Generator, share: float) -> Tensor | None:
    """(h, w) bool: a strip of the image that holds a share of the object's box at a random side; None without a mask."""
    if evidence.mask is None or not evidence.mask.any():
        return None
    box = (mask_box(evidence.mask.cpu().numpy()) + 0.5).astype(int)  # first pixels, and one past the last
    strip, side = torch.zeros_like(evidence.mask), int(torch.randint(4, (), generator=generator))
    axis, (low, high) = (strip, box[1::2].tolist()) if side < 2 else (strip.T, box[::2].tolist())
    cut = round(share * (high - low))
    axis[slice(low, low + cut) if side % 2 else slice(high - cut, high)] = True
    return strip


def without_depth(evidence: ImageEvidence) -> ImageEvidence:
    """Evidence without a depth map."""
    return replace(evidence, depth=None)


def without_mask(evidence: ImageEvidence, generator: Generator) -> ImageEvidence:
    """Evidence without a mask."""
    return replace(evidence, mask=None)


def scrambled(evidence: ImageEvidence, generator: Generator) -> ImageEvidence:
    """Evidence of no object: tiles of cells change places all over the image, the mask stays.

    Parts and the mask survive, which makes it the hardest of the impossible images.
    """
    cells = _cell_numbers(evidence)
    side = len(cells) // TILES
    used = side * TILES
    tiles = cells[:used, :used].reshape(TILES, side, TILES, side).permute(0, 2, 1, 3).flatten(0, 1)
    tiles = tiles[torch.randperm(TILES * TILES, generator=generator).to(tiles.device)].flip(-1, -2)
    mixed = cells.clone()
    mixed[:used, :used] = tiles.unflatten(0, (TILES, TILES)).permute(0, 2, 1, 3).reshape(used, used)
    return _from_cells(evidence, mixed)


def rolled(evidence: ImageEvidence, generator: Generator) -> ImageEvidence:
    """Evidence whose mask lies on other things: the features are turned upside down and moved by half the image."""
    cells = _cell_numbers(evidence)
    half = len(cells) // 2
    return _from_cells(evidence, cells.flip(0).roll((half, half), (0, 1)))


def beside_the_object(evidence: ImageEvidence, generator: Generator) -> ImageEvidence:
    """Evidence whose mask has the object's shape and lies where the object is not, as far as the image has room."""
    if evidence.mask is None or not evidence.mask.any():
        return rolled(evidence, generator)
    height, width = evidence.mask.shape
    shifts = [(height * down // 6, width * right // 6) for down in (0, 2, 3) for right in (0, 2, 3, 4)]
    free = evidence.features.grid.covered(evidence.mask.device) & ~evidence.mask
    largest = max((evidence.mask.roll(shift, (0, 1)) & free for shift in shifts), key=lambda mask: int(mask.sum()))
    return replace(evidence, mask=largest) if largest.any() else rolled(evidence, generator)


def removed(evidence: ImageEvidence, generator: Generator) -> ImageEvidence:
    """Evidence of which the object is gone: what lies around it fills its place, the mask stays; unchanged without a mask."""
    if evidence.mask is None or not evidence.mask.any():
        return evidence
    values, grid = evidence.features.values, evidence.features.grid
    touched = grid.cells_inside(evidence.mask).to(values) > 0
    inside = max_pool2d(touched[None].to(values), 3, 1, 1)[0] > 0  # features of the cells beside it know of it
    outside = (~inside).flatten().nonzero()[:, 0]
    if not len(outside):
        return evidence
    cells, source = values.shape[-1], _cell_numbers(evidence)
    for _ in range(FILLINGS):  # whole pieces of the surroundings, so that neighbours still resemble each other
        shift = torch.randint(cells, (2,), generator=generator).tolist()
        fits = inside & ~inside.roll(shift, (0, 1))
        source = torch.where(fits, _cell_numbers(evidence).roll(shift, (0, 1)), source)
        inside = inside & ~fits
    left = inside.flatten().nonzero()[:, 0]
    source.view(-1)[left] = outside[torch.randint(len(outside), (len(left),), generator=generator).to(outside)]
    return _from_cells(evidence, source)


def nothing_at_all(evidence: ImageEvidence, generator: Generator) -> ImageEvidence:
    """Evidence of which the object is gone, and which has no mask."""
    gone = removed(evidence, generator)
    return gone if gone is evidence else replace(gone, mask=None)


def _cell_numbers(evidence: ImageEvidence) -> Tensor:
    """(cells, cells) int64: row-major numbers of the cells."""
    values = evidence.features.values
    return torch.arange(values[0].numel(), device=values.device).view_as(values[0])


def _from_cells(evidence: ImageEvidence, source: Tensor) -> ImageEvidence:
    """Evidence whose cells have the features of those with the numbers (cells, cells) in ``source``."""
    values = evidence.features.values
    return _with_features(evidence, values.flatten(1).index_select(1, source.flatten()).view_as(values))


def _with_features(evidence: ImageEvidence, values: Tensor) -> ImageEvidence:
    return replace(evidence, features=FeatureMap(values, evidence.features.grid))


def _some(change: Callable[[ImageEvidence, Generator, float], ImageEvidence], low: float, high: float) -> Change:
    """The change with a random strength."""
    return lambda evidence, generator: change(evidence, generator, low + (high - low) * float(torch.rand((), generator=generator)))


# Every training image is seen as it is and in harder versions, from hardly to hopelessly hard; and in versions that must be rejected.
HARDER: tuple[Change, ...] = (
    _some(with_noisy_features, 0.5, 3.0), _some(behind_something, 0.2, 0.7), without_mask, _some(with_cut_mask, 0.2, 0.6)
)  # fmt: skip
IMPOSSIBLE: tuple[Change, ...] = (scrambled, nothing_at_all, rolled, removed, beside_the_object)
