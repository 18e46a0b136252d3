"""Say from which side objects are seen, by comparing them with template pictures of the four sides."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.cli.inputs import input_images, read_input, result_names
from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_core.runtime.files import write_json


@dataclass
class Options:
    """Options of ``semalign3d pose``."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files, or folders of images."""
    templates: Path = tyro.MISSING
    """Folder of template sets: TEMPLATES/<set>/back.jpg, front.jpg, left.jpg, right.jpg (any image format), three sets as published."""
    backbone: str = "compact"
    """Feature backbone; as published: sd_dinov2,step=100,record=concatenated"""
    masks: str = "none"
    """Mask source, so that only the object counts: none, precomputed; with a category model similarity:FILE or
    sam2:tiny,prompt_model=FILE."""
    dataset: Path | None = None
    """Data set folder that the images belong to; needed by precomputed features and masks."""
    cells: int = 128
    """Side of the grid on which features are compared; 128 as published, fewer are faster."""
    output: Path = Path("out")
    """Folder for NAME.pose.json of every image."""


def run(options):
    """Predicts the pose of all images; a bad one is reported and does not stop the others. Returns 1 if there was one, else 0."""
    from tqdm import tqdm

    from semalign3d_core.matchers.pose_prediction import PosePredictor, read_templates
    from semalign3d_core.perception import backbones, masks
    from semalign3d_core.perception.backbones.pair_features import pair_features

    files, templates = input_images(options.images), read_templates(options.templates)
    backbone = backbones.create(options.backbone, options.dataset)
    segmenter = masks.create(options.masks, options.dataset, backbone=backbone)
    predictor = PosePredictor(pair_features(backbone), templates, options.cells)
    failed = 0
    for file, name in tqdm(list(zip(files, result_names(files), strict=True)), unit="image", disable=len(files) == 1, file=sys.stderr):
        try:
            image = read_input(file, options.dataset)
            mask = None if segmenter is None else segmenter.segment(image)
            found = predictor.predict(predictor.features.describe(image), mask)
        except SemAlign3DError as error:
            failed += 1
            tqdm.write(f"semalign3d pose: {error}", file=sys.stderr)
            continue
        path = options.output / f"{name}.pose.json"
        write_json(path, result(image, found, list(templates), mask is not None))
        tqdm.write(f"{image.name}: {found.view} ({found.front_back}, {found.left_right}) -> {path}", file=sys.stdout)
    return 1 if failed else 0


def result(image, found, sets, masked):
    """The JSON of one image: votes, and the distances to all templates."""
    from semalign3d_core.matchers.pose_prediction import VIEWS

    distances = {name: dict(zip(VIEWS, row, strict=True)) for name, row in zip(sets, found.distances.tolist(), strict=True)}
    votes = {"view": found.view, "front_back": found.front_back, "left_right": found.left_right}
    return {"image": image.name, **votes, "masked": masked, "distances": distances}
