"""Harder and impossible versions of training images, on which a confidence is learned."""

from dataclasses import replace

import torch
from torch.nn.functional import normalize

from semalign3d_core.evidence import FeatureMap

CUT = 0.35  # share of the object's box that a cut mask lacks
NOISE = 1.0  # norm of the added feature noise relative to the features
BLOCKS = 4  # along each side, that scrambling moves as a whole


def with_noisy_features(evidence, generator):
    """Evidence whose features carry white noise of their own norm."""
    values = evidence.features.values
    noise = torch.randn(values.shape, generator=generator).to(values) * NOISE / len(values) ** 0.5
    return _with_features(evidence, normalize(values + noise, dim=0))


def with_cut_mask(evidence, generator):
    """Evidence whose mask lacks one side of the object, as behind an occluder; unchanged without a mask."""
    if evidence.mask is None or not evidence.mask.any():
        return evidence
    rows, columns = evidence.mask.nonzero().unbind(1)
    mask, side = evidence.mask.clone(), int(torch.randint(4, (), generator=generator))
    axis, positions = (mask, rows) if side < 2 else (mask.T, columns)
    low, high = int(positions.min()), int(positions.max()) + 1
    cut = round(CUT * (high - low))
    axis[slice(low, low + cut) if side % 2 else slice(high - cut, high)] = False
    return replace(evidence, mask=mask) if mask.any() else evidence


def without_mask(evidence, generator):
    """Evidence without a mask."""
    return replace(evidence, mask=None)


def scrambled(evidence, generator):
    """Evidence of no object: blocks of cells change places all over the image, the mask stays.

    Parts and the mask survive, which makes it the hardest of the impossible images.
    """
    values = evidence.features.values
    channels, cells, _ = values.shape
    side = cells // BLOCKS
    used = side * BLOCKS
    blocks = values[:, :used, :used].reshape(channels, BLOCKS, side, BLOCKS, side).permute(1, 3, 0, 2, 4).flatten(0, 1)
    blocks = blocks[torch.randperm(BLOCKS * BLOCKS, generator=generator)].flip(-1, -2)
    mixed = values.clone()
    mixed[:, :used, :used] = blocks.unflatten(0, (BLOCKS, BLOCKS)).permute(2, 0, 3, 1, 4).reshape(channels, used, used)
    return _with_features(evidence, mixed)


def rolled(evidence, generator):
    """Evidence whose mask lies on other things: the features are turned upside down and moved by half the image."""
    values = evidence.features.values
    half = values.shape[-1] // 2
    return _with_features(evidence, values.flip(1).roll((half, half), (1, 2)))


def _with_features(evidence, values):
    return replace(evidence, features=FeatureMap(values, evidence.features.grid))


# Every training image is seen as it is and in one of the harder versions; and in one version that must be rejected.
HARDER = (with_noisy_features, with_cut_mask, without_mask)
IMPOSSIBLE = (scrambled, rolled)
