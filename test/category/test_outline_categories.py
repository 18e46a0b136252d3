"""Categories whose keypoints are the two sides of an outline: flat shapes, whose poses come from how the surface bulges."""

from dataclasses import replace

import pytest
import torch
from random_category import outline_category

from semalign3d_core.category.config import BuildConfig, EmOptions
from semalign3d_core.category.published.sparse import Descent
from semalign3d_core.category.shape import disparity_start
from semalign3d_core.category.shape.depth_term import bulge, depth_readings, inner_pairs
from semalign3d_core.category.shape.em import expectation, fit_factor_model
from semalign3d_core.category.shape.find import find_shape
from semalign3d_core.category.shape.flat import fit_outline_model, reversed_poses, without_reversals
from semalign3d_core.category.shape.mirror import symmetrised
from semalign3d_core.category.surface.surface_map import is_flat
from semalign3d_core.geometry.rotations import rotation_angle, rotation_from_vector, similarity_alignment

SHORT = EmOptions(rounds=10)


def errors(model, truth):
    """RMS of the mean shape in diameters, and median rotation error in degrees."""
    scale, rotation, shift = similarity_alignment(model.shape, truth.shape)
    rms = float((scale * model.shape @ rotation.T + shift - truth.shape).square().sum(-1).mean().sqrt())
    return rms, float(torch.rad2deg(rotation_angle(model.rotation, truth.rotation @ rotation)).median())


@pytest.fixture(scope="module")
def bottles():
    data, truth = outline_category(images=30, thickness=1.0, noise=0.08, seed=1)
    return data, truth, fit_factor_model(symmetrised(truth.shape, data.flip), data, SHORT)


@pytest.mark.slow
def test_bulge_improves_the_poses_of_a_body_of_revolution(bottles):
    data, truth, before = bottles
    after = fit_outline_model(before, data, SHORT.rounds)
    assert is_flat(before.shape) and after.thickness == 1.0
    assert errors(after, truth)[1] < 0.7 * errors(before, truth)[1] and errors(after, truth)[1] < 9
    assert errors(after, truth)[0] < 0.025


@pytest.mark.slow
def test_find_shape_takes_the_bulge_for_flat_categories_alone(bottles, monkeypatch):
    monkeypatch.setattr(disparity_start, "DESCENT", Descent(starts=4, coarse_steps=60, steps=120, features=128))
    data, truth, _ = bottles
    result = find_shape(data, BuildConfig(start="disparity", em=SHORT))
    assert result.report["thickness"] == 1.0 and errors(result.model, truth)[1] < 9


@pytest.mark.slow
@pytest.mark.parametrize(("thickness", "found"), [(0.0, {0.0}), (0.5, {0.5}), (2.0, {1.0, 2.0})])
def test_thickness_is_read_from_the_depth_maps(thickness, found):
    data, truth = outline_category(images=30, thickness=thickness, noise=0.05, seed=2)
    before = fit_factor_model(symmetrised(truth.shape, data.flip), data, SHORT)
    after = fit_outline_model(before, data, SHORT.rounds)
    assert after.thickness in found
    if thickness == 0:  # nothing bulges: the model stays what the keypoints say
        assert after is before


def test_readings_are_the_depths_that_rays_find(bottles):
    data, truth, before = bottles
    exact = replace(
        before,
        shape=truth.shape,
        displacement=truth.shapes - truth.shape,
        rotation=truth.rotation,
        translation=torch.stack([_distance(data, truth, n) for n in range(len(truth.rotation))]),
        thickness=1.0,
    )
    clean, _ = outline_category(images=30, thickness=1.0, noise=0.0, seed=1)
    z, value, known = depth_readings(exact, exact.in_camera(), clean)
    assert known[:, 10:].sum(1).eq(3).all()  # the middles of the pairs between the ends
    for n in range(len(z)):
        together = torch.stack([1 / z[n][known[n]], value[n][known[n]]])
        assert float(torch.corrcoef(together)[0, 1]) > 0.95


def _distance(data, truth, n):
    """Translation (3,) of an exact camera: all objects of the fixture lie on the optical axis."""
    turned = truth.shapes[n] @ truth.rotation[n].T
    image = data.points[n] / 1.5
    # x = image (z + t): least squares for t
    gap = image * turned[:, 2:] - turned[:, :2]
    return torch.tensor([0.0, 0.0, float(-(gap * image).sum() / (image * image).sum())], dtype=torch.float64)


def test_derivative_of_the_readings(bottles):
    data, _, before = bottles
    model = replace(before, thickness=1.0)
    turning = bulge(model, model.in_camera(), data, data.outline)[1]
    for axis in range(3):
        step = torch.zeros(len(model.rotation), 3, dtype=torch.float64)
        step[:, axis] = 1e-5
        sides = [replace(model, rotation=rotation_from_vector(sign * step) @ model.rotation) for sign in (1, -1)]
        # The pixels stay where they are, so the rays do: only the normal turns.
        heights = [bulge(side, model.in_camera(), data, data.outline)[0] for side in sides]
        torch.testing.assert_close(turning[..., axis], (heights[0] - heights[1]) / 2e-5, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_reversed_poses_are_turned_back(bottles):
    data, truth, before = bottles
    good = fit_outline_model(before, data, SHORT.rounds)
    twisted = reversed_poses(good)
    torch.testing.assert_close(torch.linalg.det(twisted.rotation), torch.ones(30).double())
    seen = [m.in_camera()[..., :2] / m.in_camera()[..., 2:] for m in (good, twisted)]
    assert float((seen[0] - seen[1]).abs().max()) < 0.08  # they look alike
    back = without_reversals(expectation(twisted, data, 3)[0], data)
    assert errors(back, truth)[1] < errors(good, truth)[1] + 1


def test_inner_pairs_leave_out_both_ends(bottles):
    data, truth, _ = bottles
    assert inner_pairs(truth.shape, data.flip).nonzero()[:, 0].tolist() == [2, 4, 6]


def test_few_images_hardly_tell_a_thin_shape_from_a_flat_one():
    truth = outline_category(images=10, thickness=1.0, seed=3)[1]
    thin = truth.shape + torch.tensor([0.0, 0.0, 0.025]).double() * torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1, 1, 1]).double()[:, None]
    assert is_flat(truth.shape) and not is_flat(thin) and not is_flat(thin, 200)
    assert is_flat(thin, 10) and not is_flat(2 * thin - truth.shape, 5)
