"""The varied world: what its kinds, materials, surroundings and photographs promise."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from semalign3d_core.datasets.synthetic import CATEGORIES, KEYPOINTS, RenderConfig, make_instance, render, sample_rendering
from semalign3d_core.datasets.synthetic import varied_scene as scenes
from semalign3d_core.datasets.synthetic.environment import anything, random_environment, studio
from semalign3d_core.datasets.synthetic.looks import Look, spread, stack
from semalign3d_core.datasets.synthetic.pictures import picture_bank
from semalign3d_core.datasets.synthetic.varieties import KINDS, SCENES, VIEWS
from semalign3d_core.datasets.synthetic.viewpoints import View, ViewConfig, place, rotation_matrix
from semalign3d_core.runtime.errors import InputError

VARIED = RenderConfig(world="varied", samples=1)


def front_view(instance, elevation=15, size=96):
    turn = rotation_matrix(0, elevation, 0)
    return place(instance, View(size, size, 1.5, 0, elevation, 0, turn, np.zeros(3)), fill=0.7)


def test_tables_name_what_exists():
    assert set(KINDS) == set(VIEWS) == set(SCENES) == set(CATEGORIES)
    for category, definition in CATEGORIES.items():
        known = set(definition.ranges) | set(definition.flags) | set(definition.extras)
        for _, ranges, flags in KINDS[category].values():
            assert set(ranges) | set(flags) <= known
            assert all(low <= high for low, high in ranges.values())
        for _, settings in VIEWS[category]:
            ViewConfig(**settings)


def test_equal_seeds_give_equal_pixels_of_another_world():
    first, again = (sample_rendering("bottle", 3, 4, 64, VARIED) for _ in range(2))
    for name in ("image", "mask", "depth", "canonical", "keypoints_2d"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (sample_rendering("bottle", 3, 4, 64).image != first.image).any()


@pytest.mark.slow
def test_views_are_as_the_world_has_them():
    planes = [sample_rendering("aeroplane", n, n, 24, VARIED).elevation for n in range(60)]
    assert min(planes) < -30 and max(planes) > 40
    screens = [sample_rendering("tvmonitor", n, n, 48, VARIED) for n in range(40)]
    sizes = np.array([(r.box[2:] - r.box[:2]).max() / 48 for r in screens])
    assert 0.2 < np.mean(sizes < 0.42) < 0.7
    bottles = np.array([abs(sample_rendering("bottle", n, n, 24, VARIED).roll) for n in range(60)])
    assert np.mean(bottles < 8) > 0.6 and bottles.max() > 20


@pytest.mark.slow
def test_a_car_without_a_roof_misses_the_end_of_the_roof():
    names = KEYPOINTS["car"].names
    cars = [make_instance("car", seed, "varied") for seed in range(120)]
    missing = np.array([np.isnan(car.keypoints[names.index("roof_rear_left")]).all() for car in cars])
    assert 0 < missing.sum() < 30
    for car in np.array(cars, dtype=object)[missing]:
        above = car.vertices[:, 1] > car.keypoints[names.index("roof_front_left"), 1] + 0.02
        assert not above.any() and np.isfinite(car.keypoints[names.index("roof_front_left")]).all()


def test_a_picture_is_spread_over_a_part_upright_and_unmirrored():
    screen = make_instance("tvmonitor", 3, "varied")
    picture = np.zeros((2, 2, 3), dtype=np.float32)
    picture[0, 0], picture[1, 1] = (1, 0, 0), (0, 0, 1)  # red above on the viewer's left, blue below on the right
    look = Look(np.ones(3), picture=picture, project=spread(screen, "screen"))
    corners = screen.vertices[np.unique(screen.faces[screen.group == screen.groups.index("screen")])]
    low, high = corners.min(0), corners.max(0)
    places = np.array(
        [(0.9 * low[0] + 0.1 * high[0], 0.1 * low[1] + 0.9 * high[1], 0), (0.1 * low[0] + 0.9 * high[0], 0.9 * low[1] + 0.1 * high[1], 0)]
    )
    colours = stack([look], np.random.default_rng(0), 1.0).colours(np.zeros(2, dtype=int), places.astype(np.float32))
    np.testing.assert_array_equal(colours, [(1, 0, 0), (0, 0, 1)])


def _bottle_of(look, backdrop, monkeypatch):
    """(mean colour of the bottle, of the rest), linear of display, of a bottle of one material before a plain backdrop."""
    bottle = make_instance("bottle", 1, "varied")
    monkeypatch.setattr(scenes, "pick", lambda rng, weighted: (1.0, "studio"))
    monkeypatch.setattr(scenes, "studio", lambda rng: np.full((8, 8, 3), backdrop))
    monkeypatch.setattr(scenes, "object_looks", lambda instance, bank, rng: [look] * len(instance.groups))
    rendering = render(bottle, front_view(bottle), 0, VARIED)
    return rendering.image[rendering.mask].mean(), rendering.image[~rendering.mask].mean()


def test_glass_shows_what_is_behind_and_black_does_not(monkeypatch):
    through, around = _bottle_of(Look(np.ones(3), glass=1.0), 0.8, monkeypatch)
    assert abs(through - around) < 12
    opaque, around = _bottle_of(Look(np.full(3, 0.005)), 0.8, monkeypatch)
    assert opaque < 0.4 * around


def test_light_of_its_own_needs_no_lamp(monkeypatch):
    bright, around = _bottle_of(Look(np.ones(3), glow=2.0), 0.05, monkeypatch)
    assert bright > 2 * around


def test_windows_are_mirrored_and_shadows_fall_beside_the_object():
    mug = make_instance("mug", 2)
    view, rng = front_view(mug), np.random.default_rng(4)
    around = random_environment(mug, view, studio(rng), rng)
    lamp = around.lamps[0]
    towards, away = around.mirrored(np.stack([lamp[0], -lamp[0]])).mean(1)
    assert towards > away + 0.5
    np.testing.assert_allclose(lamp @ lamp.T, np.eye(3), atol=1e-6)
    low, high = around.foot
    floor = np.array([(high[0] + step, low[1], 0.5 * (low[2] + high[2])) for step in (0.0, 0.1, 3.0)])
    near, beside, far = around.contact(floor)
    assert near < beside < far and far == pytest.approx(1, abs=1e-3) and near == pytest.approx(1 - around.shadow)


@pytest.mark.slow
def test_photographs_of_a_folder_are_shown(tmp_path):
    red = np.zeros((90, 120, 3), dtype=np.uint8)
    red[..., 2] = 250
    (tmp_path / "inner").mkdir()
    cv2.imwrite(str(tmp_path / "inner" / "red.png"), red)
    bank, mug = picture_bank(str(tmp_path)), make_instance("mug", 0)
    shown = anything(front_view(mug), bank, np.random.default_rng(0))
    assert shown[..., 0].min() > 0.3 and shown[..., 1:].max() == 0
    config = replace(VARIED, pictures=str(tmp_path))
    pictures = [sample_rendering("car", n, n, 48, config).image for n in range(12)]
    assert any(((p[..., 0] > 90) & (p[..., 1:].max(-1) < 60)).mean() > 0.2 for p in pictures)


def test_an_empty_folder_of_photographs_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no photographs"):
        picture_bank(str(tmp_path))


def test_a_picture_without_its_object_shows_the_same_surroundings():
    whole, empty = (sample_rendering("car", 11, 5, 64, replace(VARIED, empty=absent)) for absent in (False, True))
    assert whole.mask.any() and not empty.mask.any() and np.isnan(empty.canonical).all() and np.isnan(empty.box).all()
    same = (whole.image == empty.image).all(-1)
    assert same[~whole.mask].mean() > 0.4 and same[whole.mask].mean() < 0.2


@pytest.mark.slow
def test_furniture_fills_a_room_and_leaves_the_line_of_sight(monkeypatch):
    screen, plain = make_instance("tvmonitor", 1, "varied"), replace(VARIED, scene=scenes.SceneConfig(occluder_rate=0.0))

    def shown(kind):
        monkeypatch.setattr(scenes, "pick", lambda rng, weighted: (1.0, kind))
        return [render(screen, front_view(screen), seed, plain) for seed in range(8)]

    rooms, alone = shown("room"), shown("studio")
    assert np.mean([room.mask.sum() / free.mask.sum() for room, free in zip(rooms, alone, strict=True)]) > 0.7
    assert sum(np.unique(r.depth[~r.mask & np.isfinite(r.depth)].round(1)).size > 20 for r in rooms) >= 4
