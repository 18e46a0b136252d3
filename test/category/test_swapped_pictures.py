"""Pictures with left and right exchanged are found by features, by what is seen and by perspective; right ones are not accused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_category import random_category
from torch.nn.functional import normalize

from semalign3d_core.category.annotations.swaps import depth_scores, left_right_scores, look_swapped, swapped_odds
from semalign3d_core.category.config import EmOptions
from semalign3d_core.category.shape.em import expectation, fit_factor_model, image_costs, posed_anew
from semalign3d_core.category.shape.factor_model import rigid_model
from semalign3d_core.category.shape.find import exchange_evidence
from semalign3d_core.category.shape.mirror import symmetrised

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


def poses(seed, count=30, swapped=()):
    """Depth (N, K) and visibility of keypoints of which the nearer ones are seen, with errors; in reversed poses the farther ones are."""
    rng = np.random.default_rng(seed)
    depth = rng.normal(size=(count, len(FLIP)))
    seen = depth + rng.normal(scale=0.5, size=depth.shape) < 0
    seen[:, 0], seen[:, 1] = True, False
    depth[list(swapped)] *= -1
    return torch.from_numpy(depth), torch.from_numpy(seen)


def count(cues):
    """(found, falsely accused) over 20 seeds with two exchanged pictures of 30; cues(seed, swapped) -> what there is to go by."""
    found, false = 0, 0
    for seed in range(20):
        swapped = set(np.random.default_rng(seed).choice(30, 2, replace=False).tolist())
        flagged = set(np.flatnonzero(look_swapped(swapped_odds(*cues(seed, swapped)))).tolist())
        found, false = found + len(flagged & swapped), false + len(flagged - swapped)
    return found, false


def of_features(seed, swapped, told=0.5):
    return left_right_scores(pictures(seed, swapped=swapped, told=told), FLIP)


def of_depth(seed, swapped):
    return depth_scores(*poses(seed, swapped=swapped))


def test_both_of_thirty_are_found_on_twenty_seeds_with_few_false_alarms():
    found, false = count(lambda seed, swapped: [of_features(seed, swapped)])
    assert found == 40 and false < 20  # fewer than one per 30 pictures


def test_features_that_hardly_tell_are_helped_by_what_is_seen():
    alone, _ = count(lambda seed, swapped: [of_features(seed, swapped, told=0.1)])
    found, false = count(lambda seed, swapped: [of_features(seed, swapped, told=0.1), of_depth(seed, swapped)])
    assert alone < found and found >= 36


def test_features_that_do_not_tell_accuse_hardly_anybody():
    assert count(lambda seed, swapped: [of_features(seed, (), told=0.0)])[1] < 20


def test_pictures_whose_look_misleads_are_judged_by_the_other_cues():
    """A network takes left for right in three pictures of 30. With one cue they are accused, with three they are not."""
    look, seen, explained = (np.random.default_rng(seed).normal(-3, 0.5, 30) for seed in range(3))
    look[:3] *= -1
    assert look_swapped(swapped_odds(look))[:3].all()
    assert not look_swapped(swapped_odds(look, seen, explained=explained)).any()
    look[3], seen[:4], explained[:4] = -look[3], -seen[:4], -explained[:4]  # exchanged: all cues of the fourth, two of the others
    assert np.flatnonzero(look_swapped(swapped_odds(look, seen, explained=explained))).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("depth_known", "sure"), [(False, 1.0), (True, 5.0)])
def test_a_pose_explains_exchanged_labels_worse_by_perspective_and_by_known_depths(depth_known, sure):
    data, truth = random_category(images=30, seed=3)
    swapped = torch.zeros(30, dtype=torch.bool)
    swapped[[4, 17]] = True
    changed = {
        name: torch.where(swapped.view(-1, *[1] * (getattr(data, name).ndim - 1)), getattr(data.exchanged, name), getattr(data, name))
        for name in ("points", "visible", "inverse", "measured")
    }
    data = replace(data, **changed)
    if not depth_known:
        data = replace(data, measured=torch.zeros_like(data.measured), inverse=torch.zeros_like(data.inverse))
    model = fit_factor_model(symmetrised(truth.shape, data.flip), data, EmOptions(rounds=15))
    odds = exchange_evidence(model, data)[0]
    assert odds[swapped].min() > sure and odds[~swapped].max() < 0


@pytest.mark.parametrize(("flat", "seed"), [((1, 0.15, 1), 1), ((1, 1, 0.15), 0)])
def test_nearly_flat_shapes_are_explained_as_well_as_by_the_true_pose(flat, seed):
    """A new pose is by chance the reversal of the true one (of 4 and 9 of the 30 pictures here): both are tried."""
    data, truth = random_category(images=30, seed=seed)
    shapes = truth.shapes * torch.tensor(flat).double()
    shape, translation = symmetrised(shapes.mean(0), data.flip), torch.tensor([0, 0, 2.5]).double().expand(30, 3)
    true = shapes @ truth.rotation.mT + translation[:, None]
    points, unknown = data.visible[..., None] * 1.5 * true[..., :2] / true[..., 2:], torch.zeros_like(data.inverse)
    data = replace(data, points=points, inverse=unknown, measured=unknown.bool())
    difference = (shapes - shape).flatten(1)
    covariance = difference.T @ difference / 30 + 1e-5 * torch.eye(30).double()
    model = rigid_model(shape, covariance, truth.rotation, translation, data)
    least = image_costs(expectation(model, data, 12)[0], data)
    wrong = image_costs(expectation(posed_anew(model, data), data, 12)[0], data) > least + 2
    assert wrong.sum() >= 4
    odds, camera = exchange_evidence(posed_anew(model, data), data)
    assert odds[wrong].max() < 0.5 and (camera - true).norm(dim=-1)[wrong].mean() < 0.1


def test_labels_exchanged_twice_are_the_labels(seed=5):
    data, _ = random_category(images=4, seed=seed)
    assert torch.equal(data.exchanged.exchanged.points, data.points) and not torch.equal(data.exchanged.points, data.points)
    assert torch.equal(data.exchanged.flip, data.flip) and replace(data, flip=None).exchanged.points is data.points


def test_a_cue_that_is_unknown_counts_for_nothing():
    known, unknown = np.array([-2.0, -1.0, -1.5, 2.0]), np.full(4, np.nan)
    assert np.allclose(swapped_odds(known, unknown), swapped_odds(known)) and np.isnan(swapped_odds(unknown)).all()
    assert not look_swapped(swapped_odds(unknown)).any()


@pytest.mark.parametrize("flip", [None, torch.arange(7)])
def test_objects_without_left_and_right(flip):
    scores = left_right_scores(pictures(0), flip)
    assert np.isnan(scores).all() and not look_swapped(scores).any()
