"""Barycentric maps, affine weights, hulls, clusters, keypoint correction, semantics: properties."""

import numpy as np
import pytest
import torch
from published import topology
from published.barycentric import carry

from semalign3d_core.category.annotations.checks import checked_keypoints, images_per_label, trust_ratio
from semalign3d_core.category.annotations.correction import correct_keypoints, depth_pixels, erode, nearest_mask_pixels
from semalign3d_core.category.published import barycentric
from semalign3d_core.category.statistics.geometric_features import edge_pairs, tetrahedra
from semalign3d_core.category.surface import dense_cloud
from semalign3d_core.category.surface.dense_cloud import Samples, k_means, supported_clusters, within_hull
from semalign3d_core.category.surface.point_features import feature_statistics
from semalign3d_core.category.surface.surface_map import affine_weights, best_plane, is_flat, surface_map
from semalign3d_core.datasets.records import ImageRecord


@pytest.fixture
def skeleton():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()


def test_affine_weights_reproduce_points_and_sum_to_one(skeleton):
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double()
    weights = affine_weights(points, skeleton)
    torch.testing.assert_close(weights @ skeleton, points)
    torch.testing.assert_close(weights.sum(1), torch.ones(50).double())
    moved = skeleton @ torch.randn(3, 3).double() + 2
    torch.testing.assert_close(affine_weights(points, skeleton) @ moved, weights @ moved)


def test_affine_weights_favour_near_keypoints(skeleton):
    weights = affine_weights(skeleton, skeleton)
    assert (weights.diagonal() > 0.5).all() and torch.equal(weights.argmax(1), torch.arange(8))


def test_affine_weights_of_flat_keypoints_project_to_their_plane(skeleton):
    flat = skeleton * torch.tensor([1.0, 1, 0])
    weights = affine_weights(torch.tensor([[0.1, 0.2, 0.5]]).double(), flat)
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights @ flat, torch.tensor([[0.1, 0.2, 0.0]]).double(), atol=1e-6, rtol=0)


def flat_category(thickness=0.0):
    """Keypoints (8, 3) in a turned plane up to ``thickness``, and points (40, 3) off it."""
    generator = torch.Generator().manual_seed(5)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator).double())[0]
    keypoints = torch.rand(8, 3, generator=generator).double() - 0.5
    keypoints[:, 2] *= thickness
    return keypoints @ turn.T + 0.3, (torch.rand(40, 3, generator=generator).double() - 0.5) @ turn.T + 0.3


@pytest.mark.parametrize("thickness", [0.0, 0.02])
def test_surface_of_flat_keypoints_has_depth_and_follows_them(thickness):
    keypoints, points = flat_category(thickness)
    surface = surface_map(points, keypoints, best_plane(keypoints))
    torch.testing.assert_close(surface @ keypoints, points)
    torch.testing.assert_close(surface.weights.sum(1), torch.ones(40).double())
    assert float(surface.weights.abs().max()) < 2  # nothing rests on how the keypoints scatter about their plane
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    turn = turn * torch.linalg.det(turn).sign()
    for scale in (0.01, 3.0):
        moved = torch.stack([keypoints, scale * keypoints @ turn.T + 1])
        torch.testing.assert_close((surface @ moved)[1], scale * points @ turn.T + 1)


def test_surface_of_other_keypoints_is_the_matrix_alone(skeleton):
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).double()
    surface = surface_map(points, skeleton, torch.zeros(2, 8).double())
    assert (surface.plane == 0).all() and (surface.offsets == 0).all()
    torch.testing.assert_close(surface @ (2 * skeleton), surface.weights @ (2 * skeleton))


def test_surface_carries_a_point_of_one_flat_instance_to_another():
    keypoints, points = flat_category()
    plane = best_plane(keypoints)
    wide = keypoints + 0.3 * (keypoints - keypoints.mean(0)) @ (plane @ keypoints)[:1].T @ (plane @ keypoints)[:1]
    here = surface_map(points, wide, plane)
    torch.testing.assert_close(here @ wide, points)
    torch.testing.assert_close(surface_map(here @ keypoints, keypoints, plane).offsets, here.offsets)


@pytest.mark.slow
def test_surface_derivatives(skeleton):
    for keypoints in (flat_category()[0], skeleton):
        plane = best_plane(keypoints) * is_flat(keypoints)
        surface = surface_map(flat_category()[1], keypoints, plane).with_keypoints()
        assert torch.autograd.gradcheck(lambda x, s=surface: s @ x, keypoints.clone().requires_grad_())
        directions = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(2)).double()
        numerical = ((surface @ (keypoints + 1e-5 * directions)) - (surface @ (keypoints - 1e-5 * directions))) / 2e-5
        torch.testing.assert_close(surface.derivative(keypoints, directions), numerical, atol=1e-7, rtol=1e-6)
        assert surface.derivative(keypoints, directions[:0]).shape == (0, 48, 3)


def test_surface_over_some_keypoints_of_many():
    keypoints, points = flat_category()
    surface, labels = surface_map(points, keypoints, best_plane(keypoints)), torch.tensor([0, 2, 3, 4, 6, 7, 8, 9])
    all_keypoints = torch.zeros(11, 3).double()
    all_keypoints[labels] = keypoints
    among = surface.among(labels, 11)
    torch.testing.assert_close(among @ all_keypoints, points)
    torch.testing.assert_close(among.over(labels)[5:9] @ keypoints, points[5:9])


def test_keypoint_weights_equal_the_tetrahedra_in_any_chunk(skeleton, monkeypatch):
    tets = tetrahedra(8)
    points = 0.3 * torch.randn(40, 3, generator=torch.Generator().manual_seed(2)).double()
    row, inside = barycentric.keypoint_weights(points, skeleton, tets)
    coordinates = barycentric.barycentric_coordinates(points, skeleton, tets)
    weights = barycentric.tet_weights(points, skeleton, tets, barycentric.inside_tets(coordinates))
    new = torch.randn(8, 3).double()
    torch.testing.assert_close(row @ new, carry(weights, coordinates, new[tets]))
    torch.testing.assert_close((row @ skeleton)[inside], points[inside], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(barycentric, "CHUNK_VALUES", 4 * len(tets) * 3)
    torch.testing.assert_close(barycentric.keypoint_weights(points, skeleton, tets)[0], row)


def test_hull_with_margin(skeleton):
    centre = skeleton.mean(0, keepdim=True)
    diameter = float(torch.cdist(skeleton, skeleton).max())
    outward = skeleton + 0.05 * diameter * torch.nn.functional.normalize(skeleton - centre, dim=1)
    no_plane = torch.zeros(2, 8).double()
    assert within_hull(torch.cat([centre, skeleton]), skeleton, no_plane, 0.001).all()
    assert within_hull(outward, skeleton, no_plane, 0.1).all() and not within_hull(centre + 3 * diameter, skeleton, no_plane, 0.1).any()


def test_hull_of_flat_keypoints_is_as_thick_as_they_are_narrow():
    flat = torch.tensor([[-0.2, -0.5, 0], [0.2, -0.5, 0], [0.2, 0.5, 0], [-0.2, 0.5, 0]]).double()
    points = torch.tensor([[0, 0, 0], [0, 0, 0.19], [0, 0.4, -0.19], [0, 0, 0.21], [0, 0, -0.3]]).double()
    assert within_hull(points, flat, best_plane(flat), 1e-3).tolist() == [True, True, True, False, False]


def test_k_means_finds_separated_groups():
    groups = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 5, 0]]).double()
    points = groups.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 3, generator=torch.Generator().manual_seed(0)).double()
    centres, labels = k_means(points, 3, 10, seed=1)
    assert float(torch.cdist(groups, centres).amin(1).max()) < 0.1
    assert all(len(labels[50 * n : 50 * n + 50].unique()) == 1 for n in range(3))


def test_clusters_need_several_images_not_many_pixels(monkeypatch):
    monkeypatch.setattr(dense_cloud, "SURPLUS", 1.0)
    points = torch.cat([torch.zeros(60, 3), torch.ones(60, 3)]).double() + 0.01 * torch.randn(120, 3).double()
    image = torch.cat([torch.arange(60) % 5, torch.zeros(60)]).long()  # the second place is seen by one image alone
    samples = Samples(points, image, torch.arange(120), torch.zeros(120, dtype=torch.bool))
    centres, labels = supported_clusters(samples, 2, 25, seed=0)
    assert len(centres) >= 1 and float(centres.abs().max()) < 0.1 and (labels[60:] == -1).all()


def test_keypoints_move_to_the_nearest_eroded_pixel():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:15, 10:20] = True
    eroded = erode(mask)
    assert eroded.nonzero().amin(0).tolist() == [7, 12] and eroded.nonzero().amax(0).tolist() == [14, 19]
    moved = correct_keypoints(mask, torch.tensor([[0.0, 0.0], [13.0, 9.0], [29.0, 10.0]]))
    assert moved.tolist() == [[12, 7], [13, 9], [19, 10]]
    thin = torch.zeros(5, 5, dtype=torch.bool)
    thin[2, 1:3] = True
    assert correct_keypoints(thin, torch.tensor([[4.0, 4.0]])).tolist() == [[2, 2]]
    assert nearest_mask_pixels(thin, torch.tensor([[1.5, 2.0]])).tolist() == [[1, 2]]  # a tie: the first in row-major order


def test_feature_statistics_without_and_with_one_observation():
    features = torch.nn.functional.normalize(torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    mean, mu, sd = feature_statistics(features, torch.tensor([0, 1, 4]))
    assert (mean[0] == 0).all() and float(mu[0]) == 0.5 and float(sd[0]) == pytest.approx(0.01)
    assert float(mu[1]) == pytest.approx(1) and torch.isnan(sd[1])
    cosine = features[2] @ mean[2]
    assert float(mu[2]) == pytest.approx(float(cosine.mean()), abs=1e-6) and float(sd[2]) == pytest.approx(float(cosine.std()), abs=1e-6)


def test_placement_ends_where_nothing_qualifies():
    edge1, edge2 = edge_pairs(4)
    touched = ((edge1 == 3) | (edge2 == 3)).any(1)
    ratio = torch.full((int((~touched).sum()),), 0.4)
    assert topology.placement_order(edge1[~touched], edge2[~touched], ratio, (0, 1), 4) == [2]


def record(keypoints, width=100, height=80):
    return ImageRecord("thing", "one", None, height, width, np.asarray(keypoints, dtype=np.float32))


def test_bad_keypoints_are_named_and_dropped():
    keypoints, reasons = checked_keypoints(record([[10, 10], [150, 20], [30, 30], [30, 30], [np.nan, np.nan]]), list("abcde"))
    assert (~torch.isnan(keypoints[:, 0])).tolist() == [True, False, False, False, False]
    assert len(reasons) == 2 and "'b'" in reasons[0] and "100 x 80" in reasons[0] and "'c', 'd'" in reasons[1]


def test_mirror_partners_count_together():
    seen = torch.full((3, 3, 2), torch.nan)
    seen[0, 0] = seen[1, 1] = seen[2, 2] = 1
    assert images_per_label(seen, torch.tensor([1, 0, 2])).tolist() == [2, 2, 1]
    assert trust_ratio(60, 10, 12) == pytest.approx(120 / 78)


def test_depth_is_read_inside_the_outline_but_not_behind_thin_parts():
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[5:25, 5:25] = True
    mask[25:38, 14] = True  # a leg one pixel wide
    read = depth_pixels(mask, torch.tensor([[5.0, 12.0], [15.0, 15.0], [14.0, 37.0]]), 3)
    assert read.tolist() == [[8, 12], [15, 15], [14, 37]]
