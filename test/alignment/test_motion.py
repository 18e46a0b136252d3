"""Where an object will be: a constant motion is continued exactly, and what is not known is not said."""

import math
from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment.motion import predicted
from semalign3d_core.geometry.rotations import rotation_from_vector

TURN, STEP, GROWTH = torch.tensor([0.05, -0.12, 0.02]), torch.tensor([0.02, -0.01, 0.0]), 1.03


@pytest.fixture(scope="module")
def first(chair):
    category, aligner = chair
    return aligner.align(category.image(5).evidence)


def moved(alignment, times, turn=TURN, step=STEP, growth=GROWTH):
    """The alignment after as many steps of one motion."""
    rotation, translation = rotation_from_vector(times * turn), alignment.translation + times * step

    def move(points):
        return growth**times * (points - alignment.translation) @ rotation.T + translation

    keypoints = move(alignment.keypoints_3d)
    return replace(
        alignment, keypoints_3d=keypoints, cloud_3d=move(alignment.cloud_3d), rotation=rotation @ alignment.rotation,
        translation=translation, scale=alignment.scale * growth**times,
        keypoints_2d=alignment.camera.to_pixels(alignment.camera.project(keypoints)),
    )  # fmt: skip


@pytest.mark.parametrize("ahead", [0.0, 0.4, 1.0, 2.0])
def test_a_constant_motion_goes_on(first, ahead):
    found, truth = predicted(first, moved(first, 1), ahead), moved(first, 1 + ahead)
    for name in ("keypoints_3d", "keypoints_2d", "cloud_3d", "rotation", "translation"):
        torch.testing.assert_close(getattr(found, name), getattr(truth, name), atol=1e-3, rtol=1e-4, equal_nan=True)
    assert found.scale == pytest.approx(truth.scale) and found.tracking is None and found.confidence == first.confidence


def test_a_known_size_stays(first):
    before, now = (replace(alignment, scale_kind="metric") for alignment in (first, moved(first, 1)))
    assert predicted(before, now, 1.0).scale == now.scale


def test_a_turn_about_an_undetermined_axis_means_nothing(first):
    axis = torch.tensor([0.0, 1.0, 0.0])
    bottle = replace(first, undetermined_axis=axis)
    spun = replace(bottle, rotation=bottle.rotation @ rotation_from_vector(0.5 * axis))
    torch.testing.assert_close(predicted(bottle, spun, 1.0).rotation, spun.rotation)
    tilted = moved(bottle, 1, turn=torch.tensor([0.0, 0.0, 0.2]))
    expected = moved(bottle, 2, turn=torch.tensor([0.0, 0.0, 0.2])).rotation @ axis
    assert float((predicted(bottle, tilted, 1.0).rotation @ axis) @ expected) > 0.99


def test_what_leaves_the_image_is_not_visible(first):
    away = predicted(first, moved(first, 1, step=torch.tensor([1.0, 0.0, 0.0])), 1.0)
    assert first.visible.any() and not away.visible.any()


@pytest.mark.parametrize(
    "second",
    [
        lambda alignment: replace(alignment, found=False),
        lambda alignment: replace(alignment, model_hash="another"),
        lambda alignment: replace(alignment, scale_kind="metric"),
        lambda alignment: moved(alignment, 1, turn=torch.tensor([0.0, math.radians(60), 0.0])),
        lambda alignment: moved(alignment, 1, step=torch.tensor([0.0, 0.0, -0.6])),
    ],
    ids=["not found", "another model", "another unit", "turned too fast", "behind the camera"],
)
def test_what_is_not_known_is_not_said(first, second):
    assert predicted(first, second(first), 1.0) is None


def test_nothing_is_said_of_the_past_and_the_far_future(first):
    second = moved(first, 1)
    assert predicted(first, second, -0.1) is None and predicted(first, second, 2.1) is None
    assert predicted(replace(first, found=False), second, 1.0) is None
