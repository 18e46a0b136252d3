"""``eval_spair --build``: from a data set alone to a measured method in one command."""

import json

import pytest
from published_format import write_ap10k_download, write_spair
from tiny_category import tiny_model
from tiny_dataset import CATEGORIES, make_dataset
from tiny_spair import write_tiny_spair

from semalign3d_core.category.storage import save_model
from semalign3d_core.cli import eval_spair
from semalign3d_core.evaluation import reproduction
from semalign3d_core.evaluation.run.config import EvaluationConfig


def test_missing_models_are_built_and_used(tmp_path, monkeypatch):
    folder, built = make_dataset(tmp_path / "data"), []

    def build(options, category):
        built.append((category, options.backbone, options.depth, options.masks, options.split))
        save_model(tiny_model(category), options.output / f"{category}.safetensors")

    monkeypatch.setattr(reproduction, "build_one", build)
    save_model(tiny_model("car"), tmp_path / "models" / "car.safetensors")
    command = f"--dataset {folder} --backbone precomputed:sim --method nearest_neighbour_keypoints --gallery 0"
    command += f" --build --models {tmp_path / 'models'}"
    assert eval_spair.main([*command.split(), "--output", str(tmp_path / "out")]) == 0
    assert built == [("chair", "precomputed:sim", "auto", "auto", "trn")]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["hashes"]["models"]) == set(CATEGORIES) == set(results["per_category"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "needed"), [("test", ["cat", "fox", "king cheetah"]), ("val_cross_species", ["Felidae"]), ("test_cross_family", ["all"])]
)
def test_only_models_that_a_split_needs_are_built(tmp_path, monkeypatch, split, needed):
    """AP-10K has models of species, of families and of all animals."""
    built = []
    monkeypatch.setattr(reproduction, "build_one", lambda options, category: built.append(category))
    reproduction.with_models(EvaluationConfig(write_ap10k_download(tmp_path / "ap-10k"), tmp_path / "out", split=split))
    assert built == needed


def test_the_tiny_spair_from_pictures_to_intervals_in_one_command(tmp_path):
    """Embedded backbone, features computed, two pairs of which one has no common keypoints."""
    root = write_spair(tmp_path / "SPair-71k")
    assert eval_spair.main(["--dataset", str(root), "--gallery", "1", "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["config"]["kind"] == "spair" and results["config"]["backbone"] == "compact"
    assert results["all"]["pairs"] == 1 and "per_point" in results["all"]["intervals"]["pck"]["0.1"]  # null: two images are too few
    assert results["latency"]["image"]["count"] == 2


@pytest.mark.slow
def test_semalign3d_from_pictures_to_intervals_in_one_command(tmp_path, capsys):
    """SPair-71k's layout without models, features and depth: the model is built, then it answers the pairs of the test split."""
    root, out = write_tiny_spair(tmp_path, ["chair"]), tmp_path / "out"
    command = ["--dataset", str(root), "--method", "semalign3d", "--build", "--categories", "chair", "--gallery", "1", "--output", str(out)]
    assert eval_spair.main(command) == 0
    assert "chair: building its model" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    score, (low, high) = (part["pck"]["0.1"]["per_point"] for part in (results["all"], results["all"]["intervals"]))
    assert results["config"]["kind"] == "spair" and results["config"]["backbone"] == "compact"
    assert low <= score <= high and results["all"]["pairs"] == 12 and results["skipped"] == []
    assert len(json.loads((out / "models" / "chair.report.json").read_text())["images"]) == 10
    assert (out / "report.html").is_file() and "chair" in results["hashes"]["models"]
