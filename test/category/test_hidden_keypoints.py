"""Keypoints are not missing at random: rear corners are annotated where an object is deep. What the mask says about the others."""

from dataclasses import replace

import pytest
import torch
from random_category import box_category

from semalign3d_core.category.annotations.constellations import MaskFields
from semalign3d_core.category.config import EmOptions
from semalign3d_core.category.shape import em, image_terms
from semalign3d_core.category.shape.em import expectation, fit_factor_model, hidden_probability, image_costs
from semalign3d_core.category.shape.image_terms import mask_pull, places_around
from semalign3d_core.category.shape.mirror import symmetrised
from semalign3d_core.geometry.rotations import similarity_alignment

SHORT = EmOptions(rounds=20, hidden_rounds=15)
FRONT, REAR, STAND = slice(0, 4), slice(4, 8), slice(8, 10)


@pytest.fixture(scope="module")
def boxes():
    data, truth = box_category(images=80, seed=2)
    start = symmetrised(truth.shape, data.flip)
    return data, truth, fit_factor_model(start, replace(data, masks=None), SHORT), fit_factor_model(start, data, SHORT)


def depth_ratio(model, truth):
    """Found over true distance between front and rear of the mean shape."""
    scale, rotation, _ = similarity_alignment(model.shape, truth.shape)
    depths = [shape[FRONT, 2].mean() - shape[REAR, 2].mean() for shape in (scale * model.shape @ rotation.T, truth.shape)]
    return float(depths[0] / depths[1])


@pytest.mark.slow
def test_masks_correct_the_depth_that_annotated_corners_alone_overestimate(boxes):
    _, truth, without, model = boxes
    assert depth_ratio(without, truth) > 1.1
    assert abs(depth_ratio(model, truth) - 1) < 0.5 * (depth_ratio(without, truth) - 1)


@pytest.mark.slow
def test_all_places_where_a_hidden_corner_may_be_correct_more_than_the_most_probable_one(boxes, monkeypatch):
    data, truth, _, model = boxes
    for module in (em, image_terms):
        monkeypatch.setattr(module, "places_around", lambda places, spread: places[None])
    alone = fit_factor_model(symmetrised(truth.shape, data.flip), data, SHORT)
    assert abs(depth_ratio(model, truth) - 1) < 0.6 * abs(depth_ratio(alone, truth) - 1)


def test_places_around_have_the_mean_and_covariance_of_their_distribution():
    factor = torch.tensor([[[[0.3, 0.0], [0.2, 0.1]]]]).double()
    mean = torch.tensor([[[1.0, -2.0]]]).double()
    around = places_around(mean, factor)
    torch.testing.assert_close(around.mean(0), mean)
    gap = around - mean
    torch.testing.assert_close((gap[..., :, None] * gap[..., None, :]).mean(0), factor @ factor.transpose(-1, -2))


def test_only_the_most_probable_place_counts_where_keypoints_are_the_outline(boxes):
    """They lie on the edge of the mask: half of their places are beside it although nothing is wrong."""
    data, _, without, _ = boxes
    assert em._with_hidden(without, data, data.masks).spread is not None
    flat = replace(without, shape=without.shape * torch.tensor([1.0, 1.0, 0.0]).double())
    outline = em._with_hidden(flat, data, data.masks)
    assert outline.spread is None and outline.hidden.any()
    assert expectation(outline, data, 1)[0].spread is None
    places = torch.rand(2, 3, 2).double()
    assert torch.equal(places_around(places, None), places[None])


def test_pull_of_the_mask_is_the_descent_of_the_costs(boxes):
    """Beside a straight edge, where distances are exact, also for keypoints that lie inside with a part of their places outside."""
    data, _, _, model = boxes
    nodes = torch.arange(64).double() / 16 - 2
    offset = torch.zeros(len(data.points), 64, 64, 2).double()
    offset[..., 0] = (-nodes).clamp(min=0)  # the mask is the half plane x >= 0
    corner, spacing = torch.full((len(data.points), 2), -2.0).double(), torch.full((len(data.points), 2), 1 / 16).double()
    data = replace(data, masks=MaskFields(offset, corner, spacing))
    model = replace(model, hidden=torch.rand(model.hidden.shape).double(), spread=3 * model.spread)

    def half_cost(shift):
        moved = replace(model, translation=model.translation + shift)
        return (image_costs(moved, data) - image_costs(replace(moved, hidden=None), data)) / 2

    _, pull = mask_pull(model, model.hidden, model.in_camera(), data, data.masks)
    step = torch.tensor([1e-6, 0.0, 0.0]).double()
    slope = (half_cost(step) - half_cost(-step)) / 2e-6
    assert float(slope.abs().min()) > 0
    torch.testing.assert_close(-pull.sum(1)[:, 0], slope, rtol=2e-3, atol=1e-3)


def test_hidden_corners_lie_behind_the_mask(boxes):
    data, _, without, model = boxes
    hidden = ~data.visible[:, REAR]

    def beside(model):
        camera = model.in_camera()
        distance, _ = data.masks.beside(data.focal[:, None, None] * camera[..., :2] / camera[..., 2:])
        return float((distance[:, REAR] / data.size[:, None])[hidden].mean())

    assert beside(model) < 0.4 * beside(without)


def test_parts_that_objects_lack_are_told_from_hidden_ones(boxes):
    data, truth, _, model = boxes
    lacking = ~data.visible[:, STAND].any(1)
    assert lacking.sum() >= 10
    assert float(model.hidden[lacking][:, STAND].max()) < 0.1  # the mask says that there is no stand
    assert float(model.hidden[:, REAR][~data.visible[:, REAR]].mean()) > 0.5
    assert float(model.hidden[data.visible].abs().max()) == 0
    # so that stands stay where they are seen
    scale, rotation, shift = similarity_alignment(model.shape, truth.shape)
    assert float((scale * model.shape @ rotation.T + shift - truth.shape)[STAND].norm(dim=-1).max()) < 0.02


def test_costs_count_what_lies_beside_the_mask(boxes):
    data, _, _, model = boxes
    wrong = replace(model, translation=model.translation + torch.tensor([0.2, 0.0, 0.0]).double())
    added = [image_costs(m, data) - image_costs(replace(m, hidden=None), data) for m in (model, wrong)]
    assert float(added[0].min()) >= 0 and float(added[1].mean()) > 5 * float(added[0].mean())


def test_mask_fields_give_distance_and_way(boxes):
    data, _, _, _ = boxes
    points = torch.tensor([[-0.7, 0.0], [0.0, 0.0]]).double().expand(len(data.points), 2, 2)
    distance, way = data.masks.beside(points)
    edge = torch.stack([(data.points[n] * data.visible[n, :, None])[:, 0].min() for n in range(len(points))])
    assert float(distance[:, 1].max()) == 0  # all boxes cover the middle of the picture
    assert float(((edge + 0.7) - distance[:, 0]).abs().median()) < 0.1 and bool((way[:, 0, 0] > 0.5).all())
    moved, _ = data.masks.beside(points + 0.5 * distance[..., None] * way)
    torch.testing.assert_close(moved, 0.5 * distance, atol=0.02, rtol=0)


def test_probability_weighs_the_rate_of_absence_against_the_distance():
    visible = torch.zeros(20, 3, dtype=torch.bool)
    visible[:10] = True
    distance = torch.zeros(20, 3).double()
    distance[10:12, 1], distance[10:, 2] = 0.03, 0.2
    probability = hidden_probability(distance, torch.full((20, 3), 0.03**2).double(), visible, None)
    assert not probability[:10].any()
    assert probability[10:, 0].min() > 0.99  # inside the mask
    assert probability[10:, 1].min() > 0.9  # beside it by no more than the place is uncertain, and seldom
    assert probability[10:, 2].max() < 1e-3


def test_a_keypoint_that_is_always_annotated_is_never_hidden_however_far_the_mask_is():
    distance, visible = torch.tensor([[0.0, 5.0], [5.0, 0.0]], dtype=torch.float64), torch.ones(2, 2, dtype=torch.bool)
    assert (hidden_probability(distance, torch.full((2, 2), 1e-4, dtype=torch.float64), visible, None) == 0).all()
