"""Models that have not seen an image, so that what they say about it can be trusted: the folds of a calibration."""

from contextlib import closing
from dataclasses import fields, replace

import torch

from semalign3d_core.category.shape.factor_model import continued
from semalign3d_core.runtime.threads import in_parallel

ROUNDS = 3  # of EM without a fold: the shapes of its objects leave mean and covariance at once, and poses of the others hardly change
SHARED = ("shape", "covariance", "flip")  # of the category, whatever their length


def models_with_held_out(views, shape, config, make_model, folds, progress):
    """Yields the model of all N views and then one for each of ``folds`` parts of them, built without the part: the n-th view is in part
    ``n % folds``. Without parts (fewer than two) the first alone.

    shape: :class:`ShapeResult` of all N views; config: a :class:`BuildConfig`; make_model: (views, shape, whether they are all) ->
    :class:`CategoryModel` of some views with their part of a shape, called by several threads at a time. Dense cloud, features and poses
    of a part's model come from the other views alone; its EM goes on from that of all views. With the published method the shape itself
    is kept, because its search takes minutes.
    """
    parts = range(folds if folds > 1 else 0)

    def made(fold):
        return make_model(views, shape, True) if fold is None else _without_fold(fold, folds, views, shape, config, make_model)

    with closing(in_parallel(made, [None, *parts])) as models:
        yield next(models)
        for fold in parts:
            progress("models without a part of the images", fold, folds)
            yield next(models)


def _without_fold(fold, folds, views, shape, config, make_model):
    kept = torch.tensor([n for n in range(len(views)) if n % folds != fold])
    data, model = _rows(shape.data, kept, len(views)), _rows(shape.model, kept, len(views))
    if config.method == "em":
        model = continued(model, data, replace(config.em, rounds=ROUNDS))
    return make_model([views[n] for n in kept.tolist()], replace(shape, model=model, data=data), False)


def _rows(value, kept, count):
    """A dataclass of which those tensors that have one row for each of ``count`` views keep the rows ``kept``, also in nested ones."""
    changes = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, torch.Tensor) and part.ndim and len(part) == count and field.name not in SHARED:
            changes[field.name] = part[kept]
        elif hasattr(part, "__dataclass_fields__"):
            changes[field.name] = _rows(part, kept, count)
    return replace(value, **changes)
