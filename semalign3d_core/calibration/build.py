"""The build that users call: the model of a category (:mod:`semalign3d_core.category.build`) with its calibration."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.calibration.confidence_maps import calibrate
from semalign3d_core.calibration.folds import models_with_held_out
from semalign3d_core.category.annotations.views import Providers, record_camera
from semalign3d_core.category.build import Training, build_model, find_views_and_shape, finished, warn
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.progress import Progress, no_progress
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec
from semalign3d_core.perception.evidence import ImageEvidence, read_image
from semalign3d_core.perception.look import look
from semalign3d_core.perception.stored_features import StoredFeatureMap
from semalign3d_core.runtime.errors import SemAlign3DError

FOLDS = 4  # parts of the training images that are left out in turn
MOST_IMAGES = 24  # each costs a handful of alignments; more hardly change a few logistic maps


def build_category(
    category: str,
    spec: KeypointSpec,
    records: Iterable[ImageRecord],
    providers: Providers,
    config: BuildConfig | None = None,
    work_folder: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[CategoryModel, dict[str, Any]]:
    """The model of a category, calibrated if the configuration says so, and the report of how it was built (JSON-serialisable).

    Arguments and errors are those of :func:`~semalign3d_core.category.build.build_model`.
    """
    config, records = config or BuildConfig(), list(records)
    if not config.calibrate:
        return build_model(category, spec, records, providers, config, work_folder, progress)
    training = find_views_and_shape(category, spec, records, providers, config, work_folder, progress)
    model = calibrated(training, {record.name: record for record in records}, progress)
    training.clock.lap("calibration")
    return finished(training, model)


def calibrated(training: Training, records: dict[str, ImageRecord], progress: Progress) -> CategoryModel:
    """The model of all views with its ``calibration``; one that fails is a warning, for the model is usable without.

    Training images, their annotations and the poses that the build found are what is taken for true.
    """
    views = training.views
    count = min(MOST_IMAGES, len(views))
    chosen = [n * len(views) // count for n in range(count)]
    with closing(models_with_held_out(training, min(FOLDS, len(views)), progress)) as models:
        model = next(models)
        try:
            others = [replace(other, betas=model.betas) for other in models]
            progress("calibration", 0, 1)
            gathered = partial(training_evidence, providers=training.providers)
            values = calibrate(
                model,
                list(training.providers.over(gathered, [records[views[n].name] for n in chosen])),
                torch.stack([views[n].keypoints for n in chosen]),
                truth_rotations=training.shape.model.rotation[chosen].float(),
                held_out_models=[others[n % len(others)] for n in chosen] if others else None,
                progress=lambda done, total: progress("calibration", done, total),
            )
        except SemAlign3DError as error:
            warn([f"confidence is not calibrated: {error}"], training.problems)
            return model
    return replace(model, calibration={name: float(value) for name, value in values.items()})


def training_evidence(record: ImageRecord, providers: Providers) -> ImageEvidence:
    """What is seen in a training image, with features in half precision, for many are kept at a time."""
    p = providers
    evidence = look(read_image(record.path, record), p.backbone, p.depth, p.segmenter, camera=record_camera(record), box=record.box)  # type: ignore[arg-type]
    features = StoredFeatureMap(evidence.features.values.half(), evidence.features.grid)
    return replace(evidence, features=features, image=None)  # type: ignore[arg-type]
