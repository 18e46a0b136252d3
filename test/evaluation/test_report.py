"""The report: one self-contained page, looked at in a headless browser."""

import re

import numpy as np
import pytest
from headless_browser import look_at, needs_browser, width_on_a_telephone
from PIL import Image
from tiny_dataset import make_dataset

from semalign3d_core.evaluation.report.gallery import best_and_worst
from semalign3d_core.evaluation.report.published import AVERAGING, published_ablation, published_results
from semalign3d_core.evaluation.report.report import write_report
from semalign3d_core.evaluation.report.tables import published_tables
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.pages.charts import category_chart, line_chart


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


@pytest.mark.slow
@needs_browser
def test_the_page_fits_a_telephone(html, tmp_path):
    assert width_on_a_telephone(html, tmp_path) <= 420


@pytest.mark.slow
@needs_browser
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
    assert dict(published_ablation())["original"] == {"bottle": 82.2, "chair": 88.3, "tvmonitor": 96.1} and len(published_ablation()) == 6


@pytest.mark.parametrize(
    ("place", "method", "alpha", "total"),
    [
        (("spair", "test", "pck_dagger"), "SemAlign3D", 0.05, 72.5),
        (("spair", "test", "kap"), "GeoAware (AP-10K pre-trained)", 0.01, 48.9),
        (("spair", "test", "geometry_aware"), "GeoAware", 0.1, 77.4),
        (("spair_u", "test", "pck"), "MARCO", 0.1, 67.5),
        (("ap10k", "test", "pck"), "GeoAware", 0.05, 73.0),
        (("ap10k", "test_cross_species", "pck"), "GeoAware", 0.01, 21.7),
        (("ap10k", "test_cross_family", "pck"), "GeoAware zero-shot", 0.1, 52.7),
        (("pf_pascal", "test", "pck"), "GeoAware", 0.15, 97.4),
        (("pf_pascal", "test", "kap"), "SemAlign3D (Table 3)", 0.05, 57.4),
        (("pf_willow", "test", "pck"), "SFNet (reference length: source keypoints)", 0.1, 74.0),
    ],
)
def test_other_data_sets_and_metrics_have_their_published_numbers(place, method, alpha, total):
    assert [row.all for row in published_results(*place) if (row.method, row.alpha) == (method, alpha)] == [total]
    assert all(row.averaging in AVERAGING and row.all_averaging in AVERAGING for row in published_results(*place))


def test_nothing_is_published_for_other_splits_and_kinds():
    assert not published_results("spair", "val") and not published_results("ap10k", "test", "geometry_aware")


def rows_of(html, title):
    """The cells of the table behind a heading of the page."""
    part = html[html.index(f">{title}<") :]
    part = part[: part.index("</table>")]
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", part)]


def test_published_rows_stand_beside_ours_and_all_say_how_they_average(evaluation, html):
    rows = {(row[0], row[2]): row[3:] for row in rows_of(html, "PCK@0.1 per category") if row}
    assert rows["SemAlign3D", "per image, mean of categories"] == ["88.9", "92.5", "88.3"]  # all, car, chair
    own, categories = evaluation.results["all"]["pck"]["0.1"], evaluation.results["per_category"].values()
    for average, total, kind in (
        ("per image, mean of categories", "mean_of_categories", "per_image"),
        ("per image, weighted by pairs", "pair_weighted", "per_image"),
        ("per point, mean of categories", "mean_of_categories_per_point", "per_point"),
        ("per point", "per_point", "per_point"),
    ):
        expected = [own[total], *(entry["pck"]["0.1"][kind] for entry in categories)]
        assert rows["this: nearest_neighbour", average] == [f"{value:.1f}" for value in expected]
    totals = {(row[0], row[2]): row[3:] for row in rows_of(html, "PCK over all categories") if row}
    assert totals["GeoAware", "per image, weighted by pairs"] == ["21.6", "72.6", "82.9"]
    assert "not comparable" in html, "these images are not SPair-71k"


@pytest.mark.parametrize(("kind", "split", "expected"), [("spair", "test", "SemAlign3D"), ("ap10k", "test_cross_species", "GeoAware")])
def test_the_published_numbers_are_those_of_the_data_set(evaluation, kind, split, expected):
    results = {**evaluation.results, "config": {**evaluation.results["config"], "kind": kind, "split": split}}
    page = published_tables(results)
    assert expected in page and "not comparable" not in page and ("SphericalMaps" in page) == (kind == "spair")
    results["config"]["kind"] = "pf_willow"
    assert "No results for split test_cross_species of pf_willow" in published_tables(results) or split == "test"


def test_galleries_rank_at_the_threshold_that_they_show(evaluation):
    index = 2
    best, worst = best_and_worst(evaluation.scores, 4, index)
    shares = [score.share[index] for score in best]
    assert shares == sorted(shares, reverse=True)
    assert [s.share[index] for s in worst] == sorted(s.share[index] for s in worst)
    usable = [s for s in evaluation.scores if not s.problem]
    assert shares[0] == max(s.share[index] for s in usable) and worst[0].share[index] == min(s.share[index] for s in usable)


def test_bars_of_categories_carry_marks_of_other_results():
    values = {"car": {"0.05": 40.0, "0.1": 60.0}, "cat": {"0.05": None, "0.1": None}, "dog": {"0.05": 0.0, "0.1": 0.0}}
    svg = category_chart(values, {"A & B": {"car": 92.5}}, "PCK")
    assert svg.count('stroke-width="12"') == 2 + 2 and svg.count('stroke-width="2.5"') == 1 + 1  # bars and marks, each with its legend
    assert "A &amp; B" in svg and ">60.0<" in svg and ">0.0<" in svg and "None" not in svg


def test_chart_leaves_out_missing_values_and_escapes_names():
    svg = line_chart({"a < b": [(0.1, 50.0), (0.2, None)], "c": []}, "alpha")
    assert "a &lt; b" in svg and svg.count("<circle") == 1
    assert "nothing to draw" in line_chart({"a": []}, "alpha")
