"""build_category and ``semalign3d build`` on small data sets written to disk: outputs, policies, resuming, determinism."""

import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from category_folder import FAST, IMAGES, KEYPOINTS, NAMES, SIDE, build, write_data_set
from PIL import Image

from semalign3d_core.calibration import build as calibrated_build
from semalign3d_core.calibration.build import build_category
from semalign3d_core.calibration.recipe import training_records
from semalign3d_core.category.annotations.views import Providers
from semalign3d_core.category.config import DataPolicy
from semalign3d_core.category.storage import load_model
from semalign3d_core.cli import build as build_command
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.runtime import threads
from semalign3d_core.runtime.errors import InputError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("source"))


@pytest.fixture
def folder(source, tmp_path):
    return shutil.copytree(source, tmp_path / "set")


@pytest.fixture(scope="module")
def built(source):
    return build(source)


@pytest.mark.slow
def test_model_is_consistent(built):
    model, report = built
    assert model.present.all() and model.backbone == "sim" and len(report["images"]) == IMAGES
    torch.testing.assert_close(model.weights.sum(1), torch.ones(len(model.weights)), atol=1e-4, rtol=0)
    assert float(torch.cdist(model.shape, model.shape).max()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(model.shape[list(model.flip_permutation)] * torch.tensor([-1.0, 1, 1]), model.shape, atol=1e-5, rtol=0)
    assert (model.keypoint_sd >= 0.05).all() and (model.dense_sd >= 0.05).all() and len(model.dense_mu) <= 40
    assert model.pose_rotations.shape == (2 * IMAGES, 3, 3) and len(model.betas.edge1) > 0 and len(model.betas.vertex) > 0
    torch.testing.assert_close(model.modes.flatten(1).norm(dim=1), torch.ones(len(model.modes)), atol=1e-4, rtol=0)
    for value in (model.shape, model.weights, model.dense_features, model.keypoint_features, model.modes, model.betas.edge_beta):
        assert torch.isfinite(value).all()


def test_report_is_json_and_names_what_happened(built):
    _, report = built
    text = json.loads(json.dumps(report))
    assert text["start"] in ("multiview", "disparity") and text["diversity"] > 0
    assert all(image["reprojection_error_pixels"] < 8 and image["worst_keypoint"] in NAMES for image in text["images"])


@pytest.mark.slow
def test_order_of_images_does_not_matter(built, source):
    dataset = FolderDataset(source)
    providers = Providers(
        backbones.create("precomputed:sim", source), depth.create("precomputed", source), masks.create("precomputed", source)
    )
    records = dataset.images("thing")[::-1]
    model, _ = build_category("thing", dataset.keypoint_spec("thing"), iter(records), providers, FAST)
    assert torch.equal(model.shape, built[0].shape) and torch.equal(model.dense_features, built[0].dense_features)


@pytest.mark.slow
def test_bad_images_are_skipped_and_counted(folder):
    (folder / "Depth/thing/im01.npz").write_bytes(b"broken")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(folder / "Segmentation/thing/im02.png")
    (folder / "Features/sim/thing/im03.safetensors").unlink()
    (folder / "Features/sim/thing/im04.flip.safetensors").unlink()
    path = folder / "ImageAnnotation/thing/im05.json"
    content = json.loads(path.read_text())
    first = next(k for k, p in content["kps"].items() if p)
    content["kps"][first] = [500.0, 10.0]
    path.write_text(json.dumps(content))
    model, report = build(folder)
    assert set(report["skipped_images"]) >= {"im01", "im02", "im03"}
    assert "im01.npz" in report["skipped_images"]["im01"] and "mask" in report["skipped_images"]["im02"]
    assert any("im04" in text and "mirror" in text for text in report["warnings"])
    assert "outside" in report["dropped_keypoints"]["im05"][0]
    assert torch.isfinite(model.shape).all()


@pytest.mark.parametrize("broken", ["Depth/thing/im01.npz", "Features/sim/thing/im01.safetensors"])
def test_policy_error_names_the_file(folder, broken):
    (folder / broken).unlink()
    with pytest.raises(FileNotFoundError, match="im01"):
        build(folder, replace(FAST, policy=DataPolicy(on_bad_image="error")))


def test_too_few_images_are_refused_with_counts(folder):
    for n in range(3, IMAGES):
        (folder / f"ImageAnnotation/thing/im{n:02d}.json").unlink()
    with pytest.raises(InputError, match=r"3 usable images.*Images per keypoint: k0 \d"):
        build(folder)


@pytest.mark.slow
def test_few_annotations_are_warned_about(folder, built):
    for path in (folder / "ImageAnnotation/thing").glob("*.json"):
        content = json.loads(path.read_text())
        seen = [k for k, p in content["kps"].items() if p]
        content["kps"] |= dict.fromkeys(seen[5:])
        path.write_text(json.dumps(content))
    _, report = build(folder)
    assert 1 <= report["trust_ratio"] < 1.6 and any("are few" in text for text in report["warnings"])
    assert built[1]["trust_ratio"] > 1.6 and not any("are few" in text for text in built[1]["warnings"])


def test_missing_masks_are_named_as_the_cause(folder, caplog):
    shutil.rmtree(folder / "Segmentation")
    with pytest.raises(InputError, match=rf"{IMAGES} images were left out, im00 because: .*im00.png does not exist"):
        build(folder)
    assert len(caplog.messages) < 6  # the first reasons and how many more, not one line per image


@pytest.mark.slow
def test_rare_keypoint_becomes_absent(folder):
    flip = json.loads((folder / "keypoints.json").read_text())["thing"]["flip_permutation"]
    rare = {KEYPOINTS - 1, flip[KEYPOINTS - 1]}
    for path in sorted((folder / "ImageAnnotation/thing").glob("*.json")):
        content = json.loads(path.read_text())
        content["kps"] = {k: None if int(k) in rare else p for k, p in content["kps"].items()}
        path.write_text(json.dumps(content))
    model, report = build(folder)
    assert report["absent_keypoints"] == [NAMES[k] for k in sorted(rare)]
    for k in rare:
        assert not model.present[k] and (model.shape[k] == 0).all() and (model.weights[:, k] == 0).all() and (model.modes[:, k] == 0).all()
        assert not (model.betas.edge1 == k).any() and not (model.betas.vertex == k).any()
    assert torch.isfinite(model.keypoint_features).all()


@pytest.mark.slow
def test_interrupted_build_resumes_with_the_same_result(folder, tmp_path, built):
    class Stop(Exception):
        pass

    def stop(step, done, total):
        if step == "reading images" and done == 6:
            raise Stop

    with pytest.raises(Stop):
        build(folder, work_folder=tmp_path / "work", progress=stop)
    kept = sorted((tmp_path / "work").glob("*.safetensors"))
    assert len(kept) == 6
    before = kept[0].stat().st_mtime_ns
    model, _ = build(folder, work_folder=tmp_path / "work")
    assert kept[0].stat().st_mtime_ns == before
    assert torch.equal(model.shape, built[0].shape) and torch.equal(model.dense_features, built[0].dense_features)


@pytest.mark.slow
def test_the_number_of_processors_does_not_matter(source, monkeypatch):
    models = []
    monkeypatch.setattr(calibrated_build, "FOLDS", 2)
    for count in (1, 3):
        monkeypatch.setattr(threads, "processors", lambda count=count: count)
        models.append(build(source, replace(FAST, calibrate=True))[0])
    one, three = models
    assert one.calibration and one.calibration == pytest.approx(three.calibration, rel=0, abs=0, nan_ok=True)
    assert torch.equal(one.shape, three.shape) and torch.equal(one.dense_features, three.dense_features)


@pytest.mark.slow
@pytest.mark.parametrize("concurrent", [True, False])
def test_only_providers_that_say_so_are_asked_by_several_threads(source, monkeypatch, concurrent):
    monkeypatch.setattr(threads, "processors", lambda: 3)
    monkeypatch.setattr(backbones.precomputed.PrecomputedBackbone, "concurrent", concurrent)
    extract, askers = backbones.precomputed.PrecomputedBackbone.extract, set()

    def told(self, image):
        askers.add(threading.current_thread())
        return extract(self, image)

    monkeypatch.setattr(backbones.precomputed.PrecomputedBackbone, "extract", told)
    monkeypatch.setattr(calibrated_build, "FOLDS", 0)
    build(source, replace(FAST, calibrate=True))
    assert (threading.main_thread() in askers) is not concurrent and (len(askers) > 1) is concurrent


@pytest.mark.slow
def test_changed_file_is_read_again(folder, tmp_path):
    build(folder, work_folder=tmp_path / "work")
    stored = tmp_path / "work/im00.safetensors"
    before = stored.stat().st_mtime_ns
    with np.load(folder / "Depth/thing/im00.npz") as old:
        np.savez(folder / "Depth/thing/im00.npz", depth=old["depth"] * 2, kind="disparity")
    build(folder, work_folder=tmp_path / "work")
    assert stored.stat().st_mtime_ns > before


@pytest.mark.slow
def test_metric_depth_and_known_cameras(tmp_path):
    model, _ = build(write_data_set(tmp_path / "metric", "metric", camera=True))
    assert float(model.focal[0]) == pytest.approx(1.4, abs=1e-3) and torch.isfinite(model.diameter_metres).all()
    assert 0.05 < float(model.diameter_metres[0]) < 20


def test_command_writes_model_and_report(folder, tmp_path, capsys):
    preset = tmp_path / "fast.yaml"
    preset.write_text("calibrate: false\nem: {rounds: 4}\ndense: {points: 30}\n")
    options = build_command.Options(
        dataset=folder, category=("thing",), output=tmp_path / "models", backbone="precomputed:sim", preset=str(preset)
    )
    assert build_command.run(options) == 0
    assert "thing.safetensors" in capsys.readouterr().out
    model = load_model(tmp_path / "models/thing.safetensors")
    report = json.loads((tmp_path / "models/thing.report.json").read_text())
    assert model.category == "thing" and model.built_from["image_names"][0] == "im00" and report["model_hash"]
    assert not (tmp_path / "models/.build").exists()


def test_max_images_are_spread_over_the_sorted_names(source):
    records = training_records(FolderDataset(source), "thing", "trn", 7)
    assert [r.name for r in records] == [f"im{n:02d}" for n in range(0, 14, 2)]
