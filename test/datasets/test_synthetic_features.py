"""Simulated features: meaning is shared between instances, sides are folded, mirror images are consistent."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semalign3d_core.datasets.synthetic import KEYPOINTS, RenderConfig, sample_rendering
from semalign3d_core.datasets.synthetic.scene import SceneConfig
from semalign3d_core.datasets.synthetic.simulated_features import SimulatedFeatureConfig, simulated_features
from semalign3d_core.datasets.synthetic.viewpoints import ViewConfig
from semalign3d_core.geometry.image_grid import SquareGrid, mirror_points
from semalign3d_core.perception.evidence import FeatureMap
from semalign3d_core.runtime.errors import InputError

CLEAN = SimulatedFeatureConfig(noise=0.0, blur=0.0, instance_change=0.0, blobs=(0, 0), offset=0.0)
PLAIN = RenderConfig(ViewConfig(small_rate=0.0, truncation_rate=0.0), SceneConfig(occluder_rate=0.0), samples=1)


@pytest.fixture(scope="module")
def cars():
    return [sample_rendering("car", 20 + n, n, 192, PLAIN) for n in range(6)]


def keypoint_features(rendering, config, mirrored=False):
    """{keypoint: unit feature at its place}, of the visible keypoints; of the mirror image under its new label."""
    height, width = rendering.mask.shape
    grid = SquareGrid(height, width, config.cells)
    values = FeatureMap(torch.from_numpy(simulated_features(rendering, config, mirrored)), grid)
    points = mirror_points(rendering.keypoints_2d, width) if mirrored else rendering.keypoints_2d
    flip = KEYPOINTS[rendering.category].flip_permutation
    sampled = values.sample(torch.as_tensor(points, dtype=torch.float32).nan_to_num())
    return {flip[k] if mirrored else k: sampled[k] for k in np.flatnonzero(rendering.visible)}


def similarity(first, second, pairs):
    return float(np.mean([float(first[a] @ second[b]) for a, b in pairs if a in first and b in second]))


def compare(cars, config):
    """Mean cosine of the same keypoint, of its mirror partner and of other keypoints, between different cars."""
    flip = KEYPOINTS["car"].flip_permutation
    tables = [keypoint_features(r, config) for r in cars]
    same, partner, other = [], [], []
    for i, first in enumerate(tables):
        for second in tables[i + 1 :]:
            for a in first:
                for b in second:
                    group = same if a == b else partner if flip[a] == b else other
                    group.append(float(first[a] @ second[b]))
    return np.mean(same), np.mean(partner), np.mean(other)


@pytest.mark.slow
def test_same_meaning_is_similar_on_other_instances(cars):
    same, _, other = compare(cars, CLEAN)
    assert same > 0.8 and same > other + 0.4


@pytest.mark.slow
def test_folding_decides_how_alike_left_and_right_are(cars):
    gaps = {}
    for folding in (0.0, 0.85, 1.0):
        same, partner, _ = compare(cars, replace(CLEAN, folding=folding))
        gaps[folding] = same - partner
    assert gaps[0.0] > 0.3 > gaps[0.85] > gaps[1.0] - 0.02
    assert abs(gaps[1.0]) < 0.08


@pytest.mark.slow
def test_features_of_the_mirror_image_are_those_of_the_mirrored_object(cars):
    """The left wheel of the mirror image looks like the left wheel of a picture, although it shows the right one."""
    config = replace(CLEAN, folding=0.0)
    mirrored, straight = {}, {}
    for r in cars:
        mirrored |= keypoint_features(r, config, mirrored=True)
        straight |= keypoint_features(r, config)
    flip = KEYPOINTS["car"].flip_permutation
    labels = [k for k in straight if k in mirrored]
    right = similarity(straight, mirrored, [(k, k) for k in labels])
    assert right > 0.75
    assert right > similarity(straight, mirrored, [(k, flip[k]) for k in labels]) + 0.3


@pytest.mark.slow
def test_surroundings_are_mirrored_with_the_picture(cars):
    config = replace(CLEAN, folding=1.0)
    straight, mirrored = (simulated_features(cars[0], config, flag) for flag in (False, True))
    np.testing.assert_allclose(straight[..., ::-1], mirrored, atol=0.35)
    assert np.mean(np.sum(straight[..., ::-1] * mirrored, axis=0)) > 0.97


def test_noise_lowers_similarity_and_differs_between_picture_and_mirror_image(cars):
    clean, noisy = (simulated_features(cars[0], replace(CLEAN, folding=1.0, noise=n)) for n in (0.0, 0.6))
    assert 0.75 < np.mean((clean * noisy).sum(0)) < 0.95  # 1 / sqrt(1 + 0.36)
    mirrored = simulated_features(cars[0], replace(CLEAN, folding=1.0, noise=0.6), mirrored=True)
    assert np.mean((noisy[..., ::-1] * mirrored).sum(0)) < 0.85


def test_shape_norm_and_reproducibility(cars):
    config = SimulatedFeatureConfig(channels=24, cells=20)
    values = simulated_features(cars[0], config)
    assert values.shape == (24, 20, 20) and values.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(values, axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(values, simulated_features(cars[0], config))
    assert abs(values - simulated_features(cars[0], replace(config, seed=1))).max() > 0.1


def test_oblong_pictures_keep_their_place_on_the_grid():
    r = sample_rendering("car", 1, 1, (96, 160), PLAIN)
    shares = SquareGrid(96, 160, 40).cells_inside(torch.from_numpy(r.mask))
    inside, outside = shares > 0.9, shares == 0
    clean = simulated_features(r, replace(CLEAN, cells=40))
    shifted = simulated_features(r, replace(CLEAN, cells=40, seed=1))
    assert clean.shape == (96, 40, 40) and inside.any() and outside.any()
    assert not np.allclose(clean[:, inside], shifted[:, inside])


@pytest.mark.parametrize("wrong", [{"folding": 1.2}, {"noise": -0.1}, {"channels": 0}, {"wavelength": 0.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match="simulated features"):
        SimulatedFeatureConfig(**wrong)
