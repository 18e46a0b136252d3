"""Likelihoods against vectors, schedules against their tables."""

import numpy as np
import pytest
import torch

from semalign3d_core.alignment import likelihood
from semalign3d_core.alignment.config import ReferenceConfig
from semalign3d_core.alignment.schedule import geometric, piecewise_linear

VECTOR = "test/data/vectors/semalign3d/presence_score.npz"


@pytest.fixture
def vector(request):
    with np.load(request.config.rootpath / VECTOR) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def test_presence_p_value(vector):
    score = likelihood.presence_p_value(vector["x"], vector["mean"], vector["var"].sqrt())
    assert torch.allclose(score, vector["score"], atol=2e-6, equal_nan=True)
    simple = likelihood.presence_p_value(vector["simple_x"], vector["simple_mean"], vector["simple_sd"])
    assert torch.allclose(simple, vector["simple_score"], atol=2e-6, equal_nan=True)


def test_max_normalised_normal(vector):
    distance, sigma = vector["dist"][:, None], vector["sigma"]
    assert torch.allclose(likelihood.log_normal_density(distance, sigma), vector["log_normal_pdf"], rtol=1e-4, atol=1e-5)
    assert torch.allclose(likelihood.log_spatial(distance, sigma), vector["log_max_normalised"], rtol=1e-4, atol=1e-5)
    assert torch.allclose(likelihood.log_spatial(distance, sigma).exp(), vector["max_normalised"], rtol=1e-4, atol=1e-5)


def test_semantic_likelihood_is_one_sided_and_floored():
    similarity = torch.tensor([[0.9, 0.5, 0.4], [0.9, 0.5, 0.4]])
    log = likelihood.semantic_log_likelihood(similarity, torch.tensor([0.5, 0.5]), torch.tensor([0.1, 0.001]), 0.05)
    assert torch.allclose(log, torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, -2.0]]), atol=1e-5)


def test_combined_likelihood_is_the_product():
    pixels, points = torch.tensor([[0.0, 0.0]]), torch.tensor([[[0.3, 0.4]]])
    log = likelihood.combined_log_likelihood(torch.tensor([[-1.0]]), pixels, points, torch.tensor([0.5]))
    assert log.item() == pytest.approx(-1.5)


def test_published_schedules():
    schedules = ReferenceConfig().schedules
    assert [piecewise_linear(s, *schedules.sigma_dense) for s in (0, 150, 300, 400, 900)] == pytest.approx([1, 0.55, 0.1, 0.065, 0.03])
    assert [piecewise_linear(s, *schedules.weight_sparse) for s in (400, 600, 700, 1000)] == pytest.approx([0, 5, 10, 1])
    bottle = ReferenceConfig().bottle
    assert piecewise_linear(800, *bottle.weight_background) == pytest.approx(0.5)
    assert piecewise_linear(300, *bottle.sigma_sparse) == pytest.approx(0.3)


def test_geometric_schedule_ends_early_and_stays():
    values = [geometric(step, 11, 0.1, 0.025, 0.5) for step in range(11)]
    assert values[0] == pytest.approx(0.1) and values[5:] == pytest.approx([0.025] * 6)
    assert values[1] / values[0] == pytest.approx(values[2] / values[1])
