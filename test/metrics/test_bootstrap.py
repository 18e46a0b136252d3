"""Bootstrap over images: a pair counts by its images, intervals shrink with images and cover the truth."""

import numpy as np
import pytest

from semalign3d_core.metrics.bootstrap import ImageBootstrap, interval, share


def test_a_pair_counts_as_often_as_its_images_were_drawn():
    sources, targets = ["a", "a", "b", "x"], ["b", "c", "c", "y"]
    bootstrap = ImageBootstrap(["k", "k", "k", "other"], sources, targets, draws=50)
    weights = bootstrap.weights["k"]
    assert weights.shape == (50, 3) and bootstrap.weights["other"].shape == (50, 1)
    for draw in weights:  # counts n_a + n_b + n_c = 3 of three images
        assert any(np.array_equal(draw, [a * b, a * (3 - a - b), b * (3 - a - b)]) for a in range(4) for b in range(4 - a))
    again = ImageBootstrap(["k", "k", "k", "other"], sources, targets, draws=50)
    assert np.array_equal(weights, again.weights["k"])


@pytest.mark.parametrize("images", [10, 40])
def test_intervals_cover_the_mean_of_new_images(images):
    """Scores made of effects of images: the interval holds the true mean in at least 85 of 100 samples."""
    inside, width = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        effect = rng.normal(size=images)
        pairs = [(a, b) for a in range(images) for b in range(images) if a != b][:: max(images // 10, 1)]
        values = np.array([[effect[a] + effect[b]] for a, b in pairs])
        bootstrap = ImageBootstrap(["k"] * len(pairs), [a for a, _ in pairs], [b for _, b in pairs], draws=200, seed=seed)
        low, high = interval(share(bootstrap.sums(values)["k"], bootstrap.sums(np.ones((len(pairs), 1)))["k"])[:, 0])
        inside += low <= 0 <= high
        width.append(high - low)
    assert inside >= 85 and np.mean(width) < 100 * 8 / np.sqrt(images)


def test_no_interval_without_values():
    assert interval(np.full(10, np.nan)) is None and interval(np.array([1.0] * 10)) == [1.0, 1.0]
