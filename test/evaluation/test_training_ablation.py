"""The ablation of the post-processor's training by one command, and the geometry-aware subset beside the standard set."""

import csv
import json

import pytest
from headless_browser import BROWSER, width_on_a_telephone
from safetensors.torch import load_file, save_file
from tiny_dataset import make_dataset

from semalign3d_core.cli.eval_spair import main
from semalign3d_core.evaluation.studies.training_ablation import ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = make_dataset(tmp_path_factory.mktemp("data"), images=3, noise=0.5)
    for path in (root / "Features").rglob("img?.safetensors"):
        save_file({"features": load_file(path)["features"].flip(-1).contiguous()}, path.with_suffix(".flip.safetensors"))
    return root


@pytest.mark.slow
def test_every_part_is_trained_and_evaluated(folder, tmp_path, capsys):
    (tmp_path / "quick.yaml").write_text("steps: 2\nwidth: 128\nschedule: constant\n")
    arguments = ["--dataset", str(folder), "--backbone", "precomputed:sim", "--output", str(tmp_path / "out"), "--training-ablation"]
    arguments += ["--training", str(tmp_path / "quick.yaml"), "--pretraining", str(folder / "..") + "/" + folder.name, "--gallery", "0"]
    assert main(arguments) == 0
    rows = [entry["name"] for entry in json.loads((tmp_path / "out" / "training_ablation.json").read_text())]
    assert rows == ["features without training", *ROWS, "+ AP-10K pre-training"]
    table = list(csv.DictReader((tmp_path / "out" / "training_ablation.csv").read_text().splitlines()))
    assert len(table) == 7 * 3 and all(0 <= float(line["standard"]) <= 100 for line in table)
    trained = sorted(p.parent.name for p in (tmp_path / "out" / "training_ablation").glob("*/network.safetensors"))
    assert trained == [
        "dense",
        "dense_variants",
        "dense_variants_dropout",
        "dense_variants_dropout_pretrained",
        "dense_variants_dropout_pretraining",
        "sparse",
    ]
    settings = (tmp_path / "out/training_ablation/sparse/losses.jsonl").read_text()
    assert '"sparse"' in settings and '"dense"' not in settings
    report = (tmp_path / "out" / "report.html").read_text()
    assert BROWSER is None or width_on_a_telephone(report, tmp_path) <= 420
    assert "Ablation of the training" in report and "+ pose variants" in report and "geometry-aware subset @0.1" in report
    shown = capsys.readouterr().out
    assert "standard / geometry-aware" in shown and "Geometry-aware subset: PCK" in shown


@pytest.mark.slow
def test_wrong_settings_are_named(folder, tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text("stepps: 2\n")
    arguments = ["--dataset", str(folder), "--backbone", "precomputed:sim", "--output", str(tmp_path / "out"), "--training-ablation"]
    assert main([*arguments, "--training", str(tmp_path / "wrong.yaml")]) == 2
    assert "unknown key 'stepps'" in capsys.readouterr().err
    assert main([*arguments, "--training", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
