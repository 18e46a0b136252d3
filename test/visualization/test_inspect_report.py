"""The page of a category model: a bad annotation is found by looking."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from headless_browser import look_at, needs_browser, width_on_a_telephone
from PIL import Image
from simulated_category import SimulatedCategory

from semalign3d_core.category.storage import save_model
from semalign3d_core.cli.main import main
from semalign3d_core.visualization.inspect_report import image_cards, inspect_page, viewing_directions
from semalign3d_core.visualization.overlay import feature_colours

NAMES = [f"k{k}" for k in range(10)]


def _entry(name, error, moved):
    return {
        "name": name, "reprojection_error_pixels": 100 * error, "reprojection_error_relative": error, "worst_keypoint": "k3",
        "worst_error_pixels": 150 * error, "weight": 0.9 if error < 0.1 else 0.1, "model_minus_annotation_pixels": moved,
    }  # fmt: skip


@pytest.fixture(scope="module")
def model():
    entries = [_entry(f"image_{n}", 0.01 + 0.001 * n, {"k0": [0.5, 0.5]}) for n in range(4)]
    entries.append(_entry("swapped", 0.3, {"k3": [30.0, -20.0], "k0": [1.0, 0.0]}))
    report = {"images": entries, "start": "multiview", "warnings": ["few images <b>"], "skipped_images": {"odd": "empty mask"}}
    made = SimulatedCategory("chair").model(images=5)
    absent = made.present.clone()
    absent[9] = False
    return replace(made, present=absent, built_from={"report": report, "versions": {"semalign3d": "0.1.0"}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data set the model pretends to be built from; the picture of image_2 is missing."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("JPEGImages", "ImageAnnotation"):
        (root / kind / "chair").mkdir(parents=True)
    (root / "keypoints.json").write_text(json.dumps({"chair": {"names": NAMES, "flip_permutation": [k ^ 1 for k in range(10)]}}))
    for name in (*(f"image_{n}" for n in range(4)), "swapped"):
        kps = {"0": [10, 20], "3": [60, 40]}
        content = {"kps": kps, "image_width": 90, "image_height": 60}
        (root / "ImageAnnotation" / "chair" / f"{name}.json").write_text(json.dumps(content))
        if name != "image_2":
            Image.new("RGB", (90, 60), (80, 120, 160)).save(root / "JPEGImages" / "chair" / f"{name}.jpg")
    return root


def _data(html):
    return json.loads(re.search(r"const DATA = (.*?);\n", html, re.S)[1].replace("<\\/", "</"))


def test_worst_image_comes_first_and_alone_is_marked(model, folder):
    cards, notes = image_cards(model, model.built_from["report"], folder)
    assert [card["name"] for card in cards] == ["swapped", "image_3", "image_2", "image_1", "image_0"]
    assert [card["bad"] for card in cards] == [True, False, False, False, False]
    assert cards[0]["points"] == [[0, 10, 20, 1, 0], [3, 60, 40, 30, -20]]
    assert cards[0]["picture"].startswith("data:image/jpeg;base64,")
    assert "picture" not in cards[2] and "image_2.jpg does not exist" in notes[0]


def test_page_is_self_contained_and_complete(model, folder):
    html = inspect_page(model, folder)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", html) and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    data = _data(html)
    weights = np.frombuffer(base64.b64decode(data["weights"]), "<f4").reshape(-1, 10)
    assert weights @ np.array(data["shape"]) == pytest.approx(model.dense_points.numpy(), abs=2e-3)
    edges = np.frombuffer(base64.b64decode(data["edges"]), np.uint8).reshape(-1, 4)
    assert np.array_equal(edges[:, :2], model.betas.edge1) and np.array_equal(edges[:, 2:], model.betas.edge2)
    betas = np.frombuffer(base64.b64decode(data["edgeBeta"]), "<f4").reshape(-1, 4)
    assert np.array_equal(betas, model.betas.edge_beta)
    assert data["seen"][:4] == [5, 0, 0, 1] and data["left"] == [["odd", "empty mask"]] and len(data["views"]) == 60
    assert data["warnings"][0] == "few images <b>"


@needs_browser
def test_the_page_fits_a_telephone(model, folder, tmp_path):
    assert width_on_a_telephone(inspect_page(model, folder), tmp_path) <= 420


def test_colours_separate_what_the_features_separate():
    generator = torch.Generator().manual_seed(0)
    two = torch.cat([torch.randn(30, 16, generator=generator) * 0.05 + s * torch.eye(16)[0] for s in (-1, 1)])
    colours = feature_colours(two).int()
    assert colours.shape == (60, 3)
    assert (colours[:30, 0] - colours[30:, 0]).abs().min() > 200
    assert feature_colours(torch.ones(5, 2)).shape == (5, 3)


def test_viewing_directions():
    front = torch.eye(3)[None]  # the camera at -z of the object
    turned = torch.tensor([[[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]])  # the object's x axis points away from the camera
    assert viewing_directions(torch.cat([front, turned])) == [[0.0, 0.0], [-90.0, 0.0]]


def test_command_names_the_suspect(model, folder, tmp_path, capsys):
    save_model(model, tmp_path / "chair.safetensors")
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path / "chair.safetensors"), "--output", str(page), "--dataset", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "look at swapped: error 30.0 % of the object, worst k3 by 45.0 px" in printed and "image_0" not in printed
    assert _data(page.read_text())["images"][0]["name"] == "swapped"
    bare = replace(model, built_from={})
    save_model(bare, tmp_path / "chair.safetensors")
    assert main(["inspect", str(tmp_path / "chair.safetensors"), "--output", str(page)]) == 0
    assert _data(page.read_text())["images"] == []


@needs_browser
def test_page_is_alive_in_a_browser(model, folder, tmp_path):
    import cv2

    file = tmp_path / "inspect.html"
    file.write_text(inspect_page(model, folder))
    dom, shot = look_at(file, tmp_path, size="1300,2000")
    body = dom[dom.index("<body") : dom.index("<script")]
    assert 'data-ready="yes"' in body
    assert body.index("swapped</b>") < body.index("image_3</b>") and body.count('class="card bad"') == 1
    assert body.count("<img") == 4 and body.count("<circle") >= 60 + 4 * 4  # views, and two rings per annotated point
    assert body.count("<polyline") == 4 and "few images &lt;b&gt;" in body and "±" in body
    picture = cv2.imread(str(shot))
    viewer = picture[220:760, 30:640].reshape(-1, 3)
    assert len(np.unique(viewer, axis=0)) > 300  # the cloud is drawn
