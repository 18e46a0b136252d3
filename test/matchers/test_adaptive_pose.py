"""Pose alignment by the instance matching distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from published.pose_alignment import mirror_canvas_keypoints

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid, rotate_points
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.adaptive_pose import AdaptivePoseMatcher, conditional_permutation
from semalign3d_core.matchers.imd import distance_map, masked_imd, mutual_nearest_distance
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence, ImageInput
from semalign3d_core.runtime.errors import InputError


def tokens(seed, count=100, channels=8):
    return torch.nn.functional.normalize(torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_distance_to_oneself_is_zero():
    source, mask = tokens(0), torch.ones(7, 9)
    assert masked_imd(source, source, mask, mask, cells=20) < 1e-5
    assert mutual_nearest_distance(source, source) < 1e-5


@pytest.mark.slow
def test_distance_is_the_mean_of_nearest_distances_inside_the_mask():
    source, target = tokens(0), tokens(1)
    mask = torch.zeros(10, 10)
    mask[:, :4] = 1
    inside = mask.flatten() > 0
    expected = torch.cdist(source[inside], target[inside.flip(0)]).amin(1).mean()
    found = masked_imd(source, target, mask, mask.flip(0, 1), cells=10)
    torch.testing.assert_close(found, expected)


def test_parity_treats_zeros_as_masked():
    source, target = tokens(0).relu(), tokens(1).relu()
    mask = torch.ones(10, 10)
    plain = masked_imd(source, target, mask, mask, cells=10)
    assert masked_imd(source, target, mask, mask, cells=10, parity=True) >= plain
    dense = tokens(2), tokens(3)  # without zeros both agree
    torch.testing.assert_close(masked_imd(*dense, mask, mask, 10), masked_imd(*dense, mask, mask, 10, parity=True))


def test_nearly_equal_features_keep_their_digits():
    source = tokens(0, 400, 64)
    near = torch.nn.functional.normalize(source + 1e-5 * tokens(1, 400, 64), dim=1)
    exact = torch.cdist(source.double(), near.double()).amin(1).mean()
    found = masked_imd(source, near, torch.ones(20, 20), torch.ones(20, 20), cells=20)
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=0)
    torch.testing.assert_close(mutual_nearest_distance(source, near).double(), exact, rtol=2e-3, atol=0)


def test_empty_masks():
    source, full, empty = tokens(0), torch.ones(10, 10), torch.zeros(10, 10)
    assert torch.isnan(masked_imd(source, source, empty, full))
    assert torch.isinf(masked_imd(source, source, full, empty))


def test_pairs_swap_only_where_both_are_visible():
    permutation = torch.tensor([1, 0, 3, 2, 4])
    visible = torch.tensor([True, True, True, False, True])
    assert conditional_permutation(permutation, visible).tolist() == [1, 0, 2, 3, 4]
    keypoints = torch.arange(15.0).reshape(5, 3)
    mirrored = mirror_canvas_keypoints(keypoints, permutation, visible)
    assert mirrored[0].tolist() == [840 - 3, 4, 5] and mirrored[2].tolist() == [840 - 6, 7, 8]


def evidence(values, mask=None):
    cells = values.shape[-1]
    return ImageEvidence(FeatureMap(values, SquareGrid(40, 40, cells)), PinholeCamera.centred(1.5, 40, 40), mask)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_a_target_seen_mirrored_is_matched_through_the_mirror_image(masked):
    values = tokens(5, 100, 12).T.reshape(12, 10, 10).contiguous()
    other = tokens(6, 100, 12).T.reshape(12, 10, 10).contiguous()
    mask = torch.ones(40, 40, dtype=torch.bool) if masked else None
    # the mirror image of the source has exactly the target's features, the source itself has others
    source, mirrored, target = (evidence(v, mask) for v in (other, values, values))
    points = torch.tensor([[10.0, 5.5], [29.0, 21.5]])
    permutation = torch.tensor([1, 0])
    found = AdaptivePoseMatcher().match(source, target, points, mirrored, permutation)
    grid = target.features.grid
    turned = torch.stack([39 - points[:, 0], points[:, 1]], -1)[permutation]
    expected = grid.cell_to_pixel(grid.pixel_to_cell(turned).round())
    torch.testing.assert_close(found.points, expected, atol=0.2, rtol=0)
    # seen as it is, the source decides
    straight = AdaptivePoseMatcher().match(replace(mirrored, name="source"), target, points, source, permutation)
    torch.testing.assert_close(straight.points, grid.cell_to_pixel(grid.pixel_to_cell(points).round()), atol=0.2, rtol=0)


def test_points_whose_partner_is_not_asked_for_stay():
    values, other = (tokens(seed, 100, 12).T.reshape(12, 10, 10).contiguous() for seed in (5, 6))
    source, mirrored, target = (evidence(v) for v in (other, values, values))
    points = torch.tensor([[10.0, 5.5], [29.0, 21.5]])
    # as an evaluation calls it: the first point is its own mirror image, the partner of the second is not among the points
    found = AdaptivePoseMatcher().match(source, target, points, mirrored, torch.tensor([0, 1]), torch.tensor([True, False]))
    plain = AdaptivePoseMatcher().match(source, target, points, source, torch.tensor([0, 1]))
    assert AdaptivePoseMatcher.uses_mirror
    assert not torch.equal(found.points[0], plain.points[0]) and torch.equal(found.points[1], plain.points[1])


def test_what_pose_alignment_needs_is_said():
    image = evidence(tokens(5, 100, 12).T.reshape(12, 10, 10))
    with pytest.raises(InputError, match="mirror permutation"):
        MATCHERS["adaptive_pose"]().match(image, image, torch.zeros(1, 2))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_target_seen_turned_is_matched_through_the_turned_image(quarters):
    values = torch.nn.functional.normalize(torch.randn(16, 12, 12), dim=0)
    source = evidence(values)
    turned = [evidence(values.rot90(q, (1, 2))) for q in (1, 2, 3)]
    mirrored = evidence(values.flip(2) * 0 + torch.nn.functional.normalize(torch.randn(16, 12, 12), dim=0))
    points = source.features.grid.cell_to_pixel(torch.tensor([[2.0, 3.0], [7.0, 10.0]]))
    target, matcher = turned[quarters - 1], AdaptivePoseMatcher(use_masks=False, quarters=(1, 2, 3))
    permutation = torch.arange(2)
    found = matcher.match(source, target, points, mirrored, permutation, None, turned).points
    height, width = source.features.grid.height, source.features.grid.width
    expected = rotate_points(points, height, width, quarters)
    torch.testing.assert_close(found, expected, atol=0.5, rtol=0)
    plain = AdaptivePoseMatcher(use_masks=False).match(source, source, points, mirrored, permutation).points
    torch.testing.assert_close(plain, points, atol=0.5, rtol=0)


def test_points_and_squares_turn_with_the_picture():
    picture = np.zeros((5, 9), np.uint8)
    picture[1, 7] = 1
    for quarters in range(5):
        row, column = np.argwhere(np.rot90(picture, quarters))[0]
        assert rotate_points(torch.tensor([7.0, 1.0]), 5, 9, quarters).tolist() == [column, row]
    image = ImageInput(np.repeat(picture[..., None], 3, 2), window=(6, 0, 3))
    seen = image.turn(1)
    assert (seen.height, seen.width, seen.quarters) == (9, 5, 1)
    assert np.array_equal(seen.seen(), np.rot90(image.seen(), 1))
    assert seen.turn(3).quarters == 0 and np.array_equal(seen.turn(3).rgb, image.rgb) and seen.turn(3).window == image.window


def test_the_map_of_distances_has_the_distance_as_its_mean():
    source, target, mask = tokens(0), tokens(1), torch.zeros(10, 10)
    mask[2:6, 3:9] = 1
    values = distance_map(source, target, mask, torch.ones(4, 4), cells=10)
    assert torch.equal(torch.isfinite(values), mask > 0)
    torch.testing.assert_close(values[mask > 0].mean(), masked_imd(source, target, mask, torch.ones(4, 4), cells=10))
    assert distance_map(source, target, mask, torch.zeros(4, 4), cells=10).isnan().all()
