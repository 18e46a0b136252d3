"""``semalign3d align`` and ``semalign3d match`` on a data set folder with precomputed features."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from simulated_category import SIZE, SimulatedCategory

from semalign3d_core.category.storage import load_model, save_model
from semalign3d_core.cli.main import main
from semalign3d_core.learned.spherical_maps.network import SphericalMaps
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set folder of three simulated chairs with features, masks and depth, the model beside it, and the truth."""
    root = tmp_path_factory.mktemp("data")
    category = SimulatedCategory("chair")
    save_model(replace(category.model(), backbone="sim"), root / "models" / "chair.safetensors")
    names = [f"k{k}" for k in range(10)]
    (root / "keypoints.json").write_text(json.dumps({"chair": {"names": names, "flip_permutation": category.flip}}))
    for kind in ("JPEGImages", "ImageAnnotation", "Segmentation", "Depth", "Features/sim", "Features/other"):
        (root / kind / "chair").mkdir(parents=True)
    for backbone in ("sim", "other"):
        (root / "Features" / backbone / "grid.json").write_text(json.dumps({"padding": "bottom_right"}))
    truth = {}
    for seed, name in enumerate(NAMES):
        image = truth[name] = category.image(seed)
        mask = image.evidence.mask.numpy()
        picture = np.where(mask[..., None], np.uint8([150, 120, 90]), np.uint8(60))
        Image.fromarray(picture).save(root / "JPEGImages" / "chair" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "Segmentation" / "chair" / f"{name}.png")
        np.savez(root / "Depth" / "chair" / f"{name}.npz", depth=image.evidence.depth.values.numpy(), kind="disparity")
        features = {"features": image.evidence.features.values.half().contiguous()}
        save_file(features, root / "Features" / "sim" / "chair" / f"{name}.safetensors")
        content = {"kps": {str(k): p for k, p in enumerate(image.keypoints.tolist())}, "image_width": SIZE, "image_height": SIZE}
        (root / "ImageAnnotation" / "chair" / f"{name}.json").write_text(json.dumps(content))
    return root, truth


def _method(root, model=True):
    named = ["--model", str(root / "models" / "chair.safetensors")] if model else ["--category", "chair", "--models", str(root / "models")]
    return [*named, "--backbone", "precomputed:sim", "--depth", "precomputed", "--masks", "precomputed", "--dataset", str(root)]


def _image(root, name):
    return str(root / "JPEGImages" / "chair" / f"{name}.png")


@pytest.mark.slow
def test_align_prints_and_writes_the_keypoints(folder, tmp_path, capsys):
    root, truth = folder
    assert main(["align", _image(root, "one"), *_method(root), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "one.align.json").read_text())
    image = truth["one"]
    assert result["found"] and result["category"] == "chair"
    assert result["model_hash"] == load_model_hash(root)
    assert [k["name"] for k in result["keypoints"]] == [f"k{k}" for k in range(10)]
    assert all(f"k{k} " in printed for k in range(10))
    pixels = torch.tensor([k["pixel"] for k in result["keypoints"]])
    error = (pixels - image.keypoints).norm(dim=1)[image.visible]
    assert error.median() < 8 and error.max() < 25
    matrix, position = np.array(result["camera_matrix"]), np.array(result["keypoints"][0]["position"])
    assert (matrix @ position / position[2])[:2] == pytest.approx(result["keypoints"][0]["pixel"], abs=0.05)
    rotation = np.array(result["pose"]["rotation"])
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-5)
    with Image.open(tmp_path / "one.align.png") as picture:
        assert picture.size[0] == picture.size[1] >= 2 * SIZE


def load_model_hash(root):
    from semalign3d_core.category.storage import model_hash

    return model_hash(load_model(root / "models" / "chair.safetensors"))


@pytest.mark.slow
def test_known_camera_is_kept(folder, tmp_path):
    root, _ = folder
    arguments = ["align", _image(root, "one"), *_method(root, model=False), "--output", str(tmp_path), "--camera", "400,410,119.5,121"]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "one.align.json").read_text())
    assert result["camera_known"]
    assert result["camera_matrix"] == pytest.approx(np.array([[400, 0, 119.5], [0, 410, 121], [0, 0, 1]]), abs=1e-3)


@pytest.mark.slow
def test_one_bad_image_does_not_lose_the_rest(folder, tmp_path, capsys):
    root, _ = folder
    bad = root / "JPEGImages" / "chair" / "broken.png"
    bad.write_bytes(b"no picture")
    images = [str(root / "JPEGImages" / "chair"), str(tmp_path / "none.png")]
    try:
        code = main(["align", *images, *_method(root), "--output", str(tmp_path / "out")])
    finally:
        bad.unlink()
    captured = capsys.readouterr()
    assert code == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*.json")) == sorted(f"{name}.align.json" for name in NAMES)
    assert "broken.png cannot be read" in captured.err and "none.png does not exist" in captured.err
    assert "2 of 5 images could not be aligned" in captured.err
    assert "Traceback" not in captured.err


def test_images_of_one_name_do_not_overwrite_each_other(folder, tmp_path):
    root, _ = folder
    (root / "JPEGImages" / "chair2").mkdir(exist_ok=True)
    copy = root / "JPEGImages" / "chair2" / "one.png"
    copy.write_bytes((root / "JPEGImages" / "chair" / "one.png").read_bytes())
    main(["align", _image(root, "one"), str(copy), *_method(root), "--output", str(tmp_path)])
    assert (tmp_path / "chair_one.align.json").is_file()


def test_match_carries_points_and_draws_them(folder, tmp_path, capsys):
    root, truth = folder
    both = truth["one"].visible & truth["two"].visible
    points, expected = truth["one"].keypoints[both], truth["two"].keypoints[both]
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points.tolist())
    arguments = ["match", _image(root, "one"), _image(root, "two"), *_method(root), "--points", text, "--output", str(tmp_path)]
    assert main([*arguments, "--transfer", "keypoints"]) == 0
    result = json.loads((tmp_path / "one_two.match.json").read_text())
    error = (torch.tensor([m["target"] for m in result["matches"]]) - expected).norm(dim=1)
    assert len(error) == int(both.sum()) and error.median() < 8
    assert all(0 <= m["confidence"] <= 1 and m["cycle_pixels"] >= 0 for m in result["matches"])
    assert capsys.readouterr().out.count(" > ") == len(error)
    with Image.open(tmp_path / "one_two.match.png") as picture:
        assert picture.size == (2 * 480 + 6, 480)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--points", "12;13"], "'12' is no point"),
        (["--points", " "], "--points is empty"),
        (["--points", "500,3"], "500,3 lies outside"),
        (["--points", "1,2", "--camera", "1,2"], "expected four numbers fx,fy,cx,cy"),
        (["--points", "1,2", "--camera", "0,2,3,4"], "positive, finite focal lengths"),
        (["--points", "1,2", "--backbone", "precomputed:other"], "was built with the backbone 'sim', not with 'other'"),
        (["--points", "1,2", "--category", "chair"], "either --model FILE or --category NAME"),
        (["--points", "1,2", "--preset", "slow"], "unknown align preset 'slow'"),
    ],
)
def test_wrong_options_are_explained(folder, tmp_path, capsys, change, message):
    root, _ = folder
    assert main(["match", _image(root, "one"), _image(root, "two"), *_method(root), "--output", str(tmp_path), *change]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_image_outside_the_data_set_cannot_have_precomputed_features(folder, tmp_path, capsys):
    root, _ = folder
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "other.png")
    assert main(["align", str(tmp_path / "other.png"), *_method(root), "--output", str(tmp_path / "out")]) == 1
    assert "precomputed files exist only for images of the data set" in capsys.readouterr().err


def test_unknown_category_lists_the_known_ones(folder, tmp_path, capsys):
    root, _ = folder
    assert main(["align", _image(root, "one"), "--category", "sofa", "--models", str(root / "models"), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no model of category 'sofa'" in error and "chair" in error


def test_viz_writes_a_page_or_a_picture(folder, tmp_path):
    root, _ = folder
    base = ["align", _image(root, "one"), *_method(root), "--output", str(tmp_path)]
    assert main([*base, "--viz", str(tmp_path / "look.png")]) == 0
    with Image.open(tmp_path / "look.png") as picture:
        assert picture.size[0] >= SIZE
    assert main([*base, "--viz", str(tmp_path / "look.html")]) == 0
    assert "<canvas" in (tmp_path / "look.html").read_text() or "<svg" in (tmp_path / "look.html").read_text()


def test_viz_with_several_images_lists_their_pages(folder, tmp_path, capsys):
    root, _ = folder
    images = [_image(root, "one"), _image(root, "two")]
    assert main(["align", *images, *_method(root), "--output", str(tmp_path), "--viz", str(tmp_path / "look.html")]) == 0
    assert "\r" not in capsys.readouterr().err  # no bar where nobody watches
    listed = re.findall(r'href="([^"]+)"', (tmp_path / "look.html").read_text())
    assert sorted(listed) == ["look_one.html", "look_two.html"] and all((tmp_path / name).is_file() for name in listed)


@pytest.mark.slow
def test_viz_with_a_mapper_shows_the_sphere(folder, tmp_path, capsys):
    root, _ = folder
    channels = load_file(next((root / "Features" / "sim" / "chair").glob("*.safetensors")))["features"].shape[0]
    for name, features in (("mapper", "sim"), ("other", "another backbone")):
        save_spherical_maps(SphericalMaps(channels, 1), tmp_path / f"{name}.safetensors", MapperFacts(features, False))
    base = ["align", _image(root, "one"), *_method(root), "--output", str(tmp_path), "--viz", str(tmp_path / "look.html"), "--mapper"]
    assert main([*base, str(tmp_path / "mapper.safetensors")]) == 0
    assert "place on the sphere" in (tmp_path / "look.html").read_text()
    assert main([*base, str(tmp_path / "other.safetensors")]) == 1
    assert "trained on features of another backbone" in capsys.readouterr().err


def test_a_box_says_where_the_object_is(folder, tmp_path, capsys):
    root, _ = folder
    method = [*_method(root), "--masks", "none"]
    where = {"one.png": [20, 20, 200, 200]}
    (tmp_path / "boxes.json").write_text(json.dumps(where))
    for boxes in ("20,20,200,200", str(tmp_path / "boxes.json")):
        assert main(["align", _image(root, "one"), *method, "--boxes", boxes, "--output", str(tmp_path / "out")]) == 0
        results = json.loads((tmp_path / "out" / "one.align.json").read_text())
        assert np.isfinite([k["pixel"] for k in results["keypoints"]]).all()
    (tmp_path / "list.json").write_text("[1, 2]")
    for boxes, reason in (("1,2,3", "expected x0,y0,x1,y1"), ("900,900,990,990", "no box inside"), (str(tmp_path / "list.json"), "object")):
        assert main(["align", _image(root, "one"), *method, "--boxes", boxes, "--output", str(tmp_path / "bad")]) == 1
        assert reason in capsys.readouterr().err
