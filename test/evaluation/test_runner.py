"""An evaluation from folder to files: work done once per image, resumable, the same numbers whatever the engine."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_dataset import make_dataset

from semalign3d_core import matchers
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.matchers import Matcher
from semalign3d_core.metrics.pck import pck_correct
from semalign3d_core.perception import backbones
from semalign3d_core.perception.backbones import FeatureBackbone

ROOT = Path(__file__).resolve().parents[2]
SLOW_PROGRAM = """
import sys, time
from pathlib import Path
from semalign3d_core.perception import backbones
from semalign3d_core.cli.eval_spair import main

def slow(argument, dataset_root=None):
    class Slow(backbones.FeatureBackbone):
        name, channels = "slow", 16
        inner = backbones.create("precomputed:sim", dataset_root)
        def extract(self, image):
            time.sleep(float(argument))
            with open(Path(dataset_root) / "log.txt", "a") as log:
                log.write(image.name + "\\n")
            return self.inner.extract(image)
    return Slow()

backbones.BACKBONES["slow"] = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data", noise=0.6)


def configuration(folder, output, **changes):
    options = {"backbone": "precomputed:sim", "depth": "precomputed", "masks": "precomputed", "gallery": 0, **changes}
    return EvaluationConfig(folder, output, **options)


def numbers(results):
    return {key: results[key] for key in ("per_category", "all", "breakdowns", "skipped", "hashes")}


def test_scores_are_those_of_the_published_definition(folder, tmp_path):
    results = evaluate(configuration(folder, tmp_path / "out", categories=("chair", "car"))).results
    lines = map(json.loads, (tmp_path / "out" / "predictions.jsonl").read_text().splitlines())
    predicted = {line["pair"]: line["points"] for line in lines}
    shares, points = {"car": [], "chair": []}, {"car": [], "chair": []}
    for pair in FolderDataset(folder).pairs("test"):
        truth = np.array(pair.attributes["trg_kps"])
        unit = max(pair.target.box[2] - pair.target.box[0], pair.target.box[3] - pair.target.box[1])
        right = np.linalg.norm(np.array(predicted[pair.name]) - truth, axis=1) < 0.1 * unit
        shares[pair.target.category].append(right.mean())
        points[pair.target.category].extend(right)
    for category in shares:
        found = results["per_category"][category]["pck"]["0.1"]
        assert found["per_image"] == pytest.approx(100 * np.mean(shares[category]))
        assert found["per_point"] == pytest.approx(100 * np.mean(points[category]))
        assert results["per_category"][category]["pairs"] == 12 and results["per_category"][category]["skipped"] == 0
    total = results["all"]["pck"]["0.1"]
    assert total["mean_of_categories"] == pytest.approx(100 * np.mean([np.mean(s) for s in shares.values()]))
    assert total["pair_weighted"] == pytest.approx(100 * np.mean(sum(shares.values(), [])))
    assert total["per_point"] == pytest.approx(100 * np.mean(sum(points.values(), [])))
    assert 20 < total["per_point"] < 100


def test_result_file_has_the_documented_structure(folder, tmp_path):
    evaluate(configuration(folder, tmp_path / "out", alpha=(0.01, 0.05, 0.1)))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"method", "config", "versions", "protocol", "per_category", "all", "seconds", "seeds", "hashes"} <= set(results)
    assert list(results["all"]["pck"]) == ["0.01", "0.05", "0.1"]
    assert {"mean_of_categories", "pair_weighted", "per_point"} <= set(results["all"]["pck"]["0.1"])
    assert {"pck", "pairs", "skipped"} <= set(results["per_category"]["chair"])
    assert results["protocol"]["threshold"] == "bbox" and "strict" in results["protocol"]["correct"]
    assert {"torch", "numpy", "python", "semalign3d"} <= set(results["versions"])
    assert len(results["hashes"]["annotation"]) == 64 and results["config"]["backbone"] == "precomputed:sim"
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert rows[0].startswith("category,metric,alpha") and any(row.startswith("all,pck,0.1,pair_weighted,") for row in rows)
    assert len((tmp_path / "out" / "pairs.csv").read_text().splitlines()) == 25


@pytest.mark.slow
def test_hashes_name_the_data(folder, tmp_path):
    first = evaluate(configuration(folder, tmp_path / "a")).results["hashes"]
    assert evaluate(configuration(folder, tmp_path / "b")).results["hashes"] == first
    annotation = folder / "ImageAnnotation" / "car" / "img1.json"
    content = json.loads(annotation.read_text())
    content["bndbox"][0] += 1
    annotation.write_text(json.dumps(content))
    changed = evaluate(configuration(folder, tmp_path / "c")).results["hashes"]
    assert changed["annotation"] != first["annotation"] and changed["images"] == first["images"]


class CountingMatcher(Matcher):
    """Prepares a small value per image, and counts."""

    name, prepared, matched = "counting", 0, 0
    prepares = True

    def prepare(self, evidence):
        type(self).prepared += 1
        return matchers.Matches(evidence.features.values.mean((1, 2)), torch.ones(1))

    def match(self, source, target, points):
        type(self).matched += 1
        return matchers.Matches(points + (source.points.sum() - target.points.sum()), torch.ones(len(points)))


@pytest.mark.slow
def test_images_are_prepared_once_and_runs_continue_from_the_cache(folder, tmp_path, monkeypatch):
    extracted = []

    class Counting(FeatureBackbone):
        name, channels = "counting", 16

        def __init__(self, root):
            self.inner = backbones.create("precomputed:sim", root)

        def extract(self, image):
            extracted.append(image.name)
            return self.inner.extract(image)

    monkeypatch.setitem(backbones.BACKBONES, "counting", lambda argument, dataset_root=None: Counting(dataset_root))
    monkeypatch.setitem(matchers.MATCHERS, "counting", CountingMatcher)
    options = {"backbone": "counting", "method": "counting", "cache": tmp_path / "cache"}
    CountingMatcher.prepared = CountingMatcher.matched = 0
    first = evaluate(configuration(folder, tmp_path / "a", **options))
    assert sorted(extracted) == sorted(f"{c}/img{i}" for c in ("car", "chair") for i in range(4))
    assert CountingMatcher.prepared == 8 and CountingMatcher.matched == 24
    second = evaluate(configuration(folder, tmp_path / "b", **options))
    assert len(extracted) == 8 and CountingMatcher.prepared == 8 and CountingMatcher.matched == 24
    assert numbers(first.results) == numbers(second.results)
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (tmp_path / "b" / "predictions.jsonl").read_text()


def test_features_are_kept_in_half_precision(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "copy", lambda argument, dataset_root=None: backbones.create("precomputed:sim", dataset_root))
    evaluate(configuration(folder, tmp_path / "a", backbone="copy", limit=2))
    sizes = [path.stat().st_size for path in (tmp_path / "a" / "cache" / "features").rglob("*.safetensors")]
    assert sizes and all(size < 2 * 16 * 12 * 12 + 1000 for size in sizes)


@pytest.mark.slow
def test_truncated_cache_file_is_counted_and_changes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "copy", lambda argument, dataset_root=None: backbones.create("precomputed:sim", dataset_root))
    options = {"backbone": "copy", "cache": tmp_path / "cache"}
    first = evaluate(configuration(folder, tmp_path / "a", **options)).results
    for path in list((tmp_path / "cache").rglob("*.safetensors"))[:3]:
        path.write_bytes(path.read_bytes()[:-7])
    second = evaluate(configuration(folder, tmp_path / "b", **options)).results
    assert "damaged" not in first["cache"] and second["cache"]["damaged"] == 3
    assert numbers(first) == numbers(second)


def run_slow(folder, output, seconds, wait=True):
    arguments = f"--dataset {folder} --backbone slow:{seconds} --output {output} --gallery 0".split()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SLOW_PROGRAM, *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if wait:
        text = process.communicate(timeout=120)
        assert process.returncode == 0, text
    return process


@pytest.mark.slow
def test_killed_run_loses_at_most_one_image(folder, tmp_path):
    log = folder / "log.txt"
    process = run_slow(folder, tmp_path / "killed", 0.3, wait=False)
    deadline = time.monotonic() + 90
    while not (log.exists() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended too early or hangs"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    run_slow(folder, tmp_path / "killed", 0.3)
    assert 8 <= len(log.read_text().splitlines()) <= 9  # eight images, at most one of them twice
    run_slow(folder, tmp_path / "whole", 0.3)
    killed, whole = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("killed", "whole"))
    assert numbers(killed) == numbers(whole)
    assert (tmp_path / "killed" / "predictions.jsonl").read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()


ENGINES = [
    ("local", 2),
    pytest.param("ray", 2, marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'ray')")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "workers"), ENGINES)
def test_engines_agree_exactly(folder, tmp_path, engine, workers):
    options = {"method": "window_soft_argmax"}
    one = evaluate(configuration(folder, tmp_path / "one", **options)).results
    many = evaluate(configuration(folder, tmp_path / "many", engine=engine, workers=workers, **options)).results
    assert numbers(one) == numbers(many)
    assert (tmp_path / "one" / "predictions.jsonl").read_bytes() == (tmp_path / "many" / "predictions.jsonl").read_bytes()


def test_limit_and_categories_choose_pairs(folder, tmp_path):
    results = evaluate(configuration(folder, tmp_path / "out", categories=("car",), limit=3)).results
    assert list(results["per_category"]) == ["car"] and results["all"]["pairs"] == 3


def test_image_threshold(folder, tmp_path):
    results = evaluate(configuration(folder, tmp_path / "out", threshold="image", limit=2, categories=("car",)))
    score = results.scores[0]
    side = max(score.pair.record.target.width, score.pair.record.target.height)
    assert score.pair.unit == side
    assert np.array_equal(score.correct, pck_correct(score.points, score.pair.target_points, side, results.config.alpha))


def test_geometry_aware_subset_holds_confusable_keypoints_only(folder, tmp_path):
    evaluation = evaluate(configuration(folder, tmp_path / "out", categories=("car",)))
    right, count = [], 0
    for score in evaluation.scores:
        seen = np.isfinite(score.pair.record.target.keypoints).all(1)
        expected = [label in (0, 1) and seen[0] and seen[1] for label in score.pair.labels]  # the mirror pair of the category
        assert score.pair.confusable.tolist() == expected
        right += score.correct[expected, 2].tolist()
        count += any(expected)
    found = evaluation.results["per_category"]["car"]["geometry_aware"]
    assert found["points"] == len(right) > 0 and found["pairs"] == count
    assert found["pck"]["0.1"]["per_point"] == pytest.approx(100 * np.mean(right))


@pytest.mark.slow
def test_masks_that_ask_the_category_model(folder, tmp_path, monkeypatch):
    from tiny_category import tiny_model

    from semalign3d_core.category.storage import save_model

    for category in ("car", "chair"):
        save_model(tiny_model(category), tmp_path / "models" / f"{category}.safetensors")
    results = evaluate(configuration(folder, tmp_path / "out", masks="similarity", models=tmp_path / "models")).results
    assert results["cache"]["masks_computed"] == 8 and results["all"]["skipped"] == 0
