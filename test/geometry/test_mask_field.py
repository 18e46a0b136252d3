"""Boxes and squares around a mask."""

import math

import numpy as np
import pytest
import torch

from semalign3d_core.geometry.image_grid import cut_square
from semalign3d_core.geometry.mask_field import mask_box, square_around


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.33])
def test_the_square_around_an_object(margin):
    mask = np.zeros((70, 90), dtype=bool)
    mask[12:31, 40:75] = True
    left, top, side = square_around(mask_box(mask), margin)
    assert side == math.ceil(35 * (1 + 2 * margin))
    assert abs(left + side / 2 - 57.5) <= 0.5 and abs(top + side / 2 - 21.5) <= 0.5  # in the middle, but for a pixel
    assert cut_square(torch.from_numpy(mask)[None], (left, top, side)).sum() == mask.sum()
