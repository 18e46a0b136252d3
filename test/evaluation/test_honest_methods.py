"""Methods that are told more have names of their own, and results of edited code are computed again."""

import importlib
import json
import sys
from dataclasses import replace

import pytest
import torch
from tiny_category import tiny_model
from tiny_dataset import CATEGORIES, make_dataset

from semalign3d_core import matchers
from semalign3d_core.category.storage import save_model
from semalign3d_core.evaluation.run import worker
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.matching import match_to_targets
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence
from semalign3d_core.runtime.errors import InputError

PLUGIN = """
from semalign3d_core.matchers import Matcher, Matches

class Farthest(Matcher):
    name = "plugin"

    def match(self, source, target, points):
        similarity = target.features.similarity(source.features.sample(points))
        found = similarity.argmax(1)
        cells = target.features.grid.cells
        place = __import__("torch").stack([found % cells, found // cells], 1).float()
        return Matches(target.features.grid.cell_to_pixel(place), similarity.amax(1))
"""


@pytest.fixture
def configuration(tmp_path):
    make_dataset(tmp_path / "data")
    for category in CATEGORIES:
        save_model(tiny_model(category), tmp_path / "models" / f"{category}.safetensors")
    return EvaluationConfig(
        tmp_path / "data", tmp_path / "out", backbone="precomputed:sim", depth="precomputed", masks="precomputed",
        models=tmp_path / "models", gallery=0, limit=2,
    )  # fmt: skip


@pytest.mark.slow
def test_edited_plugin_is_asked_again(configuration, tmp_path, monkeypatch):
    """A matcher of somebody else's, edited from argmax to argmin, must not give its old predictions."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "somebodys_matcher.py"
    found = []
    for text in (PLUGIN, PLUGIN.replace("argmax", "argmin"), PLUGIN.replace("argmax", "argmin") + "\n# a remark\n"):
        path.write_text(text)
        sys.modules.pop("somebodys_matcher", None)
        importlib.invalidate_caches()
        monkeypatch.setitem(matchers.MATCHERS, "plugin", importlib.import_module("somebodys_matcher").Farthest)
        results = evaluate(replace(configuration, method="plugin")).results
        found.append(((configuration.output / "predictions.jsonl").read_text(), results["cache"].get("matches_computed", 0)))
    assert found[0][0] != found[1][0] == found[2][0]
    assert found[0][1] > 0 and found[1][1] > 0 and found[2][1] == 0


def shifted_matches(matcher, source, queries, device):
    match = match_to_targets(matcher, source, queries, device)
    return lambda query, target: replace(match(query, target), points=match(query, target).points + 1)


def test_edited_code_of_the_evaluation_is_asked_again(configuration, monkeypatch):
    """What the evaluation itself does to matches is part of the cache's keys, too."""
    evaluate(configuration)
    first = (configuration.output / "predictions.jsonl").read_text()
    monkeypatch.setattr(worker, "match_to_targets", shifted_matches)
    results = evaluate(configuration).results
    assert (configuration.output / "predictions.jsonl").read_text() != first
    assert results["cache"]["matches_computed"] > 0 and results["cache"].get("features_computed", 0) == 0


@pytest.mark.slow
def test_the_default_is_told_nothing_and_says_so(configuration):
    results = {}
    for method in ("semalign3d", "semalign3d_keypoints", "nearest_neighbour", "nearest_neighbour_keypoints"):
        cache = configuration.output.parent / "cache"
        evaluate(replace(configuration, method=method, output=configuration.output / method, cache=cache))
        results[method] = json.loads((configuration.output / method / "results.json").read_text())
    told = {method: found["protocol"]["queries"].startswith("the method is told") for method, found in results.items()}
    assert told == {method: method.endswith("_keypoints") for method in told}
    transfers = [results[method]["config"]["method_settings"]["transfer"] for method in ("semalign3d", "semalign3d_keypoints")]
    assert (transfers[0]["keypoint_preference"], transfers[0]["distinct"]) == (0, False)
    assert transfers[1]["keypoint_preference"] == 20 and transfers[1]["distinct"]
    assert results["semalign3d_keypoints"]["cache"]["prepared_hits"] > 0  # alignments are shared, transfers are not
    assert "prepared_computed" not in results["semalign3d_keypoints"]["cache"]


@pytest.mark.parametrize(
    ("method", "transfer", "right"), [("semalign3d", "keypoints", "semalign3d_keypoints"), ("semalign3d_keypoints", "fast", "semalign3d")]
)
def test_a_transfer_runs_under_its_own_name_only(configuration, method, transfer, right):
    with pytest.raises(InputError, match=f"with it the method is {right}$"):
        evaluate(replace(configuration, method=method, transfer=transfer))


def test_candidates_are_the_categorys_keypoints_each_for_one_query():
    generator = torch.Generator().manual_seed(0)
    model = tiny_model("car")
    features = model.keypoint_features[model.present]
    cells, count = 6, len(features)
    grid = SquareGrid(60, 60, cells)
    places = torch.randperm(cells * cells, generator=generator)[:count]
    values = 0.05 * torch.randn(features.shape[1], cells * cells, generator=generator)
    values[:, places] += features.T
    values = torch.nn.functional.normalize(values, dim=0).unflatten(1, (cells, cells))
    image = ImageEvidence(FeatureMap(values, grid), PinholeCamera.centred(1.5, 60, 60))
    truth = grid.cell_to_pixel(torch.stack([places % cells, places // cells], 1).float())
    matcher = MATCHERS["nearest_neighbour_keypoints"](model=model)
    assert torch.allclose(matcher.match(image, image, truth).points, truth)
    same = matcher.match(image, image, truth[:1].repeat(count, 1)).points  # one place asked for as often as there are keypoints
    assert len(same.unique(dim=0)) == count
    more = matcher.match(image, image, truth[:1].repeat(count + 2, 1)).points
    assert len(more) == count + 2 and torch.isfinite(more).all()
