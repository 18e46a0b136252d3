"""Template pictures of the shipped categories, and how well poses are predicted with them.

python bench/pose_templates.py render [FOLDER]      renders semalign3d_core/assets/templates: three objects from four sides
python bench/pose_templates.py table --count 20     the table: unseen rendered objects, per category and feature backbone
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from semalign3d_core.matchers.pose_prediction import TEMPLATES, VIEWS, PosePredictor, PoseTable, read_templates

AZIMUTHS = {"back": 180.0, "front": 0.0, "left": 90.0, "right": 270.0}  # of the camera; 0 looks at the front, 90 at the object's left
CATEGORIES = ("aeroplane", "car", "chair", "mug", "tvmonitor")  # a bottle looks the same from all sides
SETS, FIRST_SEED, SIDE, GREY = 3, 7001, 224, 200


def render_templates(folder):
    """Writes FOLDER/<category>/<set>/<view>.jpg: whole objects, slightly from above, before plain grey."""
    for category in CATEGORIES:
        for number in range(SETS):
            for view, azimuth in AZIMUTHS.items():
                picture, mask = rendered(category, FIRST_SEED + number, azimuth, 12.0)
                path = folder / category / f"set{number + 1}" / f"{view}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
                cv2.imwrite(str(path), (picture * soft + GREY * (1 - soft)).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def rendered(category, seed, azimuth, elevation):
    """(picture, mask) of an object of the simple world, nothing in front of it."""
    from semalign3d_core.datasets.synthetic.instances import make_instance
    from semalign3d_core.datasets.synthetic.rendering import RenderConfig, render
    from semalign3d_core.datasets.synthetic.scene import SceneConfig
    from semalign3d_core.datasets.synthetic.viewpoints import View, place, rotation_matrix

    instance = make_instance(category, seed)
    view = View(SIDE, SIDE, 1.8, azimuth, elevation, 0.0, rotation_matrix(azimuth, elevation, 0.0), np.zeros(3))
    found = render(instance, place(instance, view, 0.8), seed, RenderConfig(scene=SceneConfig(occluder_rate=0.0)))
    return found.image, found.mask


def table(count, specs, cells, output):
    """Prints and writes the table: ``count`` objects of each category from random sides within 35 degrees of one of the four."""
    import torch

    from semalign3d_core.perception import backbones
    from semalign3d_core.perception.backbones.pair_features import pair_features
    from semalign3d_core.perception.evidence import ImageInput

    lines = []
    for spec in specs:
        features = pair_features(backbones.create(spec))
        for category in CATEGORIES:
            predictor = PosePredictor(features, read_templates(TEMPLATES / category), cells)
            rows, rng = PoseTable(), np.random.default_rng(1)
            for index in range(count):
                view = VIEWS[index % len(VIEWS)]
                picture, mask = rendered(category, 9000 + index, AZIMUTHS[view] + rng.uniform(-35, 35), rng.uniform(0, 35))
                rows.add(view, predictor.predict(features.describe(ImageInput(picture)), torch.from_numpy(mask)))
            lines.append({"features": spec, "category": category, **rows.summary()})
            print(json.dumps(lines[-1]), flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "pose_table.json").write_text(json.dumps(lines, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "table"))
    parser.add_argument("folder", nargs="?", type=Path, default=TEMPLATES)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--backbones", nargs="+", default=["compact", "efficientnet_lite:2"])
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("out/pose"))
    options = parser.parse_args()
    if options.what == "render":
        render_templates(options.folder)
    else:
        table(options.count, options.backbones, options.cells, options.output)


if __name__ == "__main__":
    main()
