"""Signs that a build is not to be trusted: reversal in depth explains the images as well, surfaces behind their outline, few points."""

from dataclasses import replace

import pytest
import torch
from random_category import outline_category, random_category

from semalign3d_core.category import report
from semalign3d_core.category.config import BuildConfig, EmOptions
from semalign3d_core.category.report import shape_warnings, surface_warnings
from semalign3d_core.category.shape.em import expectation, fit_factor_model
from semalign3d_core.category.shape.find import depth_reversed, find_shape, handedness_evidence
from semalign3d_core.category.shape.mirror import symmetrised
from semalign3d_core.category.surface.surface_map import normal, surface_map

SHORT = EmOptions(rounds=10)


@pytest.fixture(scope="module")
def category():
    data, truth = random_category(images=30, seed=4)
    return data, fit_factor_model(symmetrised(truth.shape, data.flip), data, SHORT)


def test_reversed_model_is_reflected_along_the_line_of_sight(category):
    data, model = category
    rival = depth_reversed(model)
    torch.testing.assert_close(torch.linalg.det(rival.rotation), torch.ones(30).double())
    away, back = (m.in_camera() - m.translation[:, None] for m in (model, rival))
    v = torch.nn.functional.normalize(model.translation, dim=-1)[:, None]
    torch.testing.assert_close(back, away - 2 * (away * v).sum(-1, keepdim=True) * v)
    chances = [torch.linalg.slogdet(m.covariance)[1] for m in (model, rival)]
    torch.testing.assert_close(*chances)
    torch.testing.assert_close(depth_reversed(rival).in_camera(), model.in_camera())


def test_evidence_speaks_for_the_right_hand_and_grows_with_depth(category):
    data, model = category
    evidence = handedness_evidence(model, data)
    assert evidence > 4
    wrong = expectation(depth_reversed(model), data, 6)[0]
    assert handedness_evidence(wrong, data) < -4
    blind = replace(data, measured=torch.zeros_like(data.measured))
    assert abs(handedness_evidence(model, blind)) < evidence


@pytest.mark.slow
def test_no_warning_for_good_data_and_one_for_flat_pictures_without_depth(category):
    data, model = category
    config = BuildConfig(em=SHORT)
    assert shape_warnings(data, find_shape(data, config).report) == []
    # Far cameras, no depth, and no keypoint is hidden by the object: left and right cannot be known.
    camera = model.in_camera()
    points = data.focal[:, None, None] * camera[..., :2] / camera[..., 2:]
    points, shown = points - points.mean(1, keepdim=True), torch.ones_like(data.visible)
    far = replace(data, points=0.02 * points, visible=shown, size=0.02 * data.size, measured=torch.zeros_like(data.measured))
    warnings = shape_warnings(far, find_shape(far, config).report)
    assert len(warnings) == 1 and "reversal in depth" in warnings[0]


def test_warning_of_few_points_names_the_numbers(category, monkeypatch):
    data, _ = category
    monkeypatch.setattr(report, "TRUST_RATIO", 100.0)
    text = shape_warnings(data, {})
    assert len(text) == 1 and f"{int(data.visible.sum())} annotated points in 30 images are few for 10 keypoints" in text[0]


def test_surface_behind_its_outline_is_told():
    data, truth = outline_category(images=12, thickness=1.0, seed=1)
    model = replace(fit_factor_model(symmetrised(truth.shape, data.flip), data, SHORT), flat=True, thickness=1.0)
    axis = normal(model.plane, model.shape)
    before = -float(((model.rotation @ axis) * model.translation).sum(-1).mean().sign())  # to the side of the cameras
    for side, told in ((1, 0), (-1, 1)):
        surface = surface_map(model.shape + side * before * 0.1 * axis, model.shape, model.plane)
        stored = {name: getattr(surface, name).float() for name in ("weights", "offsets", "plane")}
        surface = replace(surface, **stored)
        assert len(surface_warnings(surface, model)) == told
    assert surface_warnings(surface, replace(model, thickness=0.0)) == []
