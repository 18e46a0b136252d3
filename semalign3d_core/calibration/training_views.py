"""The last step of a build: what the training images teach about trust (alignment/calibration.py)."""

import logging
from dataclasses import replace
from functools import partial

import torch

from semalign3d_core.category.annotations.views import record_camera
from semalign3d_core.perception.images import read_image
from semalign3d_core.perception.look import look
from semalign3d_core.perception.stored_features import StoredFeatureMap
from semalign3d_core.runtime.errors import SemAlign3DError

log = logging.getLogger(__name__)
MOST_IMAGES = 24  # each costs a handful of alignments; more hardly changes a few logistic maps


def training_evidence(record, providers, assumed_focal):
    """The :class:`ImageEvidence` of a training image, with features in half precision, for many are kept at a time."""
    camera = record_camera(record, assumed_focal)
    p = providers
    evidence = look(read_image(record.path, record), p.backbone, p.depth, p.segmenter, camera=camera, box=record.box)
    return replace(evidence, features=StoredFeatureMap(evidence.features.values.half(), evidence.features.grid), image=None)


def calibrated(model, records, views, shape, providers, config, problems, progress, others):
    """The model with its ``calibration``; a calibration that fails is a warning, for the model is usable without.

    shape: :class:`ShapeResult` of the views, whose poses are taken for true; others: iterator of the models without a part of the views
    (:func:`~semalign3d_core.calibration.folds.models_with_held_out`), whose Betas are the model's.
    """
    if not config.calibrate:
        return model
    from semalign3d_core.calibration.confidence_maps import calibrate

    by_name = {record.name: record for record in records}
    count = min(MOST_IMAGES, len(views))
    chosen = [n * len(views) // count for n in range(count)]
    try:
        others = [replace(other, betas=model.betas) for other in others]
        progress("calibration", 0, 1)
        gathered = partial(training_evidence, providers=providers, assumed_focal=config.views.assumed_focal)
        evidences = list(providers.over(gathered, [by_name[views[n].name] for n in chosen]))
        values = calibrate(
            model,
            evidences,
            torch.stack([views[n].keypoints for n in chosen]),
            truth_rotations=shape.model.rotation[chosen].float(),
            held_out_models=[others[n % len(others)] for n in chosen] if others else None,
            progress=lambda done, total: progress("calibration", done, total),
        )
    except SemAlign3DError as error:
        problems.warnings.append(f"confidence is not calibrated: {error}")
        log.warning(problems.warnings[-1])
        return model
    return replace(model, calibration={name: float(value) for name, value in values.items()})
