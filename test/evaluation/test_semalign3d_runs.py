"""SemAlign3D in an evaluation: alignments are cached small and exactly, studies end up in the report."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from tiny_dataset import CATEGORIES, CHANNELS, KEYPOINTS, make_dataset

from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.category.storage import save_model
from semalign3d_core.evaluation import ablation
from semalign3d_core.evaluation.ablation import TERMS, Row, ablated, run_ablation, sections
from semalign3d_core.evaluation.config import EvaluationConfig
from semalign3d_core.evaluation.report import write_report
from semalign3d_core.evaluation.runner import evaluate
from semalign3d_core.geometry import shape_diameter, uniform_rotations


def tiny_model(category, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    shape = torch.randn(KEYPOINTS, 3, generator=generator)
    shape = (shape - shape.mean(0)) / shape_diameter(shape)
    weights = torch.softmax(3 * torch.randn(20, KEYPOINTS, generator=generator), -1)
    edges, quads = (torch.tensor(list(itertools.combinations(range(KEYPOINTS), n))) for n in (2, 4))
    betas = BetaTable(
        edges, edges.roll(1, 0), torch.full((len(edges), 4), 2.0), quads[:, :3], quads[:, 3], torch.full((len(quads), 6), 2.0)
    )
    return CategoryModel(
        category, tuple(f"part{k}" for k in range(KEYPOINTS)), (1, 0, 2, 3, 4), "sim", torch.ones(KEYPOINTS, dtype=torch.bool), shape,
        unit(KEYPOINTS, CHANNELS), torch.full((KEYPOINTS,), 0.6), torch.full((KEYPOINTS,), 0.2),
        unit(20, CHANNELS), torch.full((20,), 0.6), torch.full((20,), 0.2), weights, betas,
        unit(3, KEYPOINTS * 3).reshape(3, KEYPOINTS, 3), torch.full((3,), 1e-3), uniform_rotations(12), torch.tensor([1.5, 0.2]),
        torch.full((2,), torch.nan),
    )  # fmt: skip


@pytest.fixture
def configuration(tmp_path):
    make_dataset(tmp_path / "data")
    for category in CATEGORIES:
        save_model(tiny_model(category), tmp_path / "models" / f"{category}.safetensors")
    return EvaluationConfig(
        tmp_path / "data", tmp_path / "out", backbone="precomputed:sim", depth="precomputed", masks="precomputed",
        models=tmp_path / "models", method="semalign3d", gallery=0, limit=4,
    )  # fmt: skip


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


def test_another_model_or_preset_is_another_alignment(configuration, tmp_path):
    evaluate(configuration)
    save_model(tiny_model("car", seed=5), configuration.models / "car.safetensors")
    changed = evaluate(replace(configuration, output=tmp_path / "b", cache=configuration.cache_folder)).results["cache"]
    assert changed["prepared_computed"] > 0 and changed["prepared_hits"] > 0
    (tmp_path / "mine.yaml").write_text("solver: gauss_newton\n")
    other = replace(configuration, output=tmp_path / "c", cache=configuration.cache_folder, preset=str(tmp_path / "mine.yaml"))
    assert evaluate(other).results["cache"]["prepared_computed"] > 0


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
    assert ablated(config, TERMS["dense reconstruction (Eq. 7, 8)"]).gauss_newton.sparse == config.gauss_newton.sparse


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


def test_failed_rows_say_why():
    results = {"per_category": {"car": {"pck": {"0.1": {"per_image": 50.0}}}}, "all": {"pck": {"0.1": {"mean_of_categories": 50.0}}}}
    html = dict(sections([Row("terms", "original", results), Row("training images", "3 training images", None, "too <few>")]))
    assert "too &lt;few&gt;" in html["Number of training images"]
