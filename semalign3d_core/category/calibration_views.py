"""The last step of a build: what the training images teach about trust (alignment/calibration.py)."""

import logging
import threading
from dataclasses import replace

import torch

from semalign3d_core.category.held_out import held_out_models
from semalign3d_core.category.views import record_camera
from semalign3d_core.errors import SemAlign3DError
from semalign3d_core.evidence import gather
from semalign3d_core.images import read_image
from semalign3d_core.stored_features import StoredFeatureMap

log = logging.getLogger(__name__)
MOST_IMAGES = 32  # each costs a handful of alignments; more hardly changes a few logistic maps


class TrainingEvidence:
    """A sequence of :class:`ImageEvidence` of training images, read when first asked for and kept in half precision.

    Several threads may ask; providers, which may be networks on one device, are asked by one at a time.
    """

    def __init__(self, records, providers, assumed_focal):
        self.records, self.providers, self.assumed_focal, self.read = records, providers, assumed_focal, {}
        self.reading = threading.Lock()

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        with self.reading:
            if index not in self.read:
                self.read[index] = self._gathered(self.records[index])
        return self.read[index]

    def _gathered(self, record):
        camera = record_camera(record, self.assumed_focal)
        p = self.providers
        evidence = gather(read_image(record.path, record), p.backbone, p.depth, p.segmenter, camera=camera, box=record.box)
        return replace(evidence, features=StoredFeatureMap(evidence.features.values.half(), evidence.features.grid), image=None)


def calibrated(model, records, views, shape, providers, config, problems, progress, make_model):
    """The model with its ``calibration``; a calibration that fails is a warning, for the model is usable without.

    shape: :class:`ShapeResult` of the views, whose poses are taken for true; make_model: (views, shape) -> :class:`CategoryModel`, by which
    models without a part of the images are made.
    """
    if not config.calibrate:
        return model
    from semalign3d_core.alignment.calibration import calibrate

    by_name = {record.name: record for record in records}
    chosen = list(range(0, len(views), max(1, -(-len(views) // MOST_IMAGES))))
    evidences = TrainingEvidence([by_name[views[n].name] for n in chosen], providers, config.views.assumed_focal)
    try:
        others = held_out_models(views, shape, config, make_model, progress)
        values = calibrate(
            model,
            evidences,
            torch.stack([views[n].keypoints for n in chosen]),
            truth_rotations=shape.model.rotation[chosen].float(),
            held_out_models=others and [others[n] for n in chosen],
            progress=lambda done, total: progress("calibration", done, total),
        )
    except SemAlign3DError as error:
        problems.warnings.append(f"confidence is not calibrated: {error}")
        log.warning(problems.warnings[-1])
        return model
    return replace(model, calibration={name: float(value) for name, value in values.items()})
