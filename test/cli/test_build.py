"""``semalign3d build``: where masks come from when there is no model yet."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from simulated_category import SIZE, SimulatedCategory

from semalign3d_core.calibration import recipe
from semalign3d_core.category.storage import save_model
from semalign3d_core.cli.main import main
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set folder with one simulated chair, without masks, and a model of chairs beside it; and what is true of the image."""
    root = tmp_path_factory.mktemp("data")
    category = SimulatedCategory("chair")
    save_model(replace(category.model(), backbone="sim"), root / "chair.safetensors")
    names = [f"k{k}" for k in range(10)]
    (root / "keypoints.json").write_text(json.dumps({"chair": {"names": names, "flip_permutation": category.flip}}))
    for kind in ("JPEGImages", "ImageAnnotation", "Depth", "Features/sim"):
        (root / kind / "chair").mkdir(parents=True)
    (root / "Features" / "sim" / "grid.json").write_text(json.dumps({"padding": "bottom_right"}))
    image = category.image(0)
    picture = np.where(image.evidence.mask.numpy()[..., None], np.uint8([150, 120, 90]), np.uint8(60))
    Image.fromarray(picture).save(root / "JPEGImages" / "chair" / "one.png")
    save_file({"features": image.evidence.features.values.half().contiguous()}, root / "Features" / "sim" / "chair" / "one.safetensors")
    content = {"kps": {str(k): p for k, p in enumerate(image.keypoints.tolist())}, "image_width": SIZE, "image_height": SIZE}
    (root / "ImageAnnotation" / "chair" / "one.json").write_text(json.dumps(content))
    return root, image.evidence


def build(root, output, masks):
    options = ["--dataset", str(root), "--category", "chair", "--output", str(output), "--backbone", "precomputed:sim"]
    return main(["build", *options, "--depth", "precomputed", "--masks", masks])


def test_similarity_masks_need_a_model_that_was_built_earlier(folder, tmp_path, capsys):
    assert build(folder[0], tmp_path, "similarity") == 2
    assert "similarity:FILE), or another mask source (sam2, precomputed)" in capsys.readouterr().err
    assert build(folder[0], tmp_path, f"similarity:{tmp_path / 'nothing.safetensors'}") == 2
    assert "nothing.safetensors does not exist" in capsys.readouterr().err


def test_such_a_model_shows_the_object_in_the_training_images(folder, tmp_path, capsys, monkeypatch):
    root, truth = folder
    given = {}

    def look_only(category, keypoints, records, providers, *rest):
        given.update(record=records[0], providers=providers)
        raise InputError("enough seen")

    monkeypatch.setattr(recipe, "build_category", look_only)
    assert build(root, tmp_path, f"similarity:{root / 'chair.safetensors'}") == 2
    assert "enough seen" in capsys.readouterr().err
    image = read_image(given["record"].path, given["record"])
    found = given["providers"].segmenter.segment(image, box=given["record"].box)
    assert (found & truth.mask).sum() > 0.6 * (found | truth.mask).sum() and isinstance(found, torch.Tensor)
