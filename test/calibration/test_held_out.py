"""Models that have not seen an image: which views they are made of, and that their shape does not come from the others."""

from dataclasses import replace

import pytest
import torch
from random_category import random_category

from semalign3d_core.calibration import folds as module
from semalign3d_core.calibration.folds import models_with_held_out
from semalign3d_core.category.annotations.checks import Problems
from semalign3d_core.category.build import Training
from semalign3d_core.category.config import BuildConfig, EmOptions
from semalign3d_core.category.progress import Clock, no_progress
from semalign3d_core.category.shape.find import find_shape

CONFIG = BuildConfig(em=EmOptions(rounds=8))


@pytest.fixture(autouse=True)
def parts_of_models(monkeypatch):
    """Instead of models what they would be made of: views and shape, and whether these are all."""
    monkeypatch.setattr(module, "whole_model", lambda training, progress: (training.views, training.shape, True))
    monkeypatch.setattr(module, "model_of", lambda training, views, shape, *_: (views, shape, False))


def models_of(count, shape, folds=3, config=CONFIG, progress=no_progress):
    training = Training("thing", None, None, config, list(range(count)), None, shape, Problems(), Clock())
    return list(models_with_held_out(training, folds, progress))


@pytest.mark.slow
def test_no_model_is_made_of_the_view_it_is_for():
    data, _ = random_category(images=10, keypoints=8, seed=1)
    shape = find_shape(data, CONFIG)
    steps = []
    (everything, same, whole), *models = models_of(10, shape, progress=lambda *step: steps.append(step))
    assert steps[-1][1:] == (2, 3)
    assert everything == list(range(10)) and same is shape and whole and len(models) == 3
    for n in range(10):
        views, part, whole = models[n % 3]
        assert n not in views and len(views) in (6, 7) and not whole
        kept = torch.tensor(views)
        assert torch.equal(part.data.points, data.points[kept]) and torch.equal(part.data.flip, data.flip)
        assert len(part.model.rotation) == len(part.model.displacement) == len(part.data.visible) == len(views)
        assert part.model.shape.shape == shape.model.shape.shape and part.model.covariance.shape == shape.model.covariance.shape


@pytest.mark.slow
def test_the_shape_of_a_fold_forgets_its_images():
    """What is thought of an image has no part in the mean of the fold that leaves it out."""
    data, _ = random_category(images=12, keypoints=8, seed=2)
    shape = find_shape(data, CONFIG)
    strange = shape.model.displacement.clone()
    strange[0] += 0.5 * torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = replace(shape, model=replace(shape.model, displacement=strange))
    parts = [models_of(12, start)[1][1] for start in (moved, shape)]
    without_it, usual = (part.model.shape for part in parts)
    assert torch.allclose(without_it, usual)


@pytest.mark.slow
def test_without_folds_there_are_none():
    data, _ = random_category(images=6, keypoints=8, seed=1)
    shape = find_shape(data, CONFIG)
    assert [[whole for *_, whole in models_of(6, shape, folds)] for folds in (0, 1, 2)] == [[True], [True], [True, False, False]]


@pytest.mark.slow
def test_the_published_shape_is_kept():
    data, _ = random_category(images=6, keypoints=8, seed=1)
    shape = find_shape(data, CONFIG)
    models = models_of(6, shape, config=replace(CONFIG, method="reference"))
    assert len(models) == 4 and all(torch.equal(part.model.shape, shape.model.shape) for _, part, _ in models)
