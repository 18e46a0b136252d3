"""A build with what is at hand: no depth maps, masks found or made from the keypoints, the backbone remembered, pictures named."""

import json
import shutil

import numpy as np
import pytest
import torch
from category_folder import write_data_set

from semalign3d_core.category.shape.find import find_shape
from semalign3d_core.category.storage import load_model
from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.perception.masks.at_hand import AtHandMasks, masks_at_hand
from semalign3d_core.runtime.errors import MissingFileError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_data_set(tmp_path_factory.mktemp("data") / "set")
    shutil.rmtree(root / "Depth")
    for path in sorted((root / "Segmentation" / "thing").glob("*.png"))[:2]:
        path.unlink()
    return root


def test_build_without_depth_and_without_a_named_mask_source(folder, tmp_path, capsys):
    (tmp_path / "fast.yaml").write_text("calibrate: false\nem: {rounds: 6, hidden_rounds: 2}\ndense: {points: 30}\n")
    options = ["--dataset", str(folder), "--backbone", "precomputed:sim", "--preset", str(tmp_path / "fast.yaml")]
    assert main(["build", *options, "--output", str(tmp_path)]) == 0  # all categories of the folder
    text = capsys.readouterr().out
    assert "no depth maps: the shape comes from the views alone; depth maps would show it" in text
    assert "masks at hand: precomputed (12 looks)" in text and "hull of the keypoints" in text
    model = load_model(tmp_path / "thing.safetensors")
    assert torch.isfinite(model.dense_points).all() and len(model.weights) > 10
    assert model.backbone_spec() == "precomputed:sim" and model.backbone_spec("compact") == "compact"
    images = json.loads((tmp_path / "thing.report.json").read_text())["images"]
    assert all({"swapped", "left_right_odds"} <= set(image) for image in images)
    assert main(["build", *options, "--depth", "none", "--output", str(tmp_path), "--preset", "reference"]) == 2
    assert "the preset reference builds on depth" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_without_depth_the_hand_follows_from_what_is_seen(seed):
    """Keypoints that the object hides are not annotated: that tells a shape from its reversal."""
    from dataclasses import replace

    from random_category import random_category

    from semalign3d_core.category.config import BuildConfig, EmOptions
    from semalign3d_core.geometry.rotations import similarity_alignment

    data, truth = random_category(images=40, seed=seed)
    depth = (truth.shapes @ truth.rotation.transpose(1, 2))[..., 2]
    visible = depth <= depth.quantile(0.7, dim=1, keepdim=True)  # the farthest third is hidden
    unknown = torch.full_like(data.slope, torch.nan)
    seen = replace(data, visible=visible, points=data.points * visible[..., None], measured=torch.zeros_like(visible), slope=unknown)
    found = find_shape(seen, BuildConfig(em=EmOptions(rounds=10, hidden_rounds=0))).model.shape
    errors = []
    for shape in (found, found * torch.tensor([1.0, 1.0, -1.0], dtype=found.dtype)):
        scale, rotation, shift = similarity_alignment(shape, truth.shape)
        errors.append(float((scale * shape @ rotation.T + shift - truth.shape).norm(dim=1).mean()))
    assert errors[0] < 0.5 * errors[1]


def test_the_first_mask_that_holds_the_keypoints_is_taken(folder):
    record = FolderDataset(folder).images("thing")[5]
    image = read_image(record.path, record)
    points = record.keypoints[np.isfinite(record.keypoints).all(1)].round().astype(int)
    everything, corner = torch.ones(image.height, image.width, dtype=torch.bool), torch.zeros(image.height, image.width, dtype=torch.bool)
    corner[:2, :2] = True

    def absent(image, box, points):
        raise MissingFileError("no file")

    masks = AtHandMasks({"absent": absent, "wrong": lambda *a: corner, "nothing": lambda *a: None, "right": lambda *a: everything})
    assert masks.segment(image).all() and masks.told() == "right (1 looks)"
    hull = AtHandMasks({"wrong": lambda *a: corner}).segment(image)
    assert hull[points[:, 1], points[:, 0]].all() and hull.float().mean() < 0.9
    assert "precomputed" in masks_at_hand(folder, "thing").sources


def test_a_shipped_model_says_that_its_pictures_are_not_here(tmp_path, capsys):
    assert main(["inspect", "mug", "--output", str(tmp_path / "mug.html")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 and "its training images are not here" in lines[1]
