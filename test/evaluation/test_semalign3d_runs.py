"""SemAlign3D in an evaluation: alignments are cached small and exactly, studies end up in the report."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_category import tiny_model
from tiny_dataset import CATEGORIES, CELLS, KEYPOINTS, make_dataset

from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.category.storage import save_model
from semalign3d_core.evaluation.report.report import write_report
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.evaluation.run.worker import Worker
from semalign3d_core.evaluation.studies import ablation
from semalign3d_core.evaluation.studies.ablation import TERMS, Row, ablated, run_ablation, sections
from semalign3d_core.matchers.semalign3d import SemAlign3DMatcher
from semalign3d_core.metrics.kap import KapAccumulator, KapPair


@pytest.fixture
def configuration(tmp_path):
    make_dataset(tmp_path / "data")
    for category in CATEGORIES:
        save_model(tiny_model(category), tmp_path / "models" / f"{category}.safetensors")
    return EvaluationConfig(
        tmp_path / "data", tmp_path / "out", backbone="precomputed:sim", depth="precomputed", masks="precomputed",
        models=tmp_path / "models", method="semalign3d", gallery=0, limit=4,
    )  # fmt: skip


@pytest.mark.slow
def test_alignments_are_cached_once_per_image_small_and_exactly(configuration, tmp_path):
    first = evaluate(configuration).results
    files = list((configuration.cache_folder / "prepared").rglob("*.safetensors"))
    assert first["cache"]["prepared_computed"] == len(files) <= 8
    assert all(path.stat().st_size < 40_000 for path in files)
    for path in (configuration.cache_folder / "matches").rglob("*.safetensors"):
        path.unlink()
    again = evaluate(replace(configuration, output=tmp_path / "again", cache=configuration.cache_folder)).results
    assert "prepared_computed" not in again["cache"] and again["cache"]["matches_computed"] > 0
    assert again["per_category"] == first["per_category"] and again["hashes"] == first["hashes"]
    assert (tmp_path / "again" / "predictions.jsonl").read_bytes() == (configuration.output / "predictions.jsonl").read_bytes()
    assert set(first["hashes"]["models"]) == set(CATEGORIES)


@pytest.mark.slow
def test_another_model_or_preset_is_another_alignment(configuration, tmp_path):
    evaluate(configuration)
    save_model(tiny_model("car", seed=5), configuration.models / "car.safetensors")
    changed = evaluate(replace(configuration, output=tmp_path / "b", cache=configuration.cache_folder)).results["cache"]
    assert changed["prepared_computed"] > 0 and changed["prepared_hits"] > 0
    (tmp_path / "mine.yaml").write_text("energy: {sparse: 0.5}\n")
    other = replace(configuration, output=tmp_path / "c", cache=configuration.cache_folder, preset=str(tmp_path / "mine.yaml"))
    assert evaluate(other).results["cache"]["prepared_computed"] > 0


@pytest.mark.slow
def test_processes_give_the_same_alignments(configuration, tmp_path):
    one = evaluate(configuration)
    two = evaluate(replace(configuration, output=tmp_path / "two", workers=2))
    assert one.results["all"] == two.results["all"]
    assert (tmp_path / "two" / "predictions.jsonl").read_bytes() == (configuration.output / "predictions.jsonl").read_bytes()


def test_every_term_can_be_left_out():
    config = AlignConfig()
    for term, changes in TERMS.items():
        changed = ablated(config, changes)
        assert changed != config, term
        for path, value in changes.items():
            found = changed
            for name in path.split("."):
                found = getattr(found, name)
            assert found == value
    assert ablated(config, TERMS["dense reconstruction (Eq. 7, 8)"]).energy.sparse == config.energy.sparse


@pytest.mark.slow
def test_studies_end_up_as_table_and_plot(configuration, monkeypatch):
    built = []

    def build(config, category, folder, count):
        built.append((config.backbone, category, count))
        save_model(tiny_model(category, seed=count), folder / f"{category}.safetensors")
        return min(count or 6, 6)

    monkeypatch.setattr(ablation, "build_models", build)
    config = replace(configuration, limit=2, ablation=True, other_backbone="precomputed:sim", training_images=(3, 5, 50))
    evaluation = evaluate(config)
    html = write_report(evaluation, run_ablation(evaluation)).read_text()
    assert len(built) == 8 and ("precomputed:sim", "car", 5) in built
    assert ">Ablation</h2>" in html and ">Number of training images</h2>" in html and "without sparse likelihood (Eq. 9)" in html
    assert "only 6 training images" in html and html.count("<rect") == 7
    rows = json.loads((config.output / "ablation.json").read_text())
    assert [row["group"] for row in rows] == ["terms"] * 6 + ["backbone"] + ["training images"] * 3
    assert all(row["results"] is None or set(row["results"]["per_category"]) == set(CATEGORIES) for row in rows)
    assert (config.output / "ablation.csv").read_text().startswith("row,category,alpha")


@pytest.mark.slow
def test_counts_beyond_the_training_images_are_named_once(configuration, monkeypatch):
    def build(config, category, folder, count):
        save_model(tiny_model(category, seed=min(count, 6)), folder / f"{category}.safetensors")
        return min(count, 6)

    monkeypatch.setattr(ablation, "build_models", build)
    config = replace(configuration, limit=1, training_images=(3, 50, 100))
    run_ablation(evaluate(config))
    rows = json.loads((config.output / "ablation.json").read_text())
    assert [(row["name"], row["images"]) for row in rows[1:]] == [
        ("3 training images", 3),
        ("50 training images asked for: only 6 training images there", 6),
    ]
    assert all(row["results"] for row in rows)


@pytest.mark.slow
def test_leaving_out_a_term_leaves_the_transfer_alone(configuration, monkeypatch):
    """The transfer that goes with a preset stays when the preset is replaced by an edited copy."""
    seen = []
    monkeypatch.setattr(ablation, "evaluate", lambda config: seen.append(config) or evaluate(replace(config, limit=1)))
    monkeypatch.setattr(ablation, "TERMS", {"sparse likelihood (Eq. 9)": {"energy.sparse": 0.0}})
    for method, preset, transfer in (("semalign3d", "", "fast"), ("semalign3d_keypoints", "fast", "keypoints")):
        config = replace(configuration, method=method, preset=preset, ablation=True, limit=1)
        run_ablation(evaluate(config))
        settings = json.loads((seen[-1].output / "results.json").read_text())["config"]["method_settings"]
        original = json.loads((config.output / "results.json").read_text())["config"]["method_settings"]
        assert seen[-1].transfer == transfer and settings["transfer"] == original["transfer"]
        assert settings["alignment"]["energy"]["sparse"] == 0 != original["alignment"]["energy"]["sparse"]
    assert SemAlign3DMatcher.transfer_preset("reference") == "reference"


@pytest.mark.slow
def test_points_are_lifted_once_per_source_with_the_same_result(configuration, monkeypatch):
    lifted = []
    lift = SemAlign3DMatcher.lift
    monkeypatch.setattr(SemAlign3DMatcher, "lift", lambda self, source, points: lifted.append(len(points)) or lift(self, source, points))
    evaluation = evaluate(replace(configuration, limit=None))
    assert len(lifted) == 8 and max(lifted) <= KEYPOINTS
    worker = Worker(evaluation.config)
    for score in evaluation.scores[::5]:
        images = [worker.images.image(score.pair.category, record).seen for record in (score.pair.record.source, score.pair.record.target)]
        direct = worker.matcher(score.pair.category)[0].match(*images, torch.from_numpy(score.pair.source_points)).points
        assert np.allclose(score.points, direct, atol=1e-2)


@pytest.mark.slow
def test_kap_judges_the_methods_own_likelihood(configuration):
    evaluation = evaluate(replace(configuration, kap="visible_only", limit=None))
    worker, accumulator = Worker(evaluation.config), KapAccumulator(evaluation.config.alpha)
    for score in evaluation.scores:
        source, target = score.pair.record.source, score.pair.record.target
        matcher = worker.matcher(score.pair.category)[0]
        seen = [worker.images.image(score.pair.category, record).seen for record in (source, target)]
        shown = [np.isfinite(record.keypoints).all(1) for record in (source, target)]
        maps = matcher.score_maps(matcher.lift(seen[0], torch.from_numpy(source.keypoints[shown[0]])), seen[1])
        assert maps.min() >= 0 and maps.max() <= 1 and maps.shape == (shown[0].sum(), CELLS**2)
        scale = 840 / max(target.width, target.height)
        visible = np.ones(len(maps), bool), shown[1][shown[0]]
        pair = KapPair(maps.numpy(), target.keypoints[shown[0]] * scale, *visible, score.pair.unit * scale, 840)
        accumulator.add(score.pair.category, pair)
    for alpha, values in accumulator.summary()["all"]["kap"].items():
        assert evaluation.results["all"]["kap"][alpha] == pytest.approx(values, abs=1e-3)
    assert evaluation.results["protocol"]["kap"]["scores"].startswith("the method's own likelihood")


def test_failed_rows_say_why():
    results = {"per_category": {"car": {"pck": {"0.1": {"per_image": 50.0}}}}, "all": {"pck": {"0.1": {"mean_of_categories": 50.0}}}}
    html = dict(sections([Row("terms", "original", results), Row("training images", "3 training images", None, "too <few>")]))
    assert "too &lt;few&gt;" in html["Number of training images"]
