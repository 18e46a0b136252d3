"""The prior over views: usual views cost nothing, unusual ones little enough to be found, and a free axis counts for nothing."""

import math

import torch

from semalign3d_core.alignment.judgement import LEAST_DENSITY, ViewPrior, upright_axis
from semalign3d_core.datasets.synthetic.viewpoints import rotation_matrix
from semalign3d_core.geometry.rotations import rotation_from_vector, uniform_rotations

UP = torch.tensor([0.0, 1.0, 0.0])


def turns(axis, degrees):
    """(N, 3, 3) turns about an axis (3,)."""
    return rotation_from_vector(torch.deg2rad(torch.tensor(degrees))[:, None] * axis)


def test_usual_views_cost_nothing_and_askew_ones_more_and_more():
    prior = ViewPrior(turns(UP, [float(d) for d in range(0, 360, 10)]))
    upright = prior(turns(UP, [5.0, 47.0, 200.0]))
    assert (upright < 0.02).all()
    rolled = prior(turns(torch.tensor([0.0, 0.0, 1.0]), [20.0, 40.0, 90.0, 180.0]))
    assert (rolled.diff() >= 0).all() and rolled[1] > 0.5
    assert torch.isclose(rolled[-1], torch.tensor(-math.log(LEAST_DENSITY)))


def test_a_turn_about_the_undetermined_axis_is_no_other_view():
    standing = turns(torch.tensor([1.0, 0.0, 0.0]), [0.0, 5.0, 10.0, 15.0])
    prior = ViewPrior(standing, UP)
    turned = standing @ turns(UP, [40.0, 100.0, 170.0, 250.0])
    assert torch.allclose(prior(turned), prior(standing), atol=1e-5)
    assert prior(turns(torch.tensor([0.0, 0.0, 1.0]), [180.0])) > 2


def test_without_training_poses_all_views_are_alike():
    assert (ViewPrior(torch.zeros(0, 3, 3))(uniform_rotations(8)) == 0).all()


def seen_from(azimuth, elevation, roll=0.0):
    return torch.tensor(rotation_matrix(azimuth, elevation, roll), dtype=torch.float32)


def test_the_upright_axis_is_that_of_level_cameras_wherever_they_stand():
    level = torch.stack([seen_from(40.0 * n, 20.0 + 5.0 * (n % 4), 4.0 * (-1) ** n) for n in range(12)])
    assert upright_axis(level) @ UP > math.cos(math.radians(3))
    front = torch.stack([seen_from(azimuth, 25.0) for azimuth in (-50.0, -20.0, 10.0, 45.0)])
    assert upright_axis(front) @ UP > math.cos(math.radians(3))  # although all cameras look down on the same side
    assert torch.equal(upright_axis(torch.stack([seen_from(0.0, 20.0)] * 3), -UP), UP)


def test_where_gravity_is_known_a_standing_object_may_be_seen_from_anywhere():
    prior = ViewPrior(torch.stack([seen_from(30.0 * n, 10.0) for n in range(12)]))
    steep, rolled = seen_from(20.0, 75.0)[None], seen_from(20.0, 10.0, 60.0)[None]
    assert prior(steep) > 1 and prior(rolled) > 1
    for view in (steep, rolled):
        assert prior(view, view[0] @ UP) < 1e-3
        assert torch.isclose(prior(view, -view[0] @ UP), torch.tensor([-math.log(LEAST_DENSITY)]))
