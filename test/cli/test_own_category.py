"""An own category in three commands and no option but names: imported pictures, a model, PCK with its interval."""

import json

import numpy as np
import pytest
from category_folder import IMAGES, NAMES, SIDE, write_data_set
from PIL import Image

from semalign3d_core.cli import eval_spair
from semalign3d_core.cli.main import main


@pytest.mark.slow
def test_from_pictures_to_an_interval_in_three_commands(tmp_path, capsys):
    """A shortened ``bench/own_category.py``: small pictures of noise, so that only the way is tested, not the numbers."""
    made = write_data_set(tmp_path / "made") / "ImageAnnotation" / "thing"
    photos, table = tmp_path / "photos", {}
    photos.mkdir()
    for number, path in enumerate(sorted(made.glob("*.json"))):
        noise = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(photos / f"{path.stem}.jpg")
        kps = json.loads(path.read_text())["kps"]
        table[f"{path.stem}.jpg"] = {NAMES[int(k)]: point for k, point in kps.items()}
    (tmp_path / "points.json").write_text(json.dumps(table))
    data, models, out = (str(tmp_path / name) for name in ("data", "models", "out"))
    assert main(["import", str(tmp_path / "points.json"), "--images", str(photos), "--output", data, "--category", "thing"]) == 0
    assert main(["build", "--dataset", data, "--category", "thing", "--output", models]) == 0
    assert "look at " in capsys.readouterr().out
    assert eval_spair.main(["--dataset", data, "--models", models, "--method", "semalign3d", "--output", out]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    score, (low, high) = (part["pck"]["0.1"]["per_point"] for part in (results["all"], results["all"]["intervals"]))
    assert low <= score <= high
    assert results["config"]["backbone"].startswith("compact") and results["all"]["pairs"] > 0
    report = json.loads((tmp_path / "models" / "thing.report.json").read_text())
    assert len(report["images"]) + len(report["skipped_images"]) == IMAGES - round(0.3 * IMAGES)
