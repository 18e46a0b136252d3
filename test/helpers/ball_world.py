"""A small world in which the sides of an object can be told apart: balls seen from all sides, with features of the places on them."""

import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

CELLS, CHANNELS, SIDE = 12, 64, 48


def write_balls(root, images=24, seed=0, category="car"):
    """Writes a data set folder: masks, azimuths (``azimuth_id`` and ``azimuth_deg``), features ``ball``, keypoints and all pairs."""
    rng = np.random.default_rng(seed)
    frequency, phase = rng.normal(size=(3, CHANNELS)) * 1.5, rng.uniform(0, 2 * np.pi, CHANNELS)
    names = [f"img{i:02d}" for i in range(images)]
    _json(root / "keypoints.json", {category: {"names": ["a", "b", "c", "d"], "flip_permutation": [0, 1, 2, 3]}})
    _json(root / "Features" / "ball" / "grid.json", {"padding": "bottom_right"})
    for name, azimuth in zip(names, rng.uniform(0, 360, images), strict=True):
        _write_image(root, category, name, azimuth, (frequency, phase), rng)
    pairs = [f"{n:06d}-{a}-{b}:{category}" for n, (a, b) in enumerate((a, b) for a in names[:4] for b in names[4:8])]
    for pair in pairs:
        source, target = pair.rpartition(":")[0].split("-")[1:]
        content = {"src_imname": f"{source}.png", "trg_imname": f"{target}.png", "category": category}
        _json(root / "PairAnnotation" / "test" / f"{pair}.json", content)
    layout = root / "Layout" / "large" / "test.txt"
    layout.parent.mkdir(parents=True, exist_ok=True)
    layout.write_text("\n".join(pairs) + "\n")
    return root


def places(azimuth):
    """(CELLS, CELLS, 3) the place on the ball that each cell sees from an azimuth; NaN beside it."""
    x, y = np.meshgrid(*[(np.arange(CELLS) + 0.5) / CELLS * 2.4 - 1.2] * 2)
    z = np.sqrt(np.where(x**2 + y**2 < 1, 1 - x**2 - y**2, np.nan))
    a = np.deg2rad(azimuth)
    return np.stack([x * np.cos(a) + z * np.sin(a), -y, z * np.cos(a) - x * np.sin(a)], -1)


def _write_image(root, category, name, azimuth, field, rng):
    for folder in ("JPEGImages", "Segmentation", "Features/ball"):
        (root / folder / category).mkdir(parents=True, exist_ok=True)
    seen = places(azimuth)
    inside = np.isfinite(seen[..., 0])
    values = np.where(inside[..., None], np.cos(np.nan_to_num(seen) @ field[0] + field[1]), 0)
    values += 0.2 * rng.normal(size=values.shape)
    features = torch.from_numpy(values.transpose(2, 0, 1)).half().contiguous()
    save_file({"features": features}, root / "Features" / "ball" / category / f"{name}.safetensors")
    mask = np.kron(inside, np.ones((SIDE // CELLS, SIDE // CELLS)))
    Image.fromarray((255 * mask).astype(np.uint8)).save(root / "Segmentation" / category / f"{name}.png")
    Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(root / "JPEGImages" / category / f"{name}.png")
    corners = {"a": (1, 0, 0), "b": (-1, 0, 0), "c": (0, 0, 1), "d": (0, 0, -1)}
    kps = {}
    for k, corner in enumerate(corners.values()):
        distance = np.where(inside, ((np.nan_to_num(seen) - corner) ** 2).sum(-1), np.inf)
        row, column = np.unravel_index(distance.argmin(), distance.shape)
        kps[str(k)] = [float((column + 0.5) * SIDE / CELLS), float((row + 0.5) * SIDE / CELLS)] if distance.min() < 0.5 else None
    content = {"filename": f"{name}.png", "category": category, "image_width": SIDE, "image_height": SIDE, "kps": kps}
    content |= {"bndbox": [4, 4, SIDE - 4, SIDE - 4], "azimuth_id": int(azimuth // 45), "azimuth_deg": float(azimuth)}
    _json(root / "ImageAnnotation" / category / f"{name}.json", content)


def _json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
