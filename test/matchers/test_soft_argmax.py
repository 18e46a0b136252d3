"""Positions read off similarity maps, and the matchers made of them."""

import numpy as np
import pytest
import torch
from published.pose_alignment import transfer_on_canvas

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.readouts import arg_max, kernel_soft_arg_max, soft_arg_max, window_soft_arg_max
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.soft_argmax import SimilarityMatcher
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence
from semalign3d_core.runtime.errors import InputError

READOUTS = ("nearest_neighbour", "soft_argmax", "window_soft_argmax", "kernel_soft_argmax")


def peaked(row, column, rows=9, columns=12, height=1.0):
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return height * torch.exp(-((x - column) ** 2 + (y - row) ** 2) / 4.0)[None]


def evidence(seed, height=60, width=80, cells=20, padding="bottom_right"):
    values = torch.randn(16, cells, cells, generator=torch.Generator().manual_seed(seed))
    features = FeatureMap(torch.nn.functional.normalize(values, dim=0), SquareGrid(height, width, cells, padding))
    return ImageEvidence(features, PinholeCamera.centred(1.5, height, width))


def test_positions_are_x_then_y():
    for position in (arg_max, soft_arg_max, lambda s: window_soft_arg_max(s, 3), lambda s: kernel_soft_arg_max(s, 3)):
        torch.testing.assert_close(position(peaked(4, 7)), torch.tensor([[7.0, 4.0]]), atol=0.02, rtol=0)


def test_soft_positions_lie_between_cells():
    found = window_soft_arg_max(peaked(4, 6.5), 3)
    torch.testing.assert_close(found, torch.tensor([[6.5, 4.0]]), atol=0.02, rtol=0)


def test_zeros_outside_the_window_pull_weak_peaks_and_minus_infinity_does_not():
    weak = peaked(1, 1, height=0.05)
    published, strict = window_soft_arg_max(weak, 2), window_soft_arg_max(weak, 2, outside=-torch.inf)
    assert (published - 1).norm() > 2 * (strict - 1).norm()


def test_positions_are_differentiable():
    similarity = torch.rand(2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: soft_arg_max(s, 0.5), similarity)
    assert torch.autograd.gradcheck(lambda s: window_soft_arg_max(s, 2, 0.5), similarity)
    assert torch.autograd.gradcheck(lambda s: kernel_soft_arg_max(s, 2, 0.5), similarity)


def test_an_image_transferred_to_itself_stays_in_its_cells():
    tokens = torch.nn.functional.normalize(torch.randn(3600, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    keypoints = torch.tensor([[0.0, 0.0], [839.9, 839.9], [100.0, 420.0]])
    centres = (keypoints / 14).floor() * 14 + 7
    assert torch.equal(transfer_on_canvas(tokens, tokens, keypoints, "nearest_neighbour"), centres)
    torch.testing.assert_close(transfer_on_canvas(tokens, tokens, keypoints), centres, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("padding", ["bottom_right", "centre", "canvas"])
def test_matching_an_image_with_itself(name, padding):
    image = evidence(0, padding=padding)
    cells = torch.tensor([[3, 5], [10, 9], [15, 12]])
    points = image.features.grid.cell_to_pixel(cells.float())
    found = MATCHERS[name]().match(image, image, points)
    torch.testing.assert_close(found.points, points, atol=0.2, rtol=0)
    assert found.confidence.min() > 0.999


def test_chunks_do_not_change_matches():
    source, target = evidence(0), evidence(1, 100, 50)
    points = torch.rand(50, 2) * torch.tensor([79.0, 59.0])
    whole = SimilarityMatcher().match(source, target, points)
    parts = SimilarityMatcher(chunk=7).match(source, target, points)
    torch.testing.assert_close(whole.points, parts.points, rtol=0, atol=1e-3)  # pixels: sums of other lengths are rounded otherwise
    assert SimilarityMatcher().match(source, target, points[:0]).points.shape == (0, 2)


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="choose one of"):
        SimilarityMatcher("furthest")
    with pytest.raises(InputError, match="must be positive"):
        SimilarityMatcher(width=0)


def test_arg_max_agrees_with_numpy():
    similarity = np.random.default_rng(0).normal(size=(6, 4, 5)).astype(np.float32)
    rows, columns = np.unravel_index(similarity.reshape(6, -1).argmax(1), (4, 5))
    assert arg_max(torch.from_numpy(similarity)).tolist() == np.stack([columns, rows], 1).tolist()
