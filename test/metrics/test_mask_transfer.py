import numpy as np
import pytest
import torch

from semalign3d_core.metrics.grid_transfer import inner_grid, pair_pck, transfer_points
from semalign3d_core.metrics.mask_transfer import (
    MaskTransferAccumulator,
    intersection_over_union,
    label_transfer_accuracy,
    warp_mask,
)
from semalign3d_core.runtime.errors import InputError


def identity_grid(height, width):
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y], dim=-1)


def test_the_identity_grid_returns_the_mask_and_a_shift_shifts_it():
    mask = torch.zeros(9, 11)
    mask[2:5, 3:7] = 1
    assert torch.allclose(warp_mask(mask, identity_grid(9, 11)), mask, atol=1e-6)
    shifted = warp_mask(mask, identity_grid(9, 11) + torch.tensor([2 * 2 / 10, 0.0]))  # two columns
    assert torch.allclose(shifted[:, :-2], mask[:, 2:], atol=1e-5)
    assert shifted[:, -2:].abs().max() < 1e-5, "outside the source there is nothing"


def test_scores_of_two_overlapping_squares():
    a, b = np.zeros((10, 10)), np.zeros((10, 10))
    a[0:4, 0:4], b[2:6, 0:4] = 1, 1
    assert intersection_over_union(a, b) == pytest.approx(8 / 24)
    assert label_transfer_accuracy(a, b) == pytest.approx(1 - 16 / 100)
    assert intersection_over_union(a, a) == 1 and label_transfer_accuracy(a, a) == 1


def test_an_undefined_iou_is_counted_and_not_averaged():
    accumulator, empty, full = MaskTransferAccumulator(), np.zeros((4, 4)), np.ones((4, 4))
    accumulator.add(empty, empty)
    accumulator.add(full, full)
    accumulator.add(empty, full)
    assert accumulator.summary() == {"lt_acc": pytest.approx(2 / 3), "iou": 0.5, "pairs": 3, "undefined_iou": 1}
    assert MaskTransferAccumulator().summary()["iou"] is None


def test_points_of_an_unpadded_identity_stay_where_they_are():
    grid = identity_grid(60, 80)
    points = torch.tensor([[0.0, 0.0], [79.4, 12.6], [80.0, 60.0], [-1.0, -1.0]])
    carried = transfer_points(grid, points, (60, 80))
    assert torch.allclose(carried, torch.tensor([[0.0, 0.0], [79.0, 13.0], [79.0, 59.0], [0.0, 0.0]]), atol=1e-4)


def test_the_padded_ring_is_dropped_and_the_rest_stretched():
    inner = inner_grid(identity_grid(20, 20) * 0.9, 20, 30)
    assert inner.shape == (20, 30, 2)
    assert inner[0, 0].tolist() == pytest.approx([-17 / 19] * 2, abs=1e-6)


def test_pair_pck_is_inclusive_and_ignores_padding():
    truth = np.array([[0.0, 0.0], [10.0, 0.0], [-1.0, -1.0]])
    assert pair_pck(np.array([[3.0, 4.0], [10.0, 5.1], [0.0, 0.0]]), truth, 50.0, 0.1) == 0.5
    assert np.isnan(pair_pck(truth[2:], truth[2:], 50.0, 0.1))


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"\(4, 4\) and \(4, 5\)"):
        intersection_over_union(np.ones((4, 4)), np.ones((4, 5)))
