"""The data set on disk: SPair-71k's layout, sidecars, reproducibility, resuming."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception.backbones import create as create_backbone
from semalign3d_core.perception.depth import create as create_depth
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks import create as create_masks
from semalign3d_core.runtime.files import read_json

COUNTS = ["--train", "4", "--test", "3", "--pairs", "5", "--size", "96", "--workers", "1"]
FEATURES = ["--features", "sim", "--channels", "12"]


def synth(folder, *options):
    return main(["synth", "--output", str(folder), "--categories", "chair", "mug", *COUNTS, *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth")
    assert synth(root, *FEATURES) == 0
    return root


def fingerprint(root):
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def contents(record, folder):
    image = ImageInput(np.array(Image.open(record.path)), record.name, record)
    mask = create_masks("precomputed", folder).segment(image)
    depth = create_depth("precomputed", folder).estimate(image)
    return image, mask, depth, create_backbone("precomputed:sim", folder).extract(image)


@pytest.mark.slow
def test_the_folder_is_readable_as_a_data_set(folder):
    data = FolderDataset(folder)
    assert data.categories() == ["chair", "mug"]
    for category in data.categories():
        assert len(data.images(category)) == 7
        for record in data.images(category):
            image, mask, depth, features = contents(record, folder)
            assert image.rgb.shape == (96, 96, 3) and mask.shape == depth.values.shape == (96, 96)
            assert features.values.shape == (12, 60, 60) and depth.kind == "disparity"
            mirrored = create_backbone("precomputed:sim", folder).extract(image.mirror())
            assert mirrored.values.shape == (12, 60, 60)


@pytest.mark.slow
def test_pairs_and_layouts(folder):
    data = FolderDataset(folder)
    for split in ("trn", "test"):
        pairs = list(data.pairs(split))
        assert pairs and {p.source.category for p in pairs} == {"chair", "mug"}
        assert sorted(p.name for p in (folder / "PairAnnotation" / split).iterdir()) == sorted(f"{p.name}.json" for p in pairs)
        assert {p.name for p in data.pairs(split, "small")} <= {p.name for p in pairs}
        for pair in pairs:
            content = pair.attributes
            assert pair.name.endswith(f":{content['category']}") and content["filename"] == pair.name
            for key, record in (("src", pair.source), ("trg", pair.target)):
                assert content[f"{key}_imsize"] == [96, 96, 3]
                np.testing.assert_allclose(content[f"{key}_kps"], record.keypoints[[int(k) for k in content["kps_ids"]]])
                np.testing.assert_allclose(content[f"{key}_bndbox"], record.box)
            assert len(content["kps_ids"]) >= 3
            assert content["truncation"] in (0, 1, 2, 3) and content["occlusion"] in (0, 1, 2, 3)
            assert content["viewpoint_variation"] in (0, 1, 2) and content["scale_variation"] in (0, 1, 2)
    assert list(data.pairs("val")) == []


def test_annotations_follow_from_the_truth(folder):
    for record in FolderDataset(folder).images("chair"):
        truth = np.load(folder / "Truth" / "chair" / f"{record.name}.npz")
        camera = truth["scale"] * truth["shape"] @ truth["R"].T + truth["t"]
        np.testing.assert_allclose(camera, truth["keypoints_3d"], atol=1e-9)
        pixels = camera @ truth["K"].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        np.testing.assert_array_equal(np.isfinite(record.keypoints).all(1), truth["visible"])
        np.testing.assert_allclose(record.keypoints[truth["visible"]], pixels[truth["visible"]], atol=0.01)
        assert record.attributes["azimuth_id"] == int(truth["azimuth"] // 45)
        rows, columns = np.nonzero(contents(record, folder)[1].numpy())
        np.testing.assert_array_equal(record.box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert truth["depth"].shape == (96, 96) and truth["canonical_keypoints"].shape == truth["shape"].shape


def test_training_and_test_instances_differ(folder):
    for category in ("chair", "mug"):
        seeds = {split: set() for split in ("trn", "test")}
        for path in (folder / "Truth" / category).iterdir():
            seeds[path.name.partition("_")[0]].add(int(np.load(path)["instance_seed"]))
        assert seeds["trn"].isdisjoint(seeds["test"]) and max(seeds["trn"]) < min(seeds["test"])


@pytest.mark.slow
def test_the_same_command_makes_the_same_files_whatever_the_workers(folder, tmp_path):
    assert synth(tmp_path / "again", *FEATURES, "--workers", "2") == 0
    assert fingerprint(tmp_path / "again") == fingerprint(folder)
    assert synth(tmp_path / "other", "--seed", "1") == 0
    first, second = (root / "JPEGImages/chair/trn_00000.jpg" for root in (folder, tmp_path / "other"))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.slow
def test_an_interrupted_data_set_is_completed(folder, tmp_path, capsys):
    root = tmp_path / "set"
    assert synth(root) == 0
    capsys.readouterr()
    whole = fingerprint(root)
    assert synth(root) == 0
    assert "0 rendered now, 14 were there already" in capsys.readouterr().out
    (root / "ImageAnnotation/chair/trn_00001.json").unlink()  # what an interruption leaves: no annotation, some other files
    (root / "Depth/chair/trn_00001.npz").unlink()
    kept = root / "JPEGImages/mug/trn_00000.jpg"
    before = kept.stat().st_mtime_ns
    assert synth(root) == 0
    assert "1 rendered now, 13 were there already" in capsys.readouterr().out
    assert fingerprint(root) == whole and kept.stat().st_mtime_ns == before
    assert synth(root, *FEATURES) == 0  # features added to finished images
    assert fingerprint(root) == fingerprint(folder)


@pytest.mark.slow
def test_fewer_pairs_leave_no_stale_files(tmp_path):
    assert synth(tmp_path) == 0
    assert synth(tmp_path, "--pairs", "2") == 0
    for split in ("trn", "test"):
        listed = (tmp_path / "Layout" / "large" / f"{split}.txt").read_text().split()
        assert sorted(f"{name}.json" for name in listed) == sorted(p.name for p in (tmp_path / "PairAnnotation" / split).iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "80"], "synth.json.*other options"),
        ([*FEATURES, "--folding", "1.0"], "grid.json.*other options"),
        (["--train", "-1"], "--train must not be negative"),
        (["--categories", "teapot"], "teapot.*choose one of aeroplane"),
        (["--depth-kind", "sonar"], "sonar.*disparity"),
    ],
)
def test_wrong_options_are_explained(folder, tmp_path, capsys, options, message):
    import re

    root = folder if "other options" in message else tmp_path
    assert synth(root, *options) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_foreign_data_set_is_not_touched(tmp_path, capsys):
    (tmp_path / "ImageAnnotation").mkdir()
    assert synth(tmp_path) == 2
    assert "was not made by this command" in capsys.readouterr().err


@pytest.mark.slow
def test_depth_kinds_and_keypoint_noise(folder, tmp_path):
    options = ["--train", "1", "--test", "0", "--pairs", "0"]
    name = "chair/trn_00000"
    metric, scaled, noisy = tmp_path / "metric", tmp_path / "depth", tmp_path / "noisy"
    assert synth(metric, *options, "--depth-kind", "metric") == 0
    assert synth(scaled, *options, "--depth-kind", "depth") == 0
    assert synth(noisy, *options, "--keypoint-noise", "0.05") == 0
    true = np.load(metric / f"Depth/{name}.npz")
    np.testing.assert_array_equal(true["depth"], np.load(metric / f"Truth/{name}.npz")["depth"])
    ratio = np.load(scaled / f"Depth/{name}.npz")["depth"] / true["depth"]
    assert str(true["kind"]) == "metric" and np.nanstd(ratio) < 1e-5 * np.nanmean(ratio) and abs(np.nanmean(ratio) - 1) > 0.01
    clean, moved = (json.loads((root / f"ImageAnnotation/{name}.json").read_text())["kps"] for root in (metric, noisy))
    moves = [np.subtract(clean[k], moved[k]) for k in clean if clean[k] is not None]
    assert 0.5 < np.abs(moves).max() < 20


@pytest.mark.slow
def test_oblong_pictures(tmp_path):
    assert synth(tmp_path, "--aspect", "0.6", "0.8", "--test", "0") == 0
    for path in (tmp_path / "ImageAnnotation" / "chair").iterdir():
        content = read_json(path)
        assert content["image_width"] == 96 and 57 <= content["image_height"] <= 77
