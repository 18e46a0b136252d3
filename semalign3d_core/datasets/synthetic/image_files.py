"""The files of one image of a synthetic data set: picture, mask, depth, truth, annotation."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semalign3d_core.datasets.synthetic.instances import CATEGORIES, generator, template
from semalign3d_core.runtime.files import atomic_path, write_json

POSES = ("Frontal", "Left", "Rear", "Right")  # by azimuth; the side of the object that one sees


def is_written(root: Path, task: Any) -> bool:
    """Whether the image is complete: its annotation is written last."""
    return (root / "ImageAnnotation" / task.category / f"{task.name}.json").is_file()


def write_image_files(root: Path, task: Any, rendering: Any, config: Any) -> None:
    """All files of one image; the annotation comes last."""
    place = f"{task.category}/{task.name}"
    with atomic_path(root / "JPEGImages" / f"{place}.jpg") as path:
        Image.fromarray(rendering.image).save(path, quality=92)
    with atomic_path(root / "Segmentation" / f"{place}.png") as path:
        Image.fromarray(rendering.mask.astype(np.uint8) * (list(CATEGORIES).index(task.category) + 1)).save(path)
    with atomic_path(root / "Depth" / f"{place}.npz") as path:
        np.savez_compressed(path, depth=_depth(rendering, task, config), kind=config.depth_kind)
    with atomic_path(root / "Truth" / f"{place}.npz") as path:
        np.savez_compressed(path, **truth(rendering))  # type: ignore[arg-type]
    write_json(root / "ImageAnnotation" / f"{place}.json", annotation(rendering, task, config), ours=True)


def truth(rendering: Any) -> dict[str, np.ndarray]:
    """What the renderer knows (``Truth/<category>/<name>.npz``).

    K (3, 3) pixels;  R (3, 3), t (3,), scale: ``x_cam = scale R X + t`` in metres;  keypoints_3d (K, 3) camera frame, metres;
    keypoints_2d (K, 2) pixels;  visible (K,) bool;  shape (K, 3) object frame;  canonical_keypoints (K, 3) on the template;
    azimuth, elevation, roll in degrees;  depth (h, w) metres;  amodal_mask (h, w) bool;  instance_seed, view_seed.
    NaN marks keypoints of absent parts.
    """
    kept: tuple[str, ...] = ("scale", "keypoints_3d", "keypoints_2d", "visible", "shape", "azimuth", "elevation", "roll")
    kept += ("depth", "amodal_mask", "instance_seed", "view_seed")
    arrays = {name: np.asarray(getattr(rendering, name)) for name in kept}
    arrays |= {"K": rendering.matrix, "R": rendering.rotation, "t": rendering.translation}
    return arrays | {"canonical_keypoints": template(rendering.category).complete_keypoints}


def _depth(rendering: Any, task: Any, config: Any) -> np.ndarray:
    if config.depth_kind == "disparity":
        return rendering.disparity
    if config.depth_kind == "metric":
        return rendering.depth
    return rendering.depth * np.float32(np.exp(generator("depth scale", task.category, task.name, config.seed).normal(0, 1)))


def annotation(rendering: Any, task: Any, config: Any) -> dict[str, Any]:
    """The image annotation with SPair-71k's fields. Annotated keypoints are the visible ones."""
    height, width = rendering.mask.shape
    box = rendering.box + (0, 0, 1, 1)
    points = rendering.keypoints_2d
    if config.keypoint_noise > 0:
        rng = generator("keypoint noise", task.category, task.name, config.seed)
        points = points + config.keypoint_noise * (box[2:] - box[:2]).max() * rng.normal(size=points.shape)
        points = np.clip(points, 0, (width - 1, height - 1))
    visible = zip(points, rendering.visible, strict=True)
    return {
        "filename": f"{task.name}.jpg",
        "src_database": "semalign3d synth",
        "src_annotation": f"instance {rendering.instance_seed}",
        "src_image": f"view {rendering.view_seed}",
        "image_width": width,
        "image_height": height,
        "image_depth": 3,
        "category": task.category,
        "category_id": list(CATEGORIES).index(task.category),
        "pose": POSES[int((rendering.azimuth + 45) // 90) % 4],
        "truncated": int(rendering.truncated),
        "occluded": int(rendering.occluded),
        "difficult": 0,
        "bndbox": [int(v) for v in box],
        "kps": {str(k): [round(float(p[0]), 2), round(float(p[1]), 2)] if seen else None for k, (p, seen) in enumerate(visible)},
        "azimuth_id": int(rendering.azimuth // 45) % 8,
    }
