"""The method template_pose in an evaluation: template pictures per category, the source mirrored where they say so."""

import json
import shutil

import pytest
import torch
from tiny_dataset import make_dataset

from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.methods import templates_of
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.matchers import pose_prediction
from semalign3d_core.matchers.pose_prediction import VIEWS
from semalign3d_core.runtime.errors import InputError, MissingFileError


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data", images=3)


@pytest.fixture
def templates(tmp_path, folder):
    """One set: the first image of the category is its left side, the second its right side."""
    place = tmp_path / "templates" / "chair" / "one"
    place.mkdir(parents=True)
    for view, number in zip(VIEWS, (2, 2, 0, 1), strict=True):
        shutil.copy(folder / "JPEGImages" / "chair" / f"img{number}.jpg", place / f"{view}.jpg")
    return tmp_path / "templates"


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """The same on a coarser grid, which is faster."""
    monkeypatch.setattr(pose_prediction.TemplatePoseMatcher.__init__, "__defaults__", ("window_soft_argmax", 5, 40))


def run(folder, output, **options):
    return evaluate(EvaluationConfig(folder, output, method="template_pose", categories=("chair",), gallery=0, **options)).results


def predicted(output):
    """{(source, target): points} of the predictions."""
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    return {tuple(line["pair"].partition("-")[2].partition(":")[0].split("-")): line["points"] for line in lines}


@pytest.mark.slow
def test_only_pairs_of_opposite_sides_are_matched_through_the_mirror(folder, templates, tmp_path, monkeypatch):
    results = run(folder, tmp_path / "mirrored", templates=templates)
    assert results["config"]["method_settings"]["template_sets"] == {"chair": ["one"]} and results["all"]["skipped"] == 0
    # the same where the templates see all images from one side: nothing is mirrored
    monkeypatch.setattr(pose_prediction, "vote_pose", lambda distances: torch.tensor([[0], [2], [0]]))
    run(folder, tmp_path / "plain", templates=templates, cache=tmp_path / "other")
    mirrored, plain = predicted(tmp_path / "mirrored"), predicted(tmp_path / "plain")
    assert set(mirrored) == set(plain) and len(mirrored) == 6
    moved = {pair for pair in plain if mirrored[pair] != plain[pair]}
    # the third image shows one of both sides: it is mirrored against one of the others
    assert {("img0", "img1"), ("img1", "img0")} < moved and len(moved) == 4
    assert all((b, a) in moved for a, b in moved)


def test_missing_templates_are_said_before_any_work(folder, templates, tmp_path):
    with pytest.raises(InputError, match="no templates of 'dog': choose one of aeroplane, car, chair"):
        templates_of(EvaluationConfig(folder), "dog")
    assert list(templates_of(EvaluationConfig(folder), "chair")) == ["set1", "set2", "set3"]  # the shipped ones
    (templates / "chair" / "one" / "left.jpg").unlink()
    with pytest.raises(MissingFileError, match="one has no image called left"):
        run(folder, tmp_path / "out", templates=templates)
    with pytest.raises(MissingFileError, match="templates/nothing/chair does not exist"):
        run(folder, tmp_path / "out", templates=templates / "nothing")
