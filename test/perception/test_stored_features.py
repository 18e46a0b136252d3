"""Feature maps in the precision of their files: the same numbers as widening first, in half the memory."""

import pytest
import torch

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.stored_features import StoredFeatureMap

GRID = SquareGrid(50, 70, 12)


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32])
def features(request):
    values = 7 * torch.randn(100, 12, 12, generator=torch.Generator().manual_seed(0))  # of any norm, as files hold them
    return StoredFeatureMap(values.to(request.param), GRID)


def test_every_reading_is_that_of_the_widened_map(features):
    wide, generator = features.widened(), torch.Generator().manual_seed(1)
    assert features.values.dtype == wide.values.dtype == torch.float32 and features.grid is wide.grid
    assert torch.allclose(wide.values.norm(dim=0), torch.ones(12, 12), atol=1e-5)
    assert torch.allclose(wide.values, torch.nn.functional.normalize(features.stored.float(), dim=0), atol=1e-6)
    pixels = torch.rand(2, 5, 2, generator=generator) * torch.tensor([80.0, 60.0]) - 5  # some outside the image
    assert torch.allclose(features.sample(pixels), wide.sample(pixels), atol=1e-6)
    rows, columns = torch.randint(12, (2, 9), generator=generator)
    assert torch.allclose(features.of_cells(rows, columns), wide.of_cells(rows, columns), atol=1e-6)
    queries = torch.nn.functional.normalize(torch.randn(7, 100, generator=generator), dim=1)
    assert torch.allclose(features.similarity(queries), wide.similarity(queries), atol=1e-6)
    assert features.similarity(queries[:0]).shape == (0, 144)


def test_a_similarity_at_a_cells_own_feature_is_one(features):
    index = torch.arange(12)
    similarity = features.similarity(features.of_cells(index, index))
    assert torch.allclose(similarity[index, index * 12 + index], torch.ones(12), atol=1e-5)


def test_cells_without_any_feature_stay_zero():
    features = StoredFeatureMap(torch.zeros(4, 12, 12, dtype=torch.float16), GRID)
    assert features.finite and not features.values.any() and not features.similarity(torch.ones(1, 4)).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_noticed(bad):
    values = torch.ones(4, 12, 12, dtype=torch.float16)
    values[2, 3, 4] = bad
    assert not StoredFeatureMap(values, GRID).finite


def test_the_same_device_costs_nothing(features):
    assert features.to("cpu") is features
