"""Data sets with masks are scored by label-transfer accuracy and IoU, through the same command and cache."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from headless_browser import BROWSER, width_on_a_telephone
from PIL import Image

from semalign3d_core import matchers
from semalign3d_core.cli import eval_spair
from semalign3d_core.datasets import open_dataset
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.matchers import Matcher
from semalign3d_core.metrics.mask_transfer import intersection_over_union, label_transfer_accuracy, lattice, sampling_grid, warp_mask
from semalign3d_core.runtime.errors import InputError, SemAlign3DError

SIZES = {"image_0001": (70, 90), "image_0002": (80, 60), "image_0003": (50, 50)}  # height, width
SHIFT = np.array([6.0, -4.0])


@pytest.fixture
def folder(tmp_path):
    """Caltech-101's layout with two categories of three images; the object is the same square, elsewhere in every image."""
    root, rows = tmp_path / "caltech-101", [["source_image", "target_image", "class", "XA", "YA", "XB", "YB"]]
    for number, category in enumerate(("accordion", "Faces"), start=1):
        place = root / "101_ObjectCategories" / category
        place.mkdir(parents=True)
        squares = {}
        for index, (name, (height, width)) in enumerate(SIZES.items()):
            Image.fromarray(np.full((height, width, 3), 40 * index, np.uint8)).save(place / f"{name}.jpg")
            x, y = 10 + SHIFT[0] * index, 20 + SHIFT[1] * index
            squares[name] = [",".join(map(str, v)) for v in ([x, x + 25, x + 25, x], [y, y, y + 20, y + 20])]
        for a, b in (("image_0001", "image_0002"), ("image_0002", "image_0003"), ("image_0001", "image_0003")):
            path = "caltech-101/101_ObjectCategories/" + category
            rows.append([f"{path}/{a}.jpg", f"{path}/{b}.jpg", number, *squares[a], *squares[b]])
    with open(root / "test_pairs_caltech_with_category.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


class Shift(Matcher):
    """A matcher that carries points by what is right between the two images of a pair, or says nowhere."""

    name, nowhere = "shift", False

    def match(self, source, target, points):
        step = torch.tensor(SHIFT, dtype=torch.float32) * (_index(target) - _index(source))
        return matchers.Matches(points * torch.nan if self.nowhere else points + step, torch.ones(len(points)))


def _index(evidence):
    return list(SIZES).index(evidence.name.split("/")[1])


def configuration(folder, output, **changes):
    return EvaluationConfig(folder, folder.parent / output, **{"backbone": "compact", "method": "shift", **changes})


@pytest.fixture
def shift(monkeypatch):
    monkeypatch.setitem(matchers.MATCHERS, "shift", Shift)
    monkeypatch.setattr(Shift, "nowhere", False)


@pytest.mark.slow
def test_right_correspondences_transfer_the_whole_mask(folder, shift):
    results = evaluate(configuration(folder, "out")).results
    assert results["all"]["pairs"] == 6 and set(results["per_category"]) == {"accordion", "Faces"}
    for metric in ("lt_acc", "iou"):
        assert set(results["all"][metric]) == {"mean_of_categories", "pair_weighted"}
        assert all(value > 0.85 for value in results["all"][metric].values())  # but for the rounding of the outlines
        assert results["per_category"]["Faces"][metric] == results["per_category"]["accordion"][metric]


@pytest.mark.slow
def test_numbers_are_those_of_the_published_protocol(folder):
    evaluation = evaluate(configuration(folder, "out", method="window_soft_argmax", categories=("accordion",)))
    dataset, scores = open_dataset(folder), []
    predicted = {score.pair.name: score.points for score in evaluation.scores}
    for pair in dataset.pairs("test", categories=("accordion",)):
        height, width = pair.target.height, pair.target.width
        expected = [[x, y] for y in np.linspace(0, height - 1, 40) for x in np.linspace(0, width - 1, 40)]
        assert np.allclose(lattice(height, width, 40), expected, atol=1e-4)
        grid = sampling_grid(predicted[pair.name], (height, width), (pair.source.height, pair.source.width))
        warped = warp_mask(dataset.mask(pair.source), grid)
        truth = dataset.mask(pair.target)
        scores.append((label_transfer_accuracy(warped, truth), intersection_over_union(warped, truth)))
    entry = evaluation.results["per_category"]["accordion"]
    assert (entry["lt_acc"], entry["iou"]) == pytest.approx(tuple(np.mean(scores, axis=0)))


def test_a_grid_of_the_images_own_pixels_changes_nothing():
    mask = np.random.default_rng(0).random((30, 44)) > 0.5
    warped = warp_mask(mask, sampling_grid(lattice(30, 44, 40), (30, 44), (30, 44)))
    assert ((warped > 0.5).numpy() == mask).all()


@pytest.mark.slow
def test_points_that_are_nowhere_are_background(folder, shift, monkeypatch):
    monkeypatch.setattr(Shift, "nowhere", True)
    results = evaluate(configuration(folder, "out")).results
    assert results["all"]["iou"]["pair_weighted"] == 0 and 0.5 < results["all"]["lt_acc"]["pair_weighted"] < 0.95
    assert results["points_not_finite"] == 6 * 1600


@pytest.mark.slow
def test_command_files_report_and_predictions(folder, capsys):
    arguments = f"--dataset {folder} --backbone compact --method nearest_neighbour --gallery 2 --output"
    assert eval_spair.main([*arguments.split(), str(folder.parent / "out")]) == 0
    assert "lt_acc" in capsys.readouterr().out
    results = json.loads((folder.parent / "out" / "results.json").read_text())
    assert results["config"]["kind"] == "caltech101" and "lattice" in results["protocol"]["transfer"]
    rows = (folder.parent / "out" / "results.csv").read_text().splitlines()
    assert f"all,iou,pair_weighted,{results['all']['iou']['pair_weighted']},6,0" in rows
    html = (folder.parent / "out" / "report.html").read_text()
    assert BROWSER is None or width_on_a_telephone(html, folder.parent) <= 420
    assert "SFNet" in html and "0.670" in html and html.count("<figure>") == 4 and html.count("data:image/jpeg") == 8
    assert not re.search(r'(src|href)="(?!data:)', html)
    again = [*arguments.split(), str(folder.parent / "again"), "--predictions", str(folder.parent / "out" / "predictions.jsonl")]
    assert eval_spair.main(again) == 0
    assert json.loads((folder.parent / "again" / "results.json").read_text())["all"] == results["all"]


@pytest.mark.slow
def test_skipped_pairs_count_with_nothing(folder, shift):
    before = evaluate(configuration(folder, "before")).results
    (folder / "101_ObjectCategories" / "Faces" / "image_0003.jpg").write_bytes(b"broken")
    with pytest.raises(SemAlign3DError, match="image_0003"):
        evaluate(configuration(folder, "error"))
    after = evaluate(configuration(folder, "after", on_bad_input="skip")).results
    assert after["all"]["pairs"] == 6 and after["all"]["skipped"] == len(after["skipped"]) == 2
    for metric in ("lt_acc", "iou"):
        assert after["per_category"]["Faces"][metric] == pytest.approx(before["per_category"]["Faces"][metric] / 3, abs=0.05)
        assert all(after["all"][metric][name] < before["all"][metric][name] for name in before["all"][metric])


@pytest.mark.parametrize("changes", [{"kap": "spherical"}, {"method": "semalign3d", "ablation": True}])
def test_what_needs_keypoints_is_refused(folder, changes):
    with pytest.raises(InputError, match="published with masks"):
        evaluate(configuration(folder, "out", **changes))
