"""A hand-made data set folder for the tests of the evaluation: images, annotation, features, depth and masks on disk."""

import itertools
import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from semalign3d_core.geometry.image_grid import SquareGrid

CELLS, CHANNELS, KEYPOINTS = 12, 16, 5
CATEGORIES = ("car", "chair")


def make_dataset(root, images=4, seed=0, noise=0.25):
    """Writes the folder and returns it. Keypoints have a code each that the features carry, so that nearest neighbour is mostly right."""
    rng = np.random.default_rng(seed)
    names = [f"part{k}" for k in range(KEYPOINTS)]
    _json(root / "keypoints.json", {c: {"names": names, "flip_permutation": [1, 0, 2, 3, 4]} for c in CATEGORIES})
    _json(root / "Features" / "sim" / "grid.json", {"padding": "bottom_right"})
    pairs = []
    for category in CATEGORIES:
        codes = rng.normal(size=(KEYPOINTS, CHANNELS))
        for index in range(images):
            _write_image(root, category, f"img{index}", codes, rng, noise)
        for a, b in itertools.permutations(range(images), 2):
            pairs.append(_write_pair(root, category, f"img{a}", f"img{b}", len(pairs)))
    for split in ("trn", "test"):
        layout = root / "Layout" / "large" / f"{split}.txt"
        layout.parent.mkdir(parents=True, exist_ok=True)
        layout.write_text("\n".join(pairs) + "\n")
    return root


def _write_image(root, category, name, codes, rng, noise):
    width, height = int(rng.integers(70, 100)), int(rng.integers(60, 90))
    for folder in ("JPEGImages", "Segmentation", "Depth", "Features/sim"):
        (root / folder / category).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(root / "JPEGImages" / category / f"{name}.jpg")
    mask = np.zeros((height, width), np.uint8)
    mask[5:-5, 5:-5] = 255
    Image.fromarray(mask).save(root / "Segmentation" / category / f"{name}.png")
    np.savez(root / "Depth" / category / f"{name}.npz", depth=rng.uniform(1, 2, (height, width)).astype(np.float32), kind="disparity")
    grid = SquareGrid(height, width, CELLS)
    keypoints = rng.uniform(8, [width - 8, height - 8], (KEYPOINTS, 2)).round(1)
    features = noise * rng.normal(size=(CHANNELS, CELLS, CELLS))
    cells = grid.pixel_to_cell(torch.from_numpy(keypoints)).round().long()
    features[:, cells[:, 1], cells[:, 0]] += codes.T
    save_file({"features": torch.from_numpy(features).half()}, root / "Features" / "sim" / category / f"{name}.safetensors")
    kps = {str(k): [float(x), float(y)] for k, (x, y) in enumerate(keypoints)}
    kps[str(rng.integers(KEYPOINTS))] = None
    content = {"filename": f"{name}.jpg", "category": category, "image_width": width, "image_height": height, "kps": kps}
    _json(root / "ImageAnnotation" / category / f"{name}.json", {**content, "bndbox": [5, 5, width - 5, height - 5]})


def _write_pair(root, category, source, target, number):
    images = [json.loads((root / "ImageAnnotation" / category / f"{name}.json").read_text()) for name in (source, target)]
    labels = [k for k in images[0]["kps"] if images[0]["kps"][k] and images[1]["kps"][k]]
    name = f"{number:06d}-{source}-{target}:{category}"
    content = {
        "src_imname": f"{source}.jpg", "trg_imname": f"{target}.jpg", "category": category, "kps_ids": labels,
        "src_kps": [images[0]["kps"][k] for k in labels], "trg_kps": [images[1]["kps"][k] for k in labels],
        "viewpoint_variation": number % 3, "scale_variation": number % 2, "truncation": number % 4, "occlusion": 0,
    }  # fmt: skip
    for split in ("trn", "test"):
        _json(root / "PairAnnotation" / split / f"{name}.json", content)
    return name


def edit_json(path, change):
    """Reads a JSON file, lets ``change`` modify the content in place, and writes it back."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
