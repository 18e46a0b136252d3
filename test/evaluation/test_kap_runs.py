"""KAP in an evaluation: the numbers of ``metrics.kap``, whatever the number of workers; skips never raise it, PCK never sees it."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_dataset import CELLS, edit_json, make_dataset

from semalign3d_core.cli import eval_spair
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.evaluation.keypoints.results import terminal_table
from semalign3d_core.evaluation.report.report import write_report
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.metrics.kap import KAP_VARIANTS, KapAccumulator, KapPair
from semalign3d_core.runtime.errors import InputError

ALPHA = (0.05, 0.1, 0.2)


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data", noise=0.6)


def configuration(folder, output, **changes):
    options = {"backbone": "precomputed:sim", "gallery": 0, "alpha": ALPHA, "kap": "visible_only", **changes}
    return EvaluationConfig(folder, output, **options)


def features(folder, record):
    values = load_file(folder / "Features" / "sim" / record.category / f"{record.name}.safetensors")["features"].float()
    return torch.nn.functional.normalize(values, dim=0).flatten(1).numpy()


def published_pair(folder, pair):
    """The :class:`KapPair` of all keypoints on the published canvas of 840 pixels; the images stand in its upper left corner."""
    seen = [np.isfinite(side.keypoints).all(1) for side in (pair.source, pair.target)]
    sides = [max(side.width, side.height) for side in (pair.source, pair.target)]
    cells = np.floor(np.nan_to_num(pair.source.keypoints + 0.5) / sides[0] * CELLS).astype(int)
    cells, which = np.unique(cells[:, 1] * CELLS + cells[:, 0], return_inverse=True)  # keypoints of one cell have the same map
    similarity = (features(folder, pair.source)[:, cells].T @ features(folder, pair.target))[which]
    scale = 840 / sides[1]
    unit = max(pair.target.box[2] - pair.target.box[0], pair.target.box[3] - pair.target.box[1])
    return KapPair(similarity, pair.target.keypoints * scale, *seen, unit * scale, 840)


@pytest.mark.slow
@pytest.mark.parametrize("variant", KAP_VARIANTS)
def test_value_is_that_of_a_direct_computation(folder, tmp_path, variant):
    results = evaluate(configuration(folder, tmp_path / "out", kap=variant)).results
    accumulator = KapAccumulator(ALPHA, variant)
    for pair in FolderDataset(folder).pairs("test"):
        accumulator.add(pair.category, published_pair(folder, pair))
    expected = accumulator.summary()
    places = {**expected["per_category"], "all": expected["all"]}
    for name, place in places.items():
        entry = {**results["per_category"], "all": results["all"]}[name]
        for alpha, values in place["kap"].items():
            assert entry["kap"][alpha] == pytest.approx(values, abs=1e-4)
            assert all(0 < value < 100 for value in values.values())
        assert entry["kap_counts"] == {"pairs": place["pairs"], "points": place["points"], "without_keypoints": 0}
    assert results["all"]["kap"].keys() == results["all"]["pck"].keys() and results["protocol"]["kap"]["variant"] == variant
    assert results["all"]["kap_counts"]["points"] > results["all"]["points"]  # those that only the source shows count too


@pytest.mark.slow
def test_workers_agree_exactly(folder, tmp_path):
    one, two = (evaluate(configuration(folder, tmp_path / f"{n}", workers=n)).results for n in (1, 2))
    assert one["all"] == two["all"] and one["per_category"] == two["per_category"] and one["all"]["kap"]["0.1"]["per_image_pair_weighted"]


def test_files_table_and_report_name_the_variant(folder, tmp_path):
    evaluation = evaluate(configuration(folder, tmp_path / "out"))
    kap = json.loads((tmp_path / "out" / "results.json").read_text())["per_category"]["car"]["kap"]["0.1"]
    assert set(kap) == {"pooled", "per_image"}
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert any(row.startswith(f"car,kap_visible_only,0.1,pooled,{kap['pooled']},") and row.endswith(",12,0") for row in rows)
    assert any(row.startswith("all,kap_visible_only,0.1,per_image_mean_of_categories,") for row in rows)
    table = terminal_table(evaluation.results)
    assert "KAP (visible_only)" in table and f"{kap['per_image']:.2f}/{kap['pooled']:7.2f}" in table
    html = write_report(evaluation).read_text()
    assert ">Keypoint average precision</h2>" in html and "visible_only" in html
    assert re.search(rf"<td>{kap['per_image']:.1f}</td><td>[^<]* to [^<]*</td><td>{kap['pooled']:.1f}</td>", html)


@pytest.mark.slow
def test_nothing_of_it_by_default(folder, tmp_path):
    plain = evaluate(configuration(folder, tmp_path / "plain", kap="none"))
    with_kap = evaluate(configuration(folder, tmp_path / "kap")).results
    assert "kap" not in plain.results["all"] and "kap" not in (tmp_path / "plain" / "results.csv").read_text()
    assert "KAP" not in terminal_table(plain.results) and "Keypoint average precision" not in write_report(plain).read_text()
    assert plain.results["all"].items() <= with_kap["all"].items() and plain.results["breakdowns"] == with_kap["breakdowns"]


def hide(folder, name, labels):
    edit_json(folder / "ImageAnnotation" / "car" / f"{name}.json", lambda content: content["kps"].update(dict.fromkeys(labels)))


def test_pairs_without_common_keypoints_count_with_their_negatives(folder, tmp_path):
    hide(folder, "img0", "01234")
    results = evaluate(configuration(folder, tmp_path / "out", categories=("car",))).results
    accumulator = KapAccumulator(ALPHA)
    for pair in FolderDataset(folder).pairs("test", categories=("car",)):
        accumulator.add("car", published_pair(folder, pair))
    entry, expected = results["per_category"]["car"], accumulator.category_summary("car")
    assert entry["kap"]["0.1"] == pytest.approx(expected["kap"]["0.1"], abs=1e-4)
    assert entry["pairs"] == 6 and entry["kap_counts"]["pairs"] == 9 and entry["kap_counts"]["without_keypoints"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("variant", KAP_VARIANTS)
@pytest.mark.parametrize("shown", ["", "1234"], ids=["no common keypoints", "common keypoints"])
def test_skipped_pairs_lower_kap_and_leave_pck_alone(folder, tmp_path, variant, shown):
    hide(folder, "img0", set("01234") - set(shown))
    options = {"categories": ("car",), "on_bad_input": "skip"}
    good = evaluate(configuration(folder, tmp_path / "good", kap=variant, **options)).results["per_category"]["car"]
    (folder / "JPEGImages" / "car" / "img0.jpg").write_bytes(b"broken")
    bad = evaluate(configuration(folder, tmp_path / "bad", kap=variant, **options)).results["per_category"]["car"]
    plain = evaluate(configuration(folder, tmp_path / "plain", kap="none", **options)).results["per_category"]["car"]
    assert plain.items() <= bad.items() and bad["kap_counts"] == good["kap_counts"]
    for alpha, values in bad["kap"].items():
        assert all(value <= good["kap"][alpha][name] + 1e-9 for name, value in values.items())
    assert bad["kap"]["0.2"]["pooled"] < good["kap"]["0.2"]["pooled"]


def test_predictions_hold_no_features(folder, tmp_path, capsys):
    with pytest.raises(InputError, match=re.escape("--kap visible_only needs features")):
        configuration(folder, tmp_path / "out", predictions=tmp_path / "predictions.jsonl")
    arguments = f"--dataset {folder} --output {tmp_path / 'out'} --predictions {tmp_path / 'predictions.jsonl'} --kap spherical"
    try:
        code = eval_spair.main(arguments.split())
    except SystemExit as stopped:  # what the parser of the command line finds out itself
        code = stopped.code
    assert code == 2 and "--kap spherical needs features" in capsys.readouterr().err


@pytest.mark.slow
def test_all_variants_stand_beside_each_other(folder, tmp_path):
    together = evaluate(configuration(folder, tmp_path / "all", kap="all"))
    keys = {"visible_only": "kap", "as_released": "kap_as_released", "spherical": "kap_spherical"}
    for variant, key in keys.items():
        alone = evaluate(configuration(folder, tmp_path / variant, kap=variant)).results
        assert together.results["all"][key] == alone["all"]["kap"]
        assert together.results["per_category"]["car"][key] == alone["per_category"]["car"]["kap"]
    rows = (tmp_path / "all" / "results.csv").read_text()
    assert all(f"car,kap_{variant},0.1,pooled" in rows for variant in keys)
    together.task.write_report(together)
    html = (tmp_path / "all" / "report.html").read_text()
    assert all(f"Variant {variant}" in html and f"KAP ({variant})" in together.task.terminal_table(together.results) for variant in keys)
