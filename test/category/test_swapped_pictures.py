"""Pictures with left and right exchanged are found by their features, honest ones are not accused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from semalign3d_core.category.annotations.swaps import left_right_scores, look_swapped

FLIP = torch.tensor([1, 0, 3, 2, 5, 4, 6])


def pictures(seed, count=30, told=0.5, noise=1.0, swapped=()):
    """Views whose paired keypoints share most of their features; ``told`` of the length is their own. Half of the keypoints are seen."""
    generator = torch.Generator().manual_seed(seed)
    common, own = (torch.randn(len(FLIP), 32, generator=generator) for _ in range(2))
    common = (common + common[FLIP]) / 2**0.5
    left = common + told * (own - own[FLIP])
    views = []
    for n in range(count):
        seen = torch.rand(len(FLIP), generator=generator) > 0.4
        seen[2] = True  # of every picture something with a left and a right is seen
        plain, mirror = (
            normalize(left[order] + noise * torch.randn(len(FLIP), 32, generator=generator), dim=-1) for order in (slice(None), FLIP)
        )
        if n in swapped:
            plain, mirror, seen = plain[FLIP], mirror[FLIP], seen[FLIP]
        features = [(values * seen[:, None]).half() for values in (plain, mirror)]
        views.append(SimpleNamespace(keypoint_features=features[0], mirrored_keypoint_features=features[1], annotated=seen))
    return views


def test_both_of_thirty_are_found_on_twenty_seeds_with_few_false_alarms():
    found, false = 0, 0
    for seed in range(20):
        swapped = set(np.random.default_rng(seed).choice(30, 2, replace=False).tolist())
        flagged = set(np.flatnonzero(look_swapped(left_right_scores(pictures(seed, swapped=swapped), FLIP))).tolist())
        found += len(flagged & swapped)
        false += len(flagged - swapped)
    assert found == 40 and false < 20  # fewer than one per 30 pictures


def test_features_that_do_not_tell_accuse_hardly_anybody():
    flagged = [look_swapped(left_right_scores(pictures(seed, told=0.0), FLIP)).sum() for seed in range(20)]
    assert sum(flagged) < 20


@pytest.mark.parametrize("flip", [None, torch.arange(7)])
def test_objects_without_left_and_right(flip):
    scores = left_right_scores(pictures(0), flip)
    assert np.isnan(scores).all() and not look_swapped(scores).any()
