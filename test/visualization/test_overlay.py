"""Pictures: what is drawn, and where."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from simulated_category import SIZE, SimulatedCategory

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.geometry.rotations import similarity_alignment
from semalign3d_core.matchers import Matches
from semalign3d_core.visualization.overlay import (
    OverlayStyle,
    draw_alignment,
    draw_matches,
    draw_points,
    keypoint_colours,
    readable_scale,
)

GREY = np.full((SIZE, SIZE, 3), 100, np.uint8)
BARE = OverlayStyle(names=False, cloud=False, axes=False)


@pytest.fixture(scope="module")
def alignment():
    category = SimulatedCategory("chair")
    model, image = category.model(images=5, betas=False), category.image(3)
    points, camera = image.keypoints_3d, image.evidence.camera
    scale, rotation, translation = similarity_alignment(model.shape, points)
    return Alignment(
        "chair", "0", model.keypoint_names, points, image.keypoints, image.visible, torch.ones(10), model.weights @ points,
        rotation, translation, float(scale), camera, "relative", -1.0, {}, 0.9, True,
    )  # fmt: skip


def _colour_at(picture, place, scale=1):
    column, row = ((place + 0.5) * scale - 0.5).round().int().tolist()
    return picture[row, column].tolist()


def test_visible_keypoints_are_solid_and_hidden_ones_hollow(alignment):
    points = torch.stack([torch.tensor([20.0 + 20 * k, 120.0]) for k in range(10)])
    visible = torch.arange(10) % 2 == 0
    picture = draw_alignment(GREY, replace(alignment, keypoints_2d=points, visible=visible), BARE)
    for k, colour in enumerate(keypoint_colours(10)):
        expected = list(colour) if visible[k] else [100, 100, 100]
        assert np.abs(np.subtract(_colour_at(picture, points[k]), expected)).max() <= 30
        assert _colour_at(picture, points[k] + torch.tensor([4.0, 0.0])) != [100, 100, 100]
    assert (GREY == 100).all()


def test_keypoints_fade_with_their_confidence(alignment):
    points = torch.stack([torch.tensor([20.0 + 20 * k, 120.0]) for k in range(10)])
    faint = replace(alignment, keypoints_2d=points, visible=torch.ones(10, dtype=torch.bool), keypoint_confidence=torch.linspace(0, 1, 10))
    picture = draw_alignment(GREY, faint, BARE)
    strength = [
        np.abs(np.subtract(_colour_at(picture, points[k]), 100)).max() / np.abs(np.subtract(colour, 100)).max()
        for k, colour in enumerate(keypoint_colours(10))
    ]
    assert (np.diff(strength) > 0).all() and 0.2 < strength[0] < 0.4 and strength[-1] > 0.9


def test_a_part_that_may_be_missing_has_a_question_mark(alignment, monkeypatch):
    from semalign3d_core.visualization import overlay

    written = []
    monkeypatch.setattr(overlay, "_label", lambda canvas, place, text, *rest: written.append(text))
    confidence = torch.where(torch.arange(10) < 3, 0.2, 0.9)
    draw_alignment(GREY, replace(alignment, visible=torch.ones(10, dtype=torch.bool), keypoint_confidence=confidence))
    assert sorted(written) == sorted(name + "?" * (k < 3) for k, name in enumerate(alignment.keypoint_names))


def test_enlarged_picture_keeps_the_places(alignment):
    points = torch.full((10, 2), torch.nan)
    points[4] = torch.tensor([70.0, 150.0])
    shown = replace(alignment, keypoints_2d=points, visible=torch.ones(10, dtype=torch.bool))
    picture = draw_alignment(GREY, shown, replace(BARE, scale=3))
    assert picture.shape == (3 * SIZE, 3 * SIZE, 3)
    assert np.abs(np.subtract(_colour_at(picture, points[4], 3), keypoint_colours(10)[4])).max() <= 10
    changed = np.argwhere((picture != 100).any(2))
    changed = changed[changed[:, 0] > 60]  # below the banner
    assert np.abs(changed.mean(0) - [150.5 * 3 - 0.5, 70.5 * 3 - 0.5]).max() < 1


def test_not_found_shows_a_banner_and_no_guess(alignment):
    picture = draw_alignment(GREY, replace(alignment, found=False))
    assert (picture[40:] == 100).all()
    red = (picture[:20, :60, 0].astype(int) - picture[:20, :60, 1]) > 100
    assert red.mean() > 0.3


def test_cloud_and_axes_lie_on_the_object(alignment):
    none = draw_alignment(GREY, alignment, BARE)
    cloud = draw_alignment(GREY, alignment, replace(BARE, cloud=True))
    rows, columns = np.nonzero((cloud != none).any(2))
    low, high = alignment.keypoints_2d.amin(0), alignment.keypoints_2d.amax(0)
    assert len(rows) > 300
    assert columns.min() > low[0] - 12 and columns.max() < high[0] + 12
    axes = draw_alignment(GREY, alignment, replace(BARE, axes=True))
    camera, tip = alignment.camera, alignment.translation + 0.2 * alignment.scale * alignment.rotation[:, 2]
    assert np.argmax(_colour_at(axes, camera.to_pixels(camera.project(tip)))) == 2  # z is blue


@pytest.mark.parametrize("shift", [torch.nan, 1e9, -1e9])
def test_absurd_positions_do_not_break_the_picture(alignment, shift):
    points = alignment.keypoints_2d + shift
    cloud = alignment.cloud_3d * torch.tensor([1.0, 1.0, -1.0])
    picture = draw_alignment(GREY, replace(alignment, keypoints_2d=points, cloud_3d=cloud, translation=-alignment.translation))
    assert (picture[40:] == 100).all()


def test_matches_are_joined_across_pictures_of_different_size():
    source, target = GREY, np.full((SIZE // 2, 100, 3), 60, np.uint8)
    found = torch.tensor([[50.0, 60.0], [20.0, 30.0], [torch.nan, 0.0]])
    matches = Matches(found, torch.ones(3), visible=torch.tensor([True, False, True]))
    points = torch.tensor([[30.0, 40.0], [200.0, 100.0], [100.0, 200.0]])
    picture = draw_matches(source, target, points, matches)
    assert picture.shape == (SIZE, SIZE + 6 + 200, 3)
    colours = keypoint_colours(3)
    assert _colour_at(picture, points[0]) == list(colours[0])
    assert _colour_at(picture, torch.tensor([SIZE + 6 + 100.0, 120.0])) == list(colours[0])
    middle = torch.tensor([(30 + SIZE + 106) / 2, 80.0])
    assert _colour_at(picture, middle)[0] > 2 * _colour_at(picture, middle)[2]  # the line, orange on grey
    assert _colour_at(picture, torch.tensor([SIZE + 6 + 40.0, 60.0])) != list(colours[1])  # hollow


def test_points_are_marked_and_small_pictures_enlarged():
    picture = draw_points(GREY, torch.tensor([[50.0, 60.0], [float("nan"), 3.0]]), ["cap", "foot"])
    assert _colour_at(picture, torch.tensor([50.0, 60.0])) == list(keypoint_colours(2)[0])
    assert readable_scale(np.zeros((128, 64, 3))) == 5
    assert readable_scale(np.zeros((2000, 64, 3))) == 1


def test_points_of_known_names_take_their_colour_and_are_not_named_again():
    place, names = torch.tensor([[50.0, 60.0]]), ("cap", "foot", "neck")
    known = draw_points(GREY, place, ["neck"], known=names)
    assert _colour_at(known, place[0]) == list(keypoint_colours(3)[2])
    rows, columns = np.nonzero((known != 100).any(2))
    assert columns.max() < 62 and rows.max() < 72  # the cross alone
    assert np.nonzero((draw_points(GREY, place, ["grip"], known=names) != 100).any(2))[1].max() > 70


def test_names_cover_neither_each_other_nor_the_markers(alignment):
    """Ten points in a heap: every marker is still to be seen, and all names together cover as much as each of them alone."""
    points = torch.stack([torch.tensor([110.0 + 9 * (k % 4), 110.0 + 9 * (k // 4)]) for k in range(10)])
    heap = replace(alignment, keypoints_2d=points, visible=torch.ones(10, dtype=torch.bool))
    bare, named = draw_alignment(GREY, heap, BARE), draw_alignment(GREY, heap, replace(BARE, names=True))
    for k in range(10):
        assert _colour_at(named, points[k]) == _colour_at(bare, points[k])
    alone = 0
    for k in range(10):
        one = replace(heap, keypoints_2d=torch.where(torch.arange(10)[:, None] == k, points, torch.nan))
        alone += (draw_alignment(GREY, one, BARE) != draw_alignment(GREY, one, replace(BARE, names=True))).any(2).sum()
    assert (named != bare).any(2).sum() > 0.9 * alone
