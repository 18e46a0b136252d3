"""Starts, EM, reference steps: on random categories with known truth."""

import pytest
import torch
from random_category import random_category

from semalign3d_core.category.config import BuildConfig, EmOptions
from semalign3d_core.category.published.sparse import Descent, reconstruct
from semalign3d_core.category.shape import disparity_start as start_from_depth
from semalign3d_core.category.shape.disparity_start import disparity_start
from semalign3d_core.category.shape.em import fit_factor_model
from semalign3d_core.category.shape.factor_model import deformation_modes
from semalign3d_core.category.shape.find import find_shape
from semalign3d_core.category.shape.mirror import MIRROR, to_mirror_plane
from semalign3d_core.category.shape.multiview import multiview_start, view_diversity
from semalign3d_core.category.statistics.beta_tables import beta_table
from semalign3d_core.geometry.rotations import rotation_angle, shape_diameter, similarity_alignment, uniform_rotations
from semalign3d_core.runtime.errors import InputError


@pytest.fixture
def short_descent(monkeypatch):
    monkeypatch.setattr(start_from_depth, "STEPS", 150)
    monkeypatch.setattr(start_from_depth, "FEATURES", 1500)
    monkeypatch.setattr(start_from_depth, "DESCENT", Descent(starts=4, coarse_steps=100, steps=200, features=256))


def generator():
    return torch.Generator().manual_seed(0)


def error_and_turn(shape, truth):
    """RMS after proper similarity alignment relative to the diameter, and the rotation from ``shape`` to ``truth``."""
    scale, rotation, shift = similarity_alignment(shape, truth)
    return float((scale * shape @ rotation.T + shift - truth).square().sum(-1).mean().sqrt() / shape_diameter(truth)), rotation


@pytest.fixture(scope="module")
def diverse():
    data, truth = random_category(seed=1)
    start = multiview_start(data, generator())
    return data, truth, start, fit_factor_model(start.shape, data, EmOptions())


@pytest.mark.slow
def test_em_recovers_shape_handedness_and_poses(diverse):
    _, truth, _, model = diverse
    error, turn = error_and_turn(model.shape, truth.shape)
    wrong_hand, _ = error_and_turn(model.shape * MIRROR, truth.shape)
    assert error < 0.015 and wrong_hand > 5 * error
    angle = rotation_angle(model.rotation, truth.rotation @ turn)
    assert float(torch.rad2deg(angle.median())) < 10


def test_em_improves_the_start_and_completes_shapes(diverse):
    data, truth, start, model = diverse
    assert error_and_turn(model.shape, truth.shape)[0] < error_and_turn(start.shape, truth.shape)[0]
    own = torch.tensor([error_and_turn(s, t)[0] for s, t in zip(model.completed, truth.shapes, strict=True)])
    rigid = torch.tensor([error_and_turn(model.shape, t)[0] for t in truth.shapes])
    assert float(own.mean()) < float(rigid.mean())
    assert float(model.error.median()) < 0.02


def test_gauge_of_the_mean_shape(diverse):
    data, _, _, model = diverse
    assert float(shape_diameter(model.shape)) == pytest.approx(1)
    torch.testing.assert_close(model.shape[data.flip] * MIRROR, model.shape)
    torch.testing.assert_close(model.shape.mean(0), torch.zeros(3).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(model.rotation @ model.rotation.transpose(1, 2), torch.eye(3).double().expand(len(model.rotation), 3, 3))


def test_modes_are_orthonormal_and_explain_the_covariance(diverse):
    _, _, _, model = diverse
    labels = torch.arange(len(model.shape)) + 1
    modes, variances = deformation_modes(model.covariance, len(model.shape) + 2, labels, 500)
    flat = modes.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(len(flat)).double(), atol=1e-8, rtol=0)
    assert (modes[:, [0, -1]] == 0).all() and (variances.diff() <= 1e-12).all()
    small = modes[:, labels].flatten(1)
    torch.testing.assert_close((small.T * variances) @ small, model.covariance, atol=1e-8, rtol=0)


@pytest.mark.slow
def test_result_is_the_same_again():
    data, _ = random_category(images=12, keypoints=8, seed=2)
    config = BuildConfig(em=EmOptions(rounds=3))
    first, second = (find_shape(data, config).model.shape for _ in range(2))
    assert torch.equal(first, second)


def test_few_images_still_work():
    data, truth = random_category(images=12, seed=5)
    assert error_and_turn(find_shape(data, BuildConfig()).model.shape, truth.shape)[0] < 0.05


@pytest.mark.slow
def test_frontal_views_start_from_depth_and_keep_their_hand(short_descent):
    data, truth = random_category(images=30, keypoints=8, seed=3, frontal=True)
    result = find_shape(data, BuildConfig())
    assert result.report["start"] == "disparity" and result.report["diversity"] < 0.2
    error, _ = error_and_turn(result.model.shape, truth.shape)
    wrong, _ = error_and_turn(result.model.shape * MIRROR, truth.shape)
    assert error < 0.035 and error < wrong


@pytest.mark.slow
def test_disparity_start_uses_known_slopes(short_descent):
    data, truth = random_category(images=25, keypoints=8, seed=4, depth="depth")
    assert torch.isfinite(data.slope).all()
    assert error_and_turn(disparity_start(data, generator()), truth.shape)[0] < 0.06


@pytest.mark.slow
def test_category_without_symmetry():
    from dataclasses import replace

    data, truth = random_category(images=40, keypoints=8, seed=6)
    result = find_shape(replace(data, flip=None), BuildConfig())
    assert error_and_turn(result.model.shape, truth.shape)[0] < 0.03


def test_view_diversity_of_even_and_of_equal_views():
    assert view_diversity(uniform_rotations(500, torch.float64), None) == pytest.approx(3**-0.5, abs=0.02)
    assert view_diversity(torch.eye(3).double().expand(10, 3, 3), None) == 0


def test_mirror_plane_is_found_in_any_frame():
    data, truth = random_category(keypoints=10, images=5, seed=7)
    shape = truth.shape - truth.shape.mean(0)
    symmetric = (shape + shape[data.flip] * MIRROR) / 2
    turned = symmetric @ uniform_rotations(7, torch.float64)[3].T + 0.3
    framed = to_mirror_plane(turned, data.flip)
    torch.testing.assert_close(framed[data.flip] * MIRROR, framed)
    assert error_and_turn(framed, symmetric)[0] < 1e-6


@pytest.mark.slow
def test_reconstruction_finds_the_right_mirror_image():
    shape = torch.randn(7, 3, generator=torch.Generator().manual_seed(11))
    instances = shape + 0.08 * torch.randn(200, 7, 3, generator=torch.Generator().manual_seed(12))
    table = beta_table(instances, torch.ones(200, 7, dtype=torch.bool))
    descent = Descent(starts=4, coarse_steps=150, steps=200, features=1024)
    points, _ = reconstruct(table, 7, descent, generator())
    assert error_and_turn(points.double(), shape.double())[0] < 0.03
    again, _ = reconstruct(table, 7, descent, generator())
    assert torch.equal(points, again)


def test_reconstruction_refuses_without_tetrahedra():
    instances = torch.randn(50, 5, 3)
    visible = torch.ones(50, 5, dtype=torch.bool)
    visible[:, 3:] = False
    with pytest.raises(InputError, match="annotate more images"):
        reconstruct(beta_table(instances, visible), 5, Descent(1, 1, 1, 1), generator())
