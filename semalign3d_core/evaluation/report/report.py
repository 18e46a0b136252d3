"""The report: one HTML file without any outside resource."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from semalign3d_core.evaluation.keypoints.scoring import curve
from semalign3d_core.evaluation.report import tables as tables
from semalign3d_core.evaluation.report.gallery import best_and_worst, figure
from semalign3d_core.evaluation.report.published import published_results
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.pages.charts import category_chart, line_chart
from semalign3d_core.pages.html import details, note, page, section, tiles, warning
from semalign3d_core.runtime.files import write_text

CURVE_ALPHAS = tuple(round(0.005 * step, 3) for step in range(41))
MOST_CURVES = 20
COMPARED = ("SemAlign3D", "GeoAware (AP-10K pre-trained)")  # published per image and per category: marks in the bar chart


def write_report(evaluation: Evaluation, sections: Sequence[tuple[str, str]] = ()) -> Path:
    """Writes ``report.html`` into the output folder and returns its path; ``sections``: further (title, HTML) before the galleries."""
    results, config = evaluation.results, evaluation.config
    parts = [
        ("PCK per category", _category_chart(results) + tables.category_table(results)),
        ("Beside published results", tables.published_tables(results)),
        ("PCK over the threshold", _curves(evaluation)),
        ("PCK-dagger", tables.dagger_tables(results)),
        ("Breakdowns", tables.breakdown_tables(results)),
        ("Geometry-aware subset", _geometry_chart(results) + tables.geometry_table(results)),
        ("Keypoint average precision", tables.kap_table(results)),
        *sections,
        *_galleries(evaluation),
        ("Details", details(results)),
    ]
    head = [_title(results, config), _tiles(results), warning(results)]
    path = config.output / "report.html"
    write_text(path, page(f"{results['method']} on {config.dataset}", "\n".join([*head, *(section(*part) for part in parts)])))
    return path


def _title(results, config):
    parts = {
        "data": f"{config.dataset} ({results['config']['kind']}), split {config.split}",
        "features": "none: predictions of a file" if config.predictions else config.backbone,
        "reference length": results["protocol"]["reference_length"],
    }
    text = "; ".join(f"{name}: {escape(value)}" for name, value in parts.items())
    return f"<h1>{escape(results['method'])}</h1>\n{note(text)}"


def _tiles(results):
    total, found = results["all"], []
    for alpha in sorted(total["pck"], key=float, reverse=True):
        scores = {name: None if value is None else f"{value:.1f}" for name, value in total["pck"][alpha].items()}
        others = f"{scores['pair_weighted']} weighted by pairs<br>{scores['per_point']} per point"
        found.append((f"PCK@{alpha}, mean of categories", scores["mean_of_categories"], others))
    seconds = results["seconds"]["total"]
    time = f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
    counts = f"{len(results['per_category'])} categories, {total['points']} keypoints<br>{total['skipped']} pairs skipped; {time}"
    return tiles([*found, ("pairs", str(total["pairs"]), counts)])


def _category_chart(results):
    """Bars of the categories at all thresholds; on SPair-71k itself with marks of published results."""
    bars = {name: {a: values["per_image"] for a, values in entry["pck"].items()} for name, entry in results["per_category"].items()}
    marks, alpha = {}, tables.main_alpha(results["all"]["pck"])
    if results["config"]["kind"] == "spair" and results["config"]["split"] == "test":
        marks = {r.method: r.per_category for r in published_results() if r.method in COMPARED and r.alpha == float(alpha)}
    return category_chart(bars, {f"{method}, published @{alpha}": values for method, values in marks.items()}, "PCK per image (%)")


def _geometry_chart(results):
    """The standard set's bars with marks of the geometry-aware subset, per category (GeoAware-SC, Fig. 4)."""
    if not results["all"]["geometry_aware"]["pairs"]:
        return ""
    alpha, entries = tables.main_alpha(results["all"]["pck"]), results["per_category"].items()
    bars = {name: {alpha: entry["pck"][alpha]["per_image"]} for name, entry in entries}
    subset = {name: entry["geometry_aware"]["pck"][alpha]["per_image"] for name, entry in entries if entry["geometry_aware"]["pairs"]}
    return category_chart(bars, {f"geometry-aware subset @{alpha}": subset}, f"PCK@{alpha} per image (%), bars: standard set")


def _curves(evaluation):
    series = {"all (weighted by pairs)": curve(evaluation.scores, CURVE_ALPHAS)}
    categories = list(evaluation.results["per_category"])
    shown = categories[: MOST_CURVES - 1]
    if len(categories) > 1:
        for category in shown:
            series[category] = curve([s for s in evaluation.scores if s.pair.category == category], CURVE_ALPHAS)
    marked = [alpha for alpha in evaluation.config.alpha if alpha <= CURVE_ALPHAS[-1]]
    chart = line_chart(series, "alpha (share of the reference length)", "PCK per image (%)", marked=marked)
    left_out = len(categories) - len(shown)
    return chart + (note(f"The curves of {left_out} more categories are left out.") if left_out else "")


def _galleries(evaluation):
    alphas, count = evaluation.config.alpha, evaluation.config.gallery
    if not count:
        return []
    index = alphas.index(tables.main_alpha(alphas))
    text = (
        "Left the source, right the target. Lines end where a point was predicted: green if right at "
        f"{alphas[index]:g}, red if wrong; white circles are the true places, dashes lead to them."
    )
    best, worst = best_and_worst(evaluation.scores, count, index)
    sections = []
    for title, chosen in (("Best pairs", best), ("Worst pairs", worst)):
        figures = "\n".join(figure(score, index, alphas[index]) for score in chosen)
        sections.append((title, f'{note(text)}<div class="gallery">{figures}</div>' if figures else note("none")))
    return sections
