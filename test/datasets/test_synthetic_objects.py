"""Parametric objects: correspondences between instances, mirror symmetry, keypoints, reproducibility."""

import numpy as np
import pytest

from semalign3d_core.datasets.synthetic import CATEGORIES, KEYPOINTS, WORLDS, make_instance, mean_shape, shows_its_turn
from semalign3d_core.datasets.synthetic.instances import template
from semalign3d_core.datasets.synthetic.writer import SPLITS, instance_range
from semalign3d_core.runtime.errors import InputError

MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(params=sorted(CATEGORIES))
def category(request):
    return request.param


@pytest.fixture(params=sorted(WORLDS))
def world(request):
    return request.param


def test_the_promised_categories_exist():
    assert set(CATEGORIES) >= {"bottle", "mug", "chair", "car", "aeroplane", "tvmonitor"}


def test_keypoints_and_their_flip_permutation(category):
    spec = KEYPOINTS[category]
    assert 8 <= len(spec.names) <= 15 and len(set(spec.names)) == len(spec.names)
    for k, other in enumerate(spec.flip_permutation):
        assert spec.flip_permutation[other] == k
        swapped = spec.names[k].replace("_left", "_@").replace("_right", "_left").replace("_@", "_right")
        assert spec.names[other] == swapped


def test_every_instance_mirrors_into_itself(category, world):
    flip = list(KEYPOINTS[category].flip_permutation)
    for seed in range(20):
        instance = make_instance(category, seed, world)
        np.testing.assert_allclose(instance.complete_keypoints[flip], instance.complete_keypoints * MIRROR, atol=1e-9)
        np.testing.assert_array_equal(np.isnan(instance.keypoints[flip]), np.isnan(instance.keypoints))
        surface = np.unique(np.round(instance.vertices, 6) + 0.0, axis=0)
        mirrored = np.unique(np.round(instance.vertices * MIRROR, 6) + 0.0, axis=0)
        assert abs(surface - mirrored).max() < 2e-6


def test_canonical_coordinates_mirror_with_the_surface(category, world):
    instance = make_instance(category, 5, world)
    on_left = instance.vertices[:, 0] > 1e-6
    assert (instance.canonical[on_left, 0] > -1e-6).all()


def test_the_frame_is_centred_and_of_unit_diameter(category, world):
    points = make_instance(category, 3, world).complete_keypoints
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    assert np.linalg.norm(points[:, None] - points, axis=-1).max() == pytest.approx(1)


def test_keypoints_lie_on_the_surface_and_keep_their_place_on_the_template(category, world):
    for seed in range(8):
        instance = make_instance(category, seed, world)
        for k in np.flatnonzero(np.isfinite(instance.keypoints).all(1)):
            distance = np.linalg.norm(instance.vertices - instance.keypoints[k], axis=1)
            name = KEYPOINTS[category].names[k]
            assert distance.min() < 0.05, name
            nearby = instance.canonical[distance < distance.min() + 0.02]
            assert np.linalg.norm(nearby - instance.canonical_keypoints[k], axis=1).min() < 0.1, name


def test_seeds_reproduce_and_differ(category):
    first, again, other = make_instance(category, 7), make_instance(category, 7), make_instance(category, 8)
    np.testing.assert_array_equal(first.vertices, again.vertices)
    assert abs(first.complete_keypoints - other.complete_keypoints).max() > 0.005


def test_instances_vary_in_proportions_and_parts(category, world):
    shapes = np.stack([make_instance(category, seed, world).complete_keypoints for seed in range(40)])
    assert np.sqrt(shapes.var(0).sum(-1).mean()) > 0.03
    assert len({make_instance(category, seed, world).faces.shape[0] for seed in range(40)}) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("category", "keypoint"),
    [("bottle", "collar_left"), ("chair", "arm_front_left"), ("chair", "leg_back_right"), ("aeroplane", "engine_left")],
)
def test_keypoints_of_absent_parts_are_missing(category, keypoint):
    k = KEYPOINTS[category].names.index(keypoint)
    missing = [np.isnan(make_instance(category, seed).keypoints[k]).all() for seed in range(60)]
    assert 0.05 < np.mean(missing) < 0.95


@pytest.mark.slow
def test_mean_shape_is_symmetric_and_representative(category):
    mean, flip = mean_shape(category, 60), list(KEYPOINTS[category].flip_permutation)
    np.testing.assert_allclose(mean[flip], mean * MIRROR, atol=1e-9)
    assert np.linalg.norm(mean[:, None] - mean, axis=-1).max() == pytest.approx(1)
    assert np.linalg.norm(mean - mean_shape(category, 60, first_seed=1000), axis=1).max() < 0.05
    assert np.linalg.norm(mean - template(category).complete_keypoints, axis=1).max() < 0.15


def test_the_varied_world_has_the_canonical_frame_of_the_simple_one(category):
    simple, varied = (make_instance(category, 4, world) for world in ("simple", "varied"))
    np.testing.assert_array_equal(simple.canonical_keypoints, varied.canonical_keypoints)
    low, high = (limit(template(category).vertices) - 0.2 * sign for limit, sign in ((lambda v: v.min(0), 1), (lambda v: v.max(0), -1)))
    for seed in range(20):
        canonical = make_instance(category, seed, "varied").canonical
        assert (canonical > low).all() and (canonical < high).all()


def test_the_varied_world_reaches_beyond_the_simple_one():
    ratio = {world: [_slenderness(make_instance("bottle", seed, world)) for seed in range(60)] for world in WORLDS}
    assert max(ratio["varied"]) > 1.15 * max(ratio["simple"])  # a wine bottle is slimmer than any of the simple world


def _slenderness(instance):
    extent = np.ptp(instance.vertices, axis=0)
    return extent[1] / extent[0]


def test_splits_draw_from_disjoint_instances():
    starts = sorted(instance_range(split) for split in SPLITS)
    assert len(starts) == 3
    assert all(before[1] <= after[0] for before, after in zip(starts, starts[1:], strict=False))


def test_only_a_mug_whose_handle_is_hidden_does_not_show_its_turn():
    for category, keypoints in KEYPOINTS.items():
        hidden = [not name.startswith("handle") for name in keypoints.names]
        assert shows_its_turn(category, [True] * len(hidden)) and shows_its_turn(category, hidden) == (category != "mug")


def test_an_unknown_category_names_the_known_ones():
    with pytest.raises(InputError, match=r"aeroplane.*tvmonitor"):
        make_instance("teapot", 0)
    with pytest.raises(InputError, match=r"simple.*varied"):
        make_instance("mug", 0, "real")
