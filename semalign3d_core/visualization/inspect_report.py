"""A page that shows what a category model holds, so that a bad annotation or an odd shape is found by looking."""

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.storage import model_hash
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.pages.page import page, picture_url, rounded
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.visualization.overlay import feature_colours

THUMBNAIL = 320  # pixels
BAD_RATIO, BAD_ERROR = 3.0, 0.03  # an image looks wrong if its error is above both: times the median, and of the object's size
BAD_WEIGHT = 0.3  # or if its weight in the fit is below this

Report = dict[str, Any]
Card = dict[str, Any]


def inspect_page(model: CategoryModel, dataset: Path | None = None) -> str:
    """HTML of the page of a model; dataset: folder that holds its training images, None for a page without images."""
    report = model.built_from.get("report", {})
    images, notes = image_cards(model, report, dataset)
    data = {
        "names": list(model.keypoint_names),
        "flip": list(model.flip_permutation),
        "mirrored": model.flip_permutation != tuple(range(len(model.keypoint_names))),
        "present": model.present.tolist(),
        "mu": rounded(model.keypoint_mu),
        "sd": rounded(model.keypoint_sd),
        "seen": _seen(model, report),
        "shape": rounded(model.shape),
        "colours": feature_colours(model.dense_features).tolist(),
        "weights": _packed(model.weights.numpy(), np.float32),
        "offsets": _packed(model.offsets.numpy(), np.float32),
        "plane": rounded(model.plane, 6),
        "modes": _packed(model.modes.numpy(), np.float32),
        "modeVariances": rounded(model.mode_variances, 8),
        "pairs": len(model.betas.edge1),
        "edges": _packed(torch.cat([model.betas.edge1, model.betas.edge2], 1).numpy(), np.uint8),
        "edgeBeta": _packed(model.betas.edge_beta.numpy(), np.float32),
        "view": rounded(model.pose_rotations[0]) if len(model.pose_rotations) else rounded(torch.eye(3)),
        "views": viewing_directions(model.pose_rotations),
        "images": images,
        "facts": _facts(model, report),
        "warnings": [*report.get("warnings", []), *notes],
        "left": _left_out(report),
        "calibration": [[name, value] for name, value in sorted(model.calibration.items()) if isinstance(value, int | float)],
    }
    return page(f"Category model: {model.category}", "inspect", data)


def viewing_directions(rotations: torch.Tensor) -> list[list[float]]:
    """[[azimuth, elevation]] in degrees from which object-to-camera rotations (N, 3, 3) see the object.

    Azimuth turns about the object's y axis from -z; elevation is towards -y, which is up where x_cam = R X has y down.
    """
    direction = -rotations[:, 2]  # towards the camera, object frame
    azimuth = torch.atan2(direction[:, 0], -direction[:, 2]).rad2deg()
    elevation = (-direction[:, 1]).clamp(-1, 1).asin().rad2deg()
    return rounded(torch.stack([azimuth, elevation], 1), 1)


def image_cards(model: CategoryModel, report: Report, dataset: Path | None) -> tuple[list[Card], list[str]]:
    """What the page says of the training images, the worst first, and remarks about image files that are missing."""
    entries = sorted(report.get("images", []), key=lambda entry: (not entry.get("swapped", False), -entry["reprojection_error_relative"]))
    median = float(np.median([entry["reprojection_error_relative"] for entry in entries])) if entries else 0.0
    source, notes = None, []
    if dataset is not None:
        source = FolderDataset(dataset)
    elif entries:
        notes.append("No pictures: give the folder of the training images with --dataset.")
    cards = []
    for entry in entries:
        card = _card(entry, median)
        try:
            cards.append(card if source is None else card | _thumbnail(source, model, entry))
        except (InputError, MissingFileError) as error:
            cards.append(card)
            notes.append(str(error))
    return cards, notes


def images_to_look_at(model: CategoryModel, report: Report) -> list[str]:
    """A line about every training image that looks wrong, the worst first."""
    lines = []
    for card in (card for card in image_cards(model, report, None)[0] if card["bad"]):
        why = f"error {100 * card['error']:.1f} % of the object, worst {card['worst']} by {card['worstPixels']:.1f} px"
        lines.append(f"  look at {card['name']}: " + ("left and right look exchanged; " if card["swapped"] else "") + why)
    return lines


def _card(entry: Report, median: float) -> Card:
    error = entry["reprojection_error_relative"]
    return {
        "name": entry["name"],
        "error": error,
        "pixels": entry["reprojection_error_pixels"],
        "worst": entry["worst_keypoint"],
        "worstPixels": entry["worst_error_pixels"],
        "weight": entry["weight"],
        "swapped": bool(entry.get("swapped", False)),
        "bad": bool((error > BAD_RATIO * median and error > BAD_ERROR) or entry["weight"] < BAD_WEIGHT or entry.get("swapped", False)),
    }


def _thumbnail(source: FolderDataset, model: CategoryModel, entry: Report) -> Card:
    """Thumbnail and [keypoint, x, y, dx, dy] of the annotated keypoints, in pixels of the whole image."""
    record = source.image(model.category, entry["name"])
    image, moved = read_image(record.path), entry.get("model_minus_annotation_pixels", {})
    points = [
        [k, *rounded(record.keypoints[k], 1), *moved.get(name, (0.0, 0.0))]
        for k, name in enumerate(model.keypoint_names)
        if np.isfinite(record.keypoints[k]).all()
    ]
    return {"picture": picture_url(image.rgb, THUMBNAIL, 80), "width": image.width, "height": image.height, "points": points}


def _seen(model: CategoryModel, report: Report) -> list[int | None]:
    """In how many training images each keypoint was used; None where the report does not say."""
    images = [entry.get("model_minus_annotation_pixels") for entry in report.get("images", [])]
    if not images or None in images:
        return [None] * len(model.keypoint_names)
    return [sum(name in image for image in images) for name in model.keypoint_names]


def _facts(model: CategoryModel, report: Report) -> list[list[Any]]:
    built = model.built_from
    metres, spread = model.diameter_metres.tolist()
    return [
        ["backbone", model.backbone],
        ["keypoints", f"{int(model.present.sum())} of {len(model.present)}"],
        ["dense points", len(model.dense_mu)],
        ["modes", len(model.mode_variances)],
        ["edge pairs", len(model.betas.edge1)],
        ["tetrahedra", len(model.betas.vertex)],
        ["images", len(report.get("images", [])) or "unknown"],
        ["typical focal length", f"{model.focal[0].item():.2f} L"],
        ["diameter", "unknown" if math.isnan(metres) else f"{metres:.3f} ± {spread:.3f} m"],
        ["start", report.get("start", "unknown")],
        ["built with", built.get("versions", {}).get("semalign3d", "unknown")],
        ["hash", model_hash(model)[:12]],
    ]


def _left_out(report: Report) -> list[list[str]]:
    skipped = [[name, reason] for name, reason in report.get("skipped_images", {}).items()]
    dropped = [[name, "; ".join(reasons)] for name, reasons in report.get("dropped_keypoints", {}).items()]
    return skipped + dropped + [[name, "keypoint absent"] for name in report.get("absent_keypoints", [])]


def _packed(array: np.ndarray, dtype: type) -> str:
    """An array as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def default_dataset(model: CategoryModel) -> Path | None:
    """The folder a model says it was built from, if it is here; else None."""
    folder = model.built_from.get("dataset")
    return Path(folder) if folder and (Path(folder) / "ImageAnnotation").is_dir() else None
