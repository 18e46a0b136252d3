"""Anybody's predictions: scored by the same code, and oddities of the file never improve a score."""

import json

import numpy as np
import pytest
from tiny_dataset import make_dataset

from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.evaluation.keypoints.predictions import read_predictions, write_predictions
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.runtime.errors import FileFormatError, SemAlign3DError


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data")


def score(folder, lines, **changes):
    path = folder.parent / "predictions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return evaluate(EvaluationConfig(folder, folder.parent / "scored", predictions=path, gallery=0, **changes)).results


def perfect(folder):
    return [{"pair": pair.name, "points": pair.attributes["trg_kps"]} for pair in FolderDataset(folder).pairs("test")]


def test_perfect_predictions(folder):
    results = score(folder, perfect(folder))
    assert all(value == 100 for scores in results["all"]["pck"].values() for value in scores.values())
    assert results["method"] == "predictions:predictions.jsonl" and len(results["hashes"]["predictions"]) == 64


def test_own_predictions_score_the_same_again(folder):
    options = {"backbone": "precomputed:sim", "gallery": 0}
    first = evaluate(EvaluationConfig(folder, folder.parent / "run", **options)).results
    lines = [json.loads(line) for line in (folder.parent / "run" / "predictions.jsonl").read_text().splitlines()]
    again = score(folder, lines)
    assert again["per_category"] == first["per_category"] and again["all"] == first["all"]


def test_points_stand_in_the_order_of_the_pairs_list(folder):
    for path in (folder / "PairAnnotation" / "test").iterdir():
        content = json.loads(path.read_text())
        for key in ("kps_ids", "src_kps", "trg_kps"):
            content[key] = content[key][::-1]
        path.write_text(json.dumps(content))
    assert score(folder, perfect(folder))["all"]["pck"]["0.01"]["per_point"] == 100


@pytest.mark.parametrize("points", [[[None, None]], [[float("nan"), 1.0]], [[float("inf"), 0.0]], [[-5000, 3]]])
def test_points_that_are_nowhere_are_wrong(folder, points):
    lines = perfect(folder)
    count = len(lines[0]["points"])
    lines[0]["points"] = points + lines[0]["points"][1:]
    results = score(folder, lines)
    category = lines[0]["pair"].split(":")[1]
    expected = 100 * (12 - 1 / count) / 12
    assert results["per_category"][category]["pck"]["0.1"]["per_image"] == pytest.approx(expected)
    assert results["points_not_finite"] == (0 if points == [[-5000, 3]] else 1)


def drop(lines):
    del lines[0]


def one_point_less(lines):
    lines[0]["points"] = lines[0]["points"][:-1]


def one_point_more(lines):
    lines[0]["points"] = lines[0]["points"] + [[1, 1]]


def twice(lines):
    lines.append(dict(lines[0]))


@pytest.mark.parametrize("change", [drop, one_point_less, one_point_more, twice])
def test_odd_files_are_errors_or_count_as_wrong(folder, change):
    lines = perfect(folder)
    name = lines[0]["pair"]
    change(lines)
    with pytest.raises(SemAlign3DError, match=f"{name}.*--on-bad-input skip"):
        score(folder, lines)
    results = score(folder, lines, on_bad_input="skip")
    entry = results["per_category"][name.split(":")[1]]
    assert [skip["pair"] for skip in results["skipped"]] == [name] and entry["skipped"] == 1
    assert entry["pck"]["0.1"]["per_image"] == pytest.approx(100 * 11 / 12)
    assert entry["pck_scored_only"]["0.1"]["per_image"] == 100


def test_predictions_nobody_asked_for_change_nothing(folder):
    lines = perfect(folder)
    results = score(folder, [*lines, {"pair": "000099-a-b:car", "points": [[1, 1]]}], categories=("car",))
    assert results["extra_predictions"] == 13 and results["all"]["pairs"] == 12 and results["all"]["pck"]["0.1"]["pair_weighted"] == 100


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '["a"]',
        '{"pair": "a"}',
        '{"pair": 3, "points": []}',
        '{"pair": "a", "points": [[1, 2, 3]]}',
        '{"pair": "a", "points": 5}',
    ],
)
def test_lines_of_another_format_name_file_and_line(tmp_path, text):
    (tmp_path / "p.jsonl").write_text('{"pair": "ok", "points": [[1, 2]]}\n\n' + text + "\n")
    with pytest.raises(FileFormatError, match=r"p\.jsonl:3: .*expected"):
        read_predictions(tmp_path / "p.jsonl")


def test_file_round_trip_is_exact(tmp_path):
    points = {"a:b": np.array([[0.1, np.nan], [1 / 3, 5]], np.float32), "c": np.zeros((0, 2))}
    write_predictions(tmp_path / "p.jsonl", points)
    found, problems = read_predictions(tmp_path / "p.jsonl")
    assert not problems and list(found) == ["a:b", "c"]
    assert np.array_equal(found["a:b"].astype(np.float32)[1], points["a:b"][1]) and np.isnan(found["a:b"][0, 1])
    assert found["c"].shape == (0, 2)
