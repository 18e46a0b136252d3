"""The last step of a build: what the training images teach about trust (alignment/calibration.py)."""

import logging
from dataclasses import replace

import torch

from semalign3d_core.category.views import record_camera
from semalign3d_core.errors import SemAlign3DError
from semalign3d_core.evidence import gather
from semalign3d_core.images import read_image

log = logging.getLogger(__name__)
MOST_IMAGES = 24  # each costs a handful of alignments; more hardly changes three logistic maps


class TrainingEvidence:
    """A sequence of :class:`ImageEvidence` of training images that is read when asked for, one at a time."""

    def __init__(self, records, providers, assumed_focal):
        self.records, self.providers, self.assumed_focal = records, providers, assumed_focal

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        camera = record_camera(record, self.assumed_focal)
        p = self.providers
        image = read_image(record.path, record)
        return gather(image, p.backbone, p.depth, p.segmenter, camera=camera, box=record.box)


def calibrated(model, records, views, spec, providers, config, problems, progress):
    """The model with its ``calibration``; a calibration that fails is a warning, for the model is usable without."""
    if not config.calibrate:
        return model
    from semalign3d_core.alignment.calibration import calibrate

    by_name = {record.name: record for record in records}
    step = max(1, -(-len(views) // MOST_IMAGES))
    chosen = views[::step]
    progress("calibration", 0, 1)
    evidences = TrainingEvidence([by_name[v.name] for v in chosen], providers, config.views.assumed_focal)
    try:
        values = calibrate(model, evidences, torch.stack([v.keypoints for v in chosen]))
    except SemAlign3DError as error:
        problems.warnings.append(f"confidence is not calibrated: {error}")
        log.warning(problems.warnings[-1])
        return model
    return replace(model, calibration={name: float(value) for name, value in values.items()})
