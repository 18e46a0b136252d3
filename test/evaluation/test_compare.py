"""Several runs side by side: paired differences with intervals, winners, pictures; and what a run says of itself."""

import json

import pytest
from headless_browser import BROWSER, width_on_a_telephone
from tiny_dataset import make_dataset

from semalign3d_core.cli.main import main
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Nearest neighbour, the same predictions under another name, and points that are all in one corner."""
    root = tmp_path_factory.mktemp("runs")
    folder = make_dataset(root / "data", noise=0.6)
    common = {"backbone": "precomputed:sim", "gallery": 0}
    first = evaluate(EvaluationConfig(folder, root / "nn", **common))
    lines = [json.loads(line) for line in (root / "nn" / "predictions.jsonl").read_text().splitlines()]
    for name, change in (("same", lambda points: points), ("corner", lambda points: [[0, 0]] * len(points))):
        text = "".join(json.dumps({"pair": line["pair"], "points": change(line["points"])}) + "\n" for line in lines)
        (root / f"{name}.jsonl").write_text(text)
        evaluate(EvaluationConfig(folder, root / name, predictions=root / f"{name}.jsonl", name=name, gallery=0))
    evaluate(EvaluationConfig(folder, root / "few", limit=2, **common))
    return root, first.results


@pytest.mark.slow
def test_every_number_has_an_interval_and_the_machine_is_recorded(runs):
    root, _ = runs
    results = json.loads((root / "nn" / "results.json").read_text())
    for entry in [results["all"], *results["per_category"].values()]:
        for metric in ("pck", "pck_dagger", "pck_dagger_inclusive", "pck_scored_only"):
            for alpha, numbers in entry[metric].items():
                for name, percent in numbers.items():
                    low, high = entry["intervals"][metric][alpha][name]
                    assert low <= percent <= high and 0 <= low <= high <= 100
    assert results["breakdowns"]["scale_variation"]["easy"]["intervals"]["0.1"]["per_point"]
    assert 0 < results["latency"]["image"]["median_s"] <= results["latency"]["image"]["p95_s"] and results["latency"]["image"]["count"] == 8
    assert results["hardware"]["processors"] > 0 and results["memory"]["peak_mib_of_a_process"] > 50
    assert ",low,high," in (root / "nn" / "results.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_differences_are_paired(runs, tmp_path, capsys):
    root, _ = runs
    assert main(["compare", *(str(root / name) for name in ("nn", "same", "corner")), "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "compare.json").read_text())
    first, same, corner = found["runs"]
    assert [run["name"] for run in found["runs"]] == ["nearest_neighbour", "same", "corner"]
    assert (first["told"], same["told"]) == ("nothing", "unknown")
    equal = same["all"]["0.1"]["mean_of_categories"]
    assert equal["difference"] == 0 and equal["difference_interval"] == [0, 0] and equal["interval"][0] < equal["interval"][1]
    worse = corner["all"]["0.1"]["mean_of_categories"]
    assert worse["difference"] < -10 and worse["difference_interval"][1] < 0
    assert all(winners["0.1"]["winners"] == ["nearest_neighbour", "same"] for winners in found["winners"].values())
    page = (tmp_path / "compare.html").read_text()
    assert BROWSER is None or width_on_a_telephone(page, tmp_path) <= 420
    assert page.count("<figure>") == 24 and "http" not in page.replace("http://www.w3.org", "")
    text = capsys.readouterr().out
    assert "corner" in text and "predictions from a file" in text and "compare only methods that know the same" in text
    assert (tmp_path / "compare.csv").read_text().startswith("run,told,category,alpha,number,percent,low,high,difference")


def test_runs_of_other_pairs_and_of_one_name_are_refused(runs, tmp_path, capsys):
    root, _ = runs
    assert main(["compare", str(root / "nn"), str(root / "few"), "--output", str(tmp_path)]) == 2
    assert "are called 'nearest_neighbour': name them" in capsys.readouterr().err
    assert main(["compare", str(root / "nn"), f"few={root / 'few'}", "--output", str(tmp_path)]) == 2
    assert "limit: None and 2" in capsys.readouterr().err
    assert main(["compare", str(root / "nn")]) == 2
