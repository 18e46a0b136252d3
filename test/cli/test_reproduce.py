"""The paper's Table 1 by one command, end to end: a tiny SPair-71k from its archive, tiny random networks, resumed."""

import importlib.util
import json
import tarfile

import pytest
from headless_browser import BROWSER, width_on_a_telephone
from tiny_models import tiny_depth, tiny_transformer
from tiny_spair import write_tiny_spair

from semalign3d_core.cli.main import main
from semalign3d_core.datasets import open_dataset, published
from semalign3d_core.datasets.published import Archive, PublishedData

pytestmark = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed (extra 'hf')")
CATEGORIES = ("bottle", "chair")


@pytest.mark.slow
def test_table_1_from_nothing_and_resumed(tmp_path, monkeypatch, capsys):
    archive, made = tmp_path / "SPair-71k.tar.gz", write_tiny_spair(tmp_path / "source", CATEGORIES)
    with tarfile.open(archive, "w:gz") as file:
        file.add(made, "SPair-71k")
    counts = {"JPEGImages/*/*.jpg": 28, "PairAnnotation/test/*.json": 24}
    data = PublishedData("tiny", "SPair-71k", (Archive("https://nowhere/SPair-71k.tar.gz"),), (1, 1), "none", counts)
    monkeypatch.setitem(published.PUBLISHED, "spair71k", data)
    tiny_transformer().save_pretrained(tmp_path / "vit")
    tiny_depth().save_pretrained(tmp_path / "depth")
    (tmp_path / "fast.yaml").write_text("calibrate: false\nem: {rounds: 4, hidden_rounds: 2}\ndense: {points: 30}\n")
    output = tmp_path / "out"
    command = [
        "reproduce", "spair71k", "--quick", "--source", str(archive), "--output", str(output), "--preset", str(tmp_path / "fast.yaml"),
        "--backbone", f"dinov2:{tmp_path / 'vit'},side=168", "--depth", f"depth_anything_v2:{tmp_path / 'depth'}",
    ]  # fmt: skip
    assert main(["reproduce", "--output", str(tmp_path / "none")]) == 2
    assert "add --download, --source FILE" in capsys.readouterr().err
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "one look takes" in text and " GB in " in text and "(published)" in text
    assert open_dataset(output / "data" / "SPair-71k").categories() == list(CATEGORIES)
    first = json.loads((output / "table1.json").read_text())
    rows = {row["method"]: row for row in first["table"] if not row["published"]}
    assert set(rows) == {"nearest_neighbour", "semalign3d", "nearest_neighbour_keypoints", "semalign3d_keypoints"}
    for row in rows.values():
        assert set(row["per_category"]) == set(CATEGORIES) and row["interval"][0] <= row["all"] <= row["interval"][1]
    assert any(row["method"] == "SemAlign3D" for row in first["table"] if row["published"])
    page = (output / "table1.html").read_text()
    assert "not comparable" in page and (BROWSER is None or width_on_a_telephone(page, tmp_path) <= 420)
    results = json.loads((output / "semalign3d" / "results.json").read_text())
    assert results["cache"].get("features_hits", 0) > 0  # what builds or other methods had computed
    models = {path: path.stat().st_mtime_ns for path in (output / "models").glob("*.safetensors")}
    assert main(command) == 0  # everything is there
    assert {path: path.stat().st_mtime_ns for path in (output / "models").glob("*.safetensors")} == models
    assert json.loads((output / "table1.json").read_text())["table"] == first["table"]
