"""A page that shows how an alignment came about: what was found, what the features say, where the search began."""

import numpy as np
import torch

from semalign3d_core.alignment.category_tensors import semantic_sd
from semalign3d_core.alignment.config import ObservationConfig
from semalign3d_core.alignment.energy import log_semantic
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.pages.page import bytes_text, page, picture_url, rounded
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.visualization.object_points import object_points

LARGEST_PICTURE = 900


def align_page(model: CategoryModel, evidence: ImageEvidence, alignment: Alignment, pictures: dict[str, np.ndarray] | None = None) -> str:
    """HTML of the page for the ``alignment`` of ``model`` to ``evidence``; diagnostics that are missing are left out.

    pictures: more of them, {caption: (h, w, 3) uint8 RGB}
    """
    camera, diagnostics, present = alignment.camera, alignment.diagnostics, torch.isfinite(alignment.keypoints_2d).all(1)
    grid, found = evidence.features.grid, alignment.alternatives
    data = {
        "image": evidence.name,
        "width": camera.width,
        "height": camera.height,
        "picture": None if evidence.image is None else picture_url(evidence.image, LARGEST_PICTURE),
        "category": alignment.category,
        "found": bool(alignment.found),
        "confidence": float(alignment.confidence),
        "energy": float(alignment.energy),
        "focal": float(camera.matrix_pixels()[0, 0]),
        "scaleKind": alignment.scale_kind,
        "undetermined": None if alignment.undetermined_axis is None else rounded(alignment.undetermined_axis),
        "terms": {name: float(value) for name, value in alignment.terms.items()},
        "probabilities": _probabilities(diagnostics),
        "keypoints": _keypoints(alignment),
        "ghostIndex": present.nonzero()[:, 0].tolist(),
        "cloud": _cloud(alignment),
        "solid": _solid(alignment, evidence.image),
        "grid": {"cells": grid.cells, "side": grid.side, "offset": list(grid.offset)},
        "maps": likelihood_maps(model, evidence),
        "trace": [] if diagnostics is None else rounded(diagnostics.trace),
        "phases": [] if diagnostics is None else [list(phase) for phase in diagnostics.phases],
        "starts": [] if diagnostics is None else _ghosts(diagnostics.starts_2d, diagnostics.start_scores, descending=True),
        "candidates": [] if found is None else _ghosts(found.keypoints_2d[:, present], found.scores, descending=False),
    }
    return page(f"{alignment.category} in {evidence.name}", "align", data, pictures)


def likelihood_maps(model: CategoryModel, evidence: ImageEvidence) -> list[str | None]:
    """p_sem (Eq. 4) of every keypoint on the feature grid, as the fast solver sees it.

    Returns text of one byte per cell for each keypoint; None for absent keypoints.
    """
    features = evidence.features.values
    similarity = model.keypoint_features.to(features) @ features.flatten(1)
    mu, sd = model.keypoint_mu.to(features), semantic_sd(model.keypoint_sd.to(features), ObservationConfig())
    maps = log_semantic(similarity, mu[:, None], sd[:, None]).exp().cpu().numpy()
    return [bytes_text(values) if present else None for values, present in zip(maps, model.present.tolist(), strict=True)]


def _keypoints(alignment):
    pixels = alignment.keypoints_2d.cpu().numpy()
    return [
        {
            "name": name,
            "pixel": rounded(pixels[k], 2) if np.isfinite(pixels[k]).all() else None,
            "visible": bool(alignment.visible[k]),
            "confidence": float(alignment.keypoint_confidence[k]),
        }
        for k, name in enumerate(alignment.keypoint_names)
    ]


def _cloud(alignment):
    """[x, y, nearness in [0, 1]] of every dense point in front of the camera, the nearest last."""
    cloud = alignment.cloud_3d[alignment.cloud_3d[:, 2] > 1e-9]
    if not len(cloud):
        return []
    cloud = cloud[cloud[:, 2].argsort(descending=True)]
    pixels = alignment.camera.to_pixels(alignment.camera.project(cloud))
    near, far = cloud[-1, 2], cloud[0, 2]
    return rounded(torch.cat([pixels, ((far - cloud[:, 2:]) / (far - near).clamp(min=1e-9))], 1).cpu(), 2)


def _solid(alignment, image):
    """The object in 3D: dense points with the colours of the picture, keypoints with their indices; camera frame."""
    points = object_points(alignment, image)
    known = torch.isfinite(alignment.keypoints_3d).all(1).nonzero()[:, 0].tolist()
    return {
        "points": rounded(points.cloud),
        "colours": points.cloud_colours.tolist(),
        "keypoints": rounded(points.keypoints),
        "index": known,
    }


def _probabilities(diagnostics):
    """Probabilities and the statistics that they come from."""
    return {} if diagnostics is None else {**diagnostics.probabilities, **diagnostics.statistics}


def _ghosts(places, scores, descending):
    """Starts or solutions, best first: their keypoints' pixels and their score."""
    if places is None or scores is None:
        return []
    order = scores.argsort(descending=descending).tolist()
    return [{"points": rounded(places[i].cpu(), 1), "score": float(scores[i])} for i in order]
