"""Models that have not seen an image, so that what they say about it can be trusted: the folds of a calibration."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from semalign3d_core.category.build import Training, model_of, whole_model
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.progress import Progress
from semalign3d_core.category.shape.em import continued
from semalign3d_core.category.shape.find import ShapeResult
from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.runtime.threads import in_parallel

ROUNDS = 3  # of EM without a fold: the shapes of its objects leave mean and covariance at once, and poses of the others hardly change
CLUSTERING = 10  # iterations of k-means for models that only serve the calibration
SHARED = ("shape", "covariance", "flip")  # of the category, whatever their length


def models_with_held_out(training: Training, folds: int, progress: Progress) -> Generator[CategoryModel, None, None]:
    """Yields the model of all N views, then one for each of ``folds`` parts of them, built without the part.

    The n-th view is in part ``n % folds``; fewer than two parts are none. Dense cloud, features and poses of a part's model come from the
    other views alone (its Betas are empty, for nobody asks about them); its EM goes on from that of all views. With the published method
    the shape itself is kept, because its search takes minutes.
    """
    parts = range(folds if folds > 1 else 0)

    def made(fold: int) -> CategoryModel:
        return whole_model(training, progress) if fold < 0 else _without_fold(training, fold, folds)

    with closing(in_parallel(made, [-1, *parts])) as models:
        yield next(models)
        for fold in parts:
            progress("models without a part of the images", fold, folds)
            yield next(models)


def _without_fold(training: Training, fold: int, folds: int) -> CategoryModel:
    views = [view for n, view in enumerate(training.views) if n % folds != fold]
    return model_of(training, views, shape_without_fold(training, fold, folds), BetaTable.empty(), CLUSTERING)


def shape_without_fold(training: Training, fold: int, folds: int) -> ShapeResult:
    """The part of the shape that belongs to the views outside a fold."""
    shape, count = training.shape, len(training.views)
    kept = torch.tensor([n for n in range(count) if n % folds != fold])
    data, model = _rows(shape.data, kept, count), _rows(shape.model, kept, count)
    if training.config.method == "em":
        model = continued(model, data, ROUNDS)
    return replace(shape, model=model, data=data)


def _rows(value: Any, kept: Tensor, count: int) -> Any:
    """A dataclass of which those tensors that have one row for each of ``count`` views keep the rows ``kept``, also in nested ones."""
    changes = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, torch.Tensor) and part.ndim and len(part) == count and field.name not in SHARED:
            changes[field.name] = part[kept]
        elif hasattr(part, "__dataclass_fields__"):
            changes[field.name] = _rows(part, kept, count)
    return replace(value, **changes)
