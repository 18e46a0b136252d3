"""What a build tells about itself: the report for people, and where a model came from."""

import platform
import time

import numpy as np
import torch

from semalign3d_core.category.annotations.checks import trust_ratio
from semalign3d_core.runtime.config import to_dict


class Clock:
    """Seconds of the steps of a build, {name: seconds} in ``times``."""

    def __init__(self):
        self.times, self.last = {}, time.perf_counter()

    def lap(self, name):
        """Ends the step of that name."""
        now = time.perf_counter()
        self.times[name], self.last = round(now - self.last, 3), now


def build_report(views, shape, labels, spec, config, problems, clock):
    """What a person wants to know about a build: JSON-serialisable."""
    model, data = shape.model, shape.data
    camera = model.in_camera()
    difference = data.focal[:, None, None] * camera[..., :2] / camera[..., 2:] - data.points
    residual = difference.norm(dim=-1)
    images = []
    for n, view in enumerate(views):
        pixels = torch.where(data.visible[n], residual[n] * max(view.height, view.width), 0.0)
        worst = int(pixels.argmax())
        images.append(
            {
                "name": view.name,
                "keypoints": int(data.visible[n].sum()),
                "reprojection_error_pixels": round(float(pixels[data.visible[n]].square().mean().sqrt()), 3),
                "reprojection_error_relative": round(float(model.error[n]), 5),
                "worst_keypoint": spec.names[int(labels[worst])],
                "worst_error_pixels": round(float(pixels[worst]), 3),
                "weight": round(float(model.weight[n]), 4),
                "model_minus_annotation_pixels": {
                    spec.names[int(labels[k])]: [round(v, 1) for v in (difference[n, k] * max(view.height, view.width)).tolist()]
                    for k in data.visible[n].nonzero()[:, 0].tolist()
                },
            }
        )
    return {
        "method": config.method,
        **shape.report,
        "images": images,
        "absent_keypoints": [name for k, name in enumerate(spec.names) if k not in set(labels.tolist())],
        "skipped_images": problems.skipped,
        "dropped_keypoints": problems.dropped,
        "warnings": problems.warnings,
        "trust_ratio": round(trust_ratio(int(data.visible.sum()), len(views), data.count), 3),
        "seconds": clock.times,
    }


def provenance(category, providers, views, config):
    """{name: value} of what a model was built from and by, stored in it (JSON-serialisable)."""
    from semalign3d_core import __version__

    return {
        "category": category,
        "image_names": [v.name for v in views],
        "providers": {name: str(getattr(p, "name", type(p).__name__)) for name, p in vars(providers).items()},
        "config": to_dict(config),
        "versions": {"semalign3d": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }
