"""Beta distributions and geometric features: values against scipy, properties, gradients."""

import numpy as np
import pytest
import torch
from published.beta_fit import fit
from scipy import stats

from semalign3d_core.category.statistics import beta, geometric_features
from semalign3d_core.category.statistics import beta_tables as statistics
from semalign3d_core.category.statistics.geometric_features import (
    edge_pair_features,
    edge_pairs,
    geometric_loss,
    masked_mean_variance,
    triangle_vertex_features,
    triangles_with_vertex,
    triple_features,
)


@pytest.mark.parametrize(("a", "b"), [(2.0, 5.0), (0.5, 0.7), (80.0, 3.0), (1.0, 1.0)])
def test_fit_is_the_maximum_of_the_likelihood(a, b):
    samples = np.random.default_rng(0).beta(a, b, 400)
    alpha, beta_ = (float(v) for v in fit(torch.from_numpy(samples)))
    expected = stats.beta.fit(samples, floc=0, fscale=1)
    assert alpha == pytest.approx(expected[0], rel=1e-3) and beta_ == pytest.approx(expected[1], rel=1e-3)


def test_fit_survives_data_without_spread_and_nan():
    alpha, beta_ = fit(torch.tensor([[0.3] * 5, [1.0] * 5, [0.2, float("nan"), 0.3, 0.4, 0.5]]))
    assert torch.isfinite(alpha).all() and torch.isfinite(beta_).all() and (alpha > 0).all()
    assert float(alpha[0] / (alpha[0] + beta_[0])) == pytest.approx(0.3, abs=1e-3)
    assert (float(alpha[2]), float(beta_[2])) == (1.0, 1.0)


@pytest.mark.slow
def test_log_density_mode_and_variance_agree_with_scipy():
    alpha, beta_ = torch.tensor([2.0, 0.5, 7.0]).double(), torch.tensor([3.0, 4.0, 7.0]).double()
    x = torch.tensor([0.2, 0.4, 0.6]).double()
    torch.testing.assert_close(geometric_features.log_density(x, alpha, beta_), torch.from_numpy(stats.beta.logpdf(x, alpha, beta_)))
    torch.testing.assert_close(beta.variance(alpha, beta_), torch.from_numpy(stats.beta.var(alpha, beta_)))
    assert beta.mode(alpha, beta_).tolist() == pytest.approx([1 / 3, 0.0, 0.5])


def test_features_ignore_similarity_and_know_chirality():
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    rotation *= torch.linalg.det(rotation).sign()
    edge1, edge2 = edge_pairs(6)
    triangle, vertex = triangles_with_vertex(6)
    moved = 3 * points @ rotation.T + 1
    for first, second in zip(edge_pair_features(points, edge1, edge2), edge_pair_features(moved, edge1, edge2), strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    own = triangle_vertex_features(points, triangle, vertex)
    torch.testing.assert_close(own, triangle_vertex_features(moved, triangle, vertex), atol=1e-4, rtol=1e-4)
    mirrored = triangle_vertex_features(points * torch.tensor([-1.0, 1, 1]), triangle, vertex)
    torch.testing.assert_close(mirrored[:, 2], -own[:, 2], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mirrored[:, :2], own[:, :2], atol=1e-6, rtol=1e-6)


def test_masked_statistics_use_only_what_is_seen():
    values = torch.tensor([[1.0, 5.0], [3.0, 7.0], [100.0, 9.0]])
    mask = torch.tensor([[True, False], [True, False], [False, True]])
    mean, variance = masked_mean_variance(values, mask)
    assert mean.tolist() == [2.0, 9.0] and variance.tolist() == [2.0, 0.0]


def test_gradients_of_features_and_loss():
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    table = _table(points.detach())
    assert torch.autograd.gradcheck(lambda p: triple_features(p)[1].sum(), points, atol=1e-5)
    assert torch.autograd.gradcheck(lambda p: geometric_loss(p, table), points, atol=1e-4)


def test_coincident_points_have_finite_gradients():
    points = torch.zeros(5, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(geometric_loss(points, _table(torch.randn(5, 3))), points)
    assert torch.isfinite(gradient).all()


def _table(shape):
    instances = shape + 0.05 * torch.randn(60, *shape.shape, generator=torch.Generator().manual_seed(3)).to(shape)
    return statistics.beta_table(instances, torch.ones(60, len(shape), dtype=torch.bool))


def test_statistics_do_not_depend_on_chunks(monkeypatch):
    points = torch.randn(50, 6, 3, generator=torch.Generator().manual_seed(0))
    visible = torch.rand(50, 6, generator=torch.Generator().manual_seed(1)) > 0.2
    edge1, edge2 = edge_pairs(6)
    whole = statistics.fit_edge_pairs(points, visible, edge1, edge2)
    monkeypatch.setattr(statistics, "CHUNK_VALUES", 500)
    parts = statistics.fit_edge_pairs(points, visible, edge1, edge2)
    torch.testing.assert_close(whole[0], parts[0], rtol=1e-4, atol=1e-6)
    assert torch.equal(whole[1], parts[1])


def test_features_without_samples_are_uniform_and_invalid():
    points = torch.randn(50, 5, 3)
    visible = torch.ones(50, 5, dtype=torch.bool)
    visible[:, 4] = False
    table = statistics.beta_table(points, visible)
    assert not (table.edge1 == 4).any() and not (table.vertex == 4).any() and len(table.edge1) > 0
    fitted, counts = statistics.fit_edge_pairs(points, visible, *edge_pairs(5))
    assert (fitted[counts == 0] == 1).all()
