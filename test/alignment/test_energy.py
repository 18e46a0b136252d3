"""Every term of the energy: gradients in float64, exactness of the maximum, the distance field."""

import numpy as np
import pytest
import torch
from published.likelihood import combined_log_likelihood
from simulated_category import empty_betas, moment_betas

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.category_tensors import semantic_sd
from semalign3d_core.alignment.config import ObservationConfig
from semalign3d_core.geometry.mask_field import distance_field


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def random(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.fixture
def scene(generator):
    """Pixels (U, 2), their log p_sem (U, J), projections (B, J, 2), sigma (B,)."""
    pixels, projections = 0.3 * random(generator, 20, 2), 0.3 * random(generator, 3, 15, 2)
    return -random(generator, 20, 15).abs(), pixels, projections, torch.tensor([0.3, 0.15, 0.08], dtype=torch.float64)


def field(mask):
    distance, offset, origin = (torch.from_numpy(values).double() for values in distance_field(mask, 60))
    return energy.DistanceField(distance, offset, origin, 1 / 60)


def test_dense_term_equals_the_naive_maximum(scene):
    log_semantic, pixels, projections, sigma = scene
    naive = -combined_log_likelihood(log_semantic, pixels, projections, sigma).exp().amax(-1).mean(-1)
    assert torch.allclose(energy.dense_reconstruction(log_semantic, pixels, projections, sigma), naive, atol=1e-12)


def test_dense_gradient_equals_that_of_the_naive_maximum(scene):
    log_semantic, pixels, projections, sigma = scene
    first, second = projections.clone().requires_grad_(), projections.clone().requires_grad_()
    energy.dense_reconstruction(log_semantic, pixels, first, sigma).sum().backward()
    (-combined_log_likelihood(log_semantic, pixels, second, sigma).exp().amax(-1).mean(-1)).sum().backward()
    assert torch.allclose(first.grad, second.grad, atol=1e-12)


def test_sparse_term_equals_the_naive_maximum(generator):
    cells, log_semantic = 0.3 * random(generator, 5, 30, 2), -random(generator, 5, 30).abs()
    points, sigma = 0.3 * random(generator, 2, 5, 2), torch.tensor([0.2, 0.1], dtype=torch.float64)
    distance2 = ((cells - points[:, :, None]) ** 2).sum(-1)
    naive = -(log_semantic - 0.5 * distance2 / (sigma**2)[:, None, None]).exp().amax(-1).mean(-1)
    assert torch.allclose(energy.sparse_reconstruction(log_semantic, cells, points, sigma), naive, atol=1e-12)
    assert torch.autograd.gradcheck(lambda p: energy.sparse_reconstruction(log_semantic, cells, p, sigma), points.requires_grad_())


def test_gradient_of_the_dense_term(scene):
    log_semantic, pixels, projections, sigma = scene
    assert torch.autograd.gradcheck(lambda p: energy.dense_reconstruction(log_semantic, pixels, p, sigma), projections.requires_grad_())


def test_gradient_of_the_geometric_term(generator):
    shapes = random(generator, 40, 6, 3) * 0.1 + random(generator, 6, 3)
    betas = moment_betas(shapes, pairs=20)
    keypoints = shapes[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: energy.geometric_consistency(x, betas), keypoints)


def test_geometric_term_of_empty_tables_is_zero(generator):
    assert torch.equal(energy.geometric_consistency(random(generator, 2, 6, 3), empty_betas()), torch.zeros(2, dtype=torch.float64))


def test_gradient_of_the_background_term(generator):
    mask = np.zeros((50, 60), bool)
    mask[20:35, 15:40] = True
    points = (torch.rand(2, 12, 2, dtype=torch.float64, generator=generator) * 1.4 - 0.2).requires_grad_()
    cap = torch.tensor(0.2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: energy.background(field(mask).sample(p), cap), points, eps=1e-7, atol=1e-4)


def test_background_is_exactly_zero_inside_and_the_distance_outside():
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    made = field(mask)
    inside = torch.tensor([[[21.0, 21.0], [30.0, 30.0], [39.0, 38.0]]], dtype=torch.float64) / 60
    outside = torch.tensor([[[10.0, 30.0], [30.0, 59.0], [45.0, 30.0]]], dtype=torch.float64) / 60
    assert torch.equal(made.sample(inside), torch.zeros(1, 3, dtype=torch.float64))
    assert torch.allclose(made.sample(outside) * 60, torch.tensor([[10.0, 20.0, 6.0]], dtype=torch.float64), atol=0.05)
    nearest = torch.tensor([[[20.0, 30.0], [30.0, 39.0], [39.0, 30.0]]], dtype=torch.float64) / 60
    column, row = ((outside - made.origin) / made.spacing).round().long().unbind(-1)
    assert torch.allclose(outside + made.offset[row, column], nearest, atol=1e-6)
    assert float(energy.background(made.sample(outside), torch.tensor(0.05, dtype=torch.float64))) == pytest.approx(0.05)


def test_nothing_is_charged_beyond_a_side_that_the_mask_touches():
    mask = np.zeros((60, 60), bool)
    mask[30:60, 20:40] = True
    beyond = torch.tensor([[[30.0, 75.0]], [[30.0, -10.0]]], dtype=torch.float64) / 60
    distance = field(mask).sample(beyond)[:, 0]
    assert distance[0] == 0 and distance[1] > 0.5


def test_depth_term_is_the_squared_mean_depth(generator):
    keypoints = random(generator, 2, 6, 3)
    assert torch.allclose(energy.depth_regularisation(keypoints), (keypoints[..., 2].mean(-1) - 1) ** 2)
    assert torch.autograd.gradcheck(energy.depth_regularisation, keypoints.requires_grad_())


def test_terms_of_a_batch_are_those_of_its_members(scene):
    log_semantic, pixels, projections, sigma = scene
    together = energy.dense_reconstruction(log_semantic, pixels, projections, sigma)
    alone = torch.cat([energy.dense_reconstruction(log_semantic, pixels, projections[b : b + 1], sigma[b : b + 1]) for b in range(3)])
    assert torch.allclose(together, alone, atol=1e-14)


def test_float32_agrees_with_float64(scene):
    single = [value.float() for value in scene]
    assert torch.allclose(energy.dense_reconstruction(*single).double(), energy.dense_reconstruction(*scene), atol=1e-5)


def test_total_is_the_weighted_sum():
    terms = {"dense": torch.tensor([1.0, 2.0]), "sparse": torch.tensor([3.0, 4.0])}
    assert torch.equal(energy.total(terms, {"dense": 2.0, "sparse": 0.5}), torch.tensor([3.5, 6.0]))


def test_the_semantic_likelihood_is_one_sided():
    similarity = torch.tensor([[0.9, 0.5, 0.4], [0.9, 0.5, 0.4]])
    log = energy.log_semantic(similarity, torch.tensor([[0.5], [0.5]]), torch.tensor([[0.1], [0.05]]))
    assert torch.allclose(log, torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, -2.0]]), atol=1e-5)


def test_standard_deviations_of_the_likelihood_are_scaled_and_have_a_floor():
    sd = semantic_sd(torch.tensor([0.3, 0.01, torch.nan]), ObservationConfig(sd_scale=0.5, sd_floor=0.02))
    assert torch.allclose(sd, torch.tensor([0.15, 0.02, 0.02]))
