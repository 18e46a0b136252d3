"""The four losses: their gradients, their minima, and their edges."""

import pytest
import torch

from semalign3d_core.learned.spherical_maps.losses import (
    LossWeights,
    distance_loss,
    draw_triplets,
    grid_positions,
    orientation_loss,
    reconstruction_loss,
    viewpoint_loss,
    weighted_sum,
)
from semalign3d_core.learned.spherical_maps.network import PrototypeDecoder
from semalign3d_core.learned.spherical_maps.viewpoint import angle_between, azimuth_bins, circle, fit_azimuth, read_azimuth


def facing_hemisphere(rows=7, columns=7):
    """A grid's cells on the half of the sphere that faces the camera: right is +x, up is +y, towards the camera +z. (1, N, 3), (N, 2)"""
    positions = grid_positions(rows, columns)
    x, y = (positions[:, 1] - 0.5) * 1.2, -(positions[:, 0] - 0.5) * 1.2
    return torch.stack([x, y, (1 - x**2 - y**2).sqrt()], -1)[None], positions


def drawn(points, seed=0, count=64):
    return draw_triplets(points, count, torch.Generator().manual_seed(seed))


def test_orientation_tells_a_view_from_its_mirror_image():
    points, positions = facing_hemisphere()
    mirrored = points * torch.tensor([-1.0, 1, 1])
    assert orientation_loss(points, positions, *drawn(points)) < 0.05
    assert orientation_loss(mirrored, positions, *drawn(points)) > 3  # (1 - (-1))^2 = 4 at worst


def test_distance_prefers_neighbours_to_be_near():
    points, positions = facing_hemisphere()
    shuffled = points[:, torch.randperm(49, generator=torch.Generator().manual_seed(1))]
    assert distance_loss(points, positions, *drawn(points)) < distance_loss(shuffled, positions, *drawn(points)) - 0.1


@pytest.mark.slow
def test_viewpoint_is_least_on_the_circle_and_even():
    degrees = torch.tensor([0.0, 45, 90, 200])
    points = torch.cat([circle(degrees), torch.zeros(4, 1)], 1)[:, None]
    torch.testing.assert_close(viewpoint_loss(points, degrees), torch.tensor(0.0))
    torch.testing.assert_close(viewpoint_loss(points, -degrees), torch.tensor(0.0))  # it cannot tell left from right
    assert viewpoint_loss(points, degrees.flip(0)) > 0.05


@pytest.mark.parametrize("loss", [distance_loss, orientation_loss])
def test_gradients_of_triplet_losses(loss):
    points, positions = facing_hemisphere(4, 4)
    rows, triplets = drawn(points, count=8)
    noisy = (points.double() + 0.1 * torch.randn(points.shape, generator=torch.Generator().manual_seed(3)).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, positions.double(), rows, triplets), noisy)


def test_losses_without_anything_to_look_at_are_zero_and_keep_the_graph():
    points, positions = torch.zeros(2, 16, 3, requires_grad=True), grid_positions(4, 4)
    rows, triplets = drawn(points)
    assert len(rows) == 0
    condition, features = torch.eye(2), torch.randn(2, 16, 64)
    for loss in (
        distance_loss(points, positions, rows, triplets),
        orientation_loss(points, positions, rows, triplets),
        reconstruction_loss(features, points, condition, PrototypeDecoder(64, 2)),
    ):
        assert loss == 0
        loss.backward()
    straight = torch.tensor([[[0], [1], [2]]])  # three cells of a row: no turn to judge
    unit = torch.nn.functional.normalize(torch.ones(1, 16, 3), dim=-1).requires_grad_()
    assert orientation_loss(unit, positions, torch.tensor([0]), straight) == 0


def test_triplets_come_from_inside_the_object_alone():
    points = torch.zeros(3, 10, 3)
    points[0, 4:7, 0] = 1
    points[0, 7, 0] = 0.9  # a border cell
    points[2, 1, 1] = 1
    rows, triplets = drawn(points)
    assert rows.tolist() == [0, 2]
    assert set(triplets[0].unique().tolist()) == {4, 5, 6}
    assert set(triplets[1].unique().tolist()) == {1}


def test_weights_leave_losses_out():
    assert float(weighted_sum({"reconstruction": torch.tensor(2.0)}, LossWeights(viewpoint=0))) == 2
    published = {name: torch.tensor(1.0) for name in ("reconstruction", "distance", "orientation", "viewpoint")}
    assert float(weighted_sum(published, LossWeights())) == pytest.approx(1.7)


def test_azimuth_is_read_however_the_sphere_stands():
    generator = torch.Generator().manual_seed(0)
    degrees = torch.rand(40, generator=generator) * 360
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    directions = torch.cat([circle(degrees), torch.zeros(40, 1)], 1) @ turn
    axes = fit_azimuth(directions[:20], degrees[:20])
    assert angle_between(read_azimuth(directions[20:], axes), degrees[20:]).max() < 0.1
    assert azimuth_bins([0, 44.9, 45, 359, 360, -1]).tolist() == [0, 0, 1, 7, 0, 7]
