"""The report: one self-contained page, looked at in a headless browser."""

import re

import numpy as np
import pytest
from headless_browser import BROWSER, look_at
from PIL import Image
from tiny_dataset import make_dataset

from semalign3d_core.evaluation.charts import line_chart
from semalign3d_core.evaluation.config import EvaluationConfig
from semalign3d_core.evaluation.gallery import best_and_worst
from semalign3d_core.evaluation.published import published_results
from semalign3d_core.evaluation.report import write_report
from semalign3d_core.evaluation.runner import evaluate


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    make_dataset(folder / "data", noise=0.7)
    (folder / "data" / "JPEGImages" / "car" / "img0.jpg").write_bytes(b"broken")
    options = {"backbone": "precomputed:sim", "gallery": 3, "on_bad_input": "skip"}
    return evaluate(EvaluationConfig(folder / "data", folder / "out <b>", **options))


@pytest.fixture(scope="module")
def html(evaluation):
    return write_report(evaluation).read_text()


def test_page_needs_nothing_from_outside(html):
    assert not re.search(r'(src|href)="(?!data:)', html) and "<script" not in html and "@import" not in html and "url(" not in html


def test_numbers_of_the_page_are_those_of_the_results(evaluation, html):
    text = re.sub(r"<[^>]+>", " ", html)
    for category, entry in evaluation.results["per_category"].items():
        assert re.search(rf"{category}\s+12\s+{entry['skipped']}\s", text)
        assert f"{entry['pck']['0.1']['per_image']:.1f}" in text
    assert "6 pairs were skipped" in text and "img0.jpg" in text


def test_skipped_pairs_do_not_appear_in_the_galleries(evaluation):
    best, worst = best_and_worst(evaluation.scores, 3)
    assert len(best) == len(worst) == 3 and not any(score.problem for score in best + worst)
    assert not {s.pair.name for s in best} & {s.pair.name for s in worst}
    assert min(s.share.mean() for s in best) >= max(s.share.mean() for s in worst)


@pytest.mark.skipif(BROWSER is None, reason="no browser (chromium) on this machine")
def test_browser_shows_tables_curves_and_galleries(evaluation, html, tmp_path):
    dom, shot = look_at(evaluation.config.output / "report.html", tmp_path)
    for heading in (
        "PCK per category",
        "Beside published results",
        "PCK over the threshold",
        "Breakdowns",
        "Geometry-aware subset",
        "Best pairs",
        "Worst pairs",
    ):
        assert f">{heading}</h2>" in dom
    assert dom.count("<figure>") == 6 and dom.count("<polyline") == 3 and dom.count("data:image/jpeg") == 12
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    coloured = (np.abs(picture - picture.mean(2, keepdims=True)).max(2) > 40).mean()
    assert picture.shape[1] == 1250 and coloured > 0.001 and picture.std() > 10  # the highlighted rows, curves and pictures are drawn


def test_published_numbers_are_complete_and_averaged_as_stated():
    rows = {(row.method, row.alpha, row.averaging): row for row in published_results()}
    ours, geoaware = rows["SemAlign3D", 0.1, "per_image"], rows["GeoAware (AP-10K pre-trained)", 0.1, "per_image"]
    assert len(ours.per_category) == 18 and ours.all == 88.9 and ours.all_averaging == "mean_of_categories"
    assert np.mean(list(ours.per_category.values())) == pytest.approx(ours.all, abs=0.06)
    assert geoaware.all_averaging == "pair_weighted"
    pairs = [690, 650, 702, 702, 870, 644, 564, 600, 646, 640, 600, 600, 702, 650, 862, 664, 756, 692]
    assert np.average(list(geoaware.per_category.values()), weights=pairs) == pytest.approx(geoaware.all, abs=0.06)
    assert rows["SphericalMaps", 0.1, "per_point"].per_category["sheep"] == 69.8


def test_chart_leaves_out_missing_values_and_escapes_names():
    svg = line_chart({"a < b": [(0.1, 50.0), (0.2, None)], "c": []}, "alpha")
    assert "a &lt; b" in svg and svg.count("<circle") == 1
    assert "nothing to draw" in line_chart({"a": []}, "alpha")
