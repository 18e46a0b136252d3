"""A tiny data set in SPair-71k's exact layout that models can be built from."""

import json

import numpy as np
from category_folder import SIDE, write_data_set
from PIL import Image
from published_format import spair_image, write_json

from semalign3d_core.datasets.splitting import write_splits


def write_tiny_spair(folder, categories):
    """Writes ``folder``/SPair-71k: keypoints of ``category_folder`` on pictures of noise, 14 per category, with splits and pairs.

    categories: of SPair-71k, whose first eight labels are four mirror pairs (bottle, chair)
    """
    made, root = write_data_set(folder / "made"), folder / "SPair-71k"
    for category in categories:
        for path in sorted((made / "ImageAnnotation" / "thing").glob("*.json")):
            known = json.loads(path.read_text())
            kps = {int(k): point for k, point in known["kps"].items()}
            content = spair_image(path.stem, category, kps, size=(SIDE, SIDE), box=known["bndbox"])
            write_json(root / "ImageAnnotation" / category / path.name, content)
            for kind, suffix in (("JPEGImages", "jpg"), ("Segmentation", "png")):
                place = root / kind / category / f"{path.stem}.{suffix}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes((made / kind / "thing" / f"{path.stem}.{suffix}").read_bytes())
            rng = np.random.default_rng(len(path.stem) + int(path.stem[2:]))
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(root / "JPEGImages" / category / f"{path.stem}.jpg")
        write_splits(root, category, 0.3, 12)
    return root
