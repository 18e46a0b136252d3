"""Small annotated data sets on disk for the tests of the build, and the build of one."""

import json

import numpy as np
import torch
from PIL import Image
from random_category import random_category
from safetensors.torch import save_file

from semalign3d_core.calibration.build import build_category
from semalign3d_core.category.annotations.views import Providers
from semalign3d_core.category.config import BuildConfig, DenseOptions, EmOptions
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception import backbones, depth, masks

SIDE, KEYPOINTS, IMAGES, CHANNELS = 96, 8, 14, 8
NAMES = [f"k{n}" for n in range(KEYPOINTS)]
FAST = BuildConfig(calibrate=False, em=EmOptions(rounds=8), dense=DenseOptions(points=40))


def write_data_set(root, kind="disparity", camera=False):
    """Keypoints of a random category; mask = box around them; depth = plane through them; features = position in the box."""
    data, _ = random_category(images=IMAGES, keypoints=KEYPOINTS, seed=1)
    for folder in ("JPEGImages", "ImageAnnotation", "Segmentation", "Depth", "Features/sim"):
        (root / folder / "thing").mkdir(parents=True)
    for n in range(IMAGES):
        _write_image(root, f"im{n:02d}", data, n, kind, camera)
    (root / "keypoints.json").write_text(json.dumps({"thing": {"names": NAMES, "flip_permutation": data.flip.tolist()}}))
    (root / "Features/sim/grid.json").write_text('{"padding": "bottom_right"}')
    return root


def _write_image(root, name, data, n, kind, camera):
    pixels = ((data.points[n] + 0.5) * SIDE).numpy()
    seen = data.visible[n].numpy() & (pixels >= 1).all(1) & (pixels <= SIDE - 2).all(1)
    low, high = pixels[seen].min(0), pixels[seen].max(0)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    mask = (columns >= low[0] - 3) & (columns <= high[0] + 3) & (rows >= low[1] - 3) & (rows <= high[1] + 3)
    design = np.c_[pixels[seen], np.ones(seen.sum())]
    plane = np.linalg.lstsq(design, data.inverse[n].numpy()[seen], rcond=None)[0]
    inverse = 1 + 0.3 * (columns * plane[0] + rows * plane[1] + plane[2])
    values = inverse if kind == "disparity" else 2 / inverse.clip(0.3)
    kps = {str(k): [float(v) for v in pixels[k]] if seen[k] else None for k in range(KEYPOINTS)}
    content = {"kps": kps, "image_width": SIDE, "image_height": SIDE, "bndbox": [*low.tolist(), *high.tolist()]}
    if camera:
        content["camera_matrix"] = [[1.4 * SIDE, 0, SIDE / 2], [0, 1.4 * SIDE, SIDE / 2], [0, 0, 1]]
    (root / f"ImageAnnotation/thing/{name}.json").write_text(json.dumps(content))
    Image.fromarray(np.full((SIDE, SIDE, 3), 100, np.uint8)).save(root / f"JPEGImages/thing/{name}.jpg")
    Image.fromarray(mask.astype(np.uint8)).save(root / f"Segmentation/thing/{name}.png")
    np.savez(root / f"Depth/thing/{name}.npz", depth=values.astype(np.float32), kind=kind)
    noise = torch.randn(2, CHANNELS, 12, 12, generator=torch.Generator().manual_seed(n))
    for suffix, features in zip(("", ".flip"), noise, strict=True):
        save_file({"features": (features + 1).half()}, root / f"Features/sim/thing/{name}{suffix}.safetensors")


def build(root, config=FAST, **options):
    dataset = FolderDataset(root)
    providers = Providers(backbones.create("precomputed:sim", root), depth.create("precomputed", root), masks.create("precomputed", root))
    return build_category("thing", dataset.keypoint_spec("thing"), dataset.images("thing"), providers, config, **options)
