"""The report: one HTML file without any outside resource."""

import json
from html import escape

from semalign3d_core.evaluation.charts import line_chart
from semalign3d_core.evaluation.gallery import best_and_worst, figure
from semalign3d_core.evaluation.published import AVERAGING, published_results
from semalign3d_core.evaluation.results import kap_places
from semalign3d_core.evaluation.scoring import curve
from semalign3d_core.files import write_text

CURVE_ALPHAS = tuple(round(0.005 * step, 3) for step in range(41))
MOST_CURVES = 20
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; padding: 0 1rem; color: #1c1e21; background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid #e8e8e8; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; max-width: 7.5em; }
th:first-child, td:first-child { text-align: left; } tr.ours td { background: #eaf4fd; font-weight: 600; } .note { color: #555; }
.warning { background: #fff4e0; border-left: 4px solid #e09f1f; padding: .5rem .8rem; }
.chart { max-width: 720px; width: 100%; font-size: 12px; } .gallery { display: flex; flex-wrap: wrap; gap: 14px; }
figure { margin: 0; } figure svg { max-width: 100%; height: auto; border: 1px solid #ddd; } figcaption { font-size: 12px; color: #444; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px; }
"""


def write_report(evaluation, sections=()):
    """Writes ``report.html`` into the output folder and returns its path; ``sections``: further (title, HTML) before the details."""
    results, config = evaluation.results, evaluation.config
    body = [
        f"<h1>{escape(results['method'])}</h1>",
        f'<p class="note">{escape(str(config.dataset))}, split {escape(config.split)}: {results["all"]["pairs"]} pairs of '
        f"{len(results['per_category'])} categories; reference length: {escape(results['protocol']['reference_length'])}</p>",
        _warning(results),
        _section("PCK per category", _category_tables(results)),
        _section("Beside published results", _published_table(results)),
        _section("PCK over the threshold", _curves(evaluation)),
        _section("Breakdowns", _breakdown_tables(results)),
        _section("Geometry-aware subset", _geometry_table(results)),
        _section("Keypoint average precision", _kap_table(results)),
        *(_section(title, html) for title, html in sections),
        *_galleries(evaluation),
        _section("Details", _details(results)),
    ]
    path = evaluation.config.output / "report.html"
    write_text(path, page(results["method"], "\n".join(body)))
    return path


def page(title, body):
    """A complete HTML page."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def table(header, rows, ours=()):
    """HTML table of plain values; rows whose index is in ``ours`` are highlighted."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td>{_cell(value)}</td>" for value in row)
        lines.append(f"<tr{' class=ours' if index in ours else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value):
    if value is None:
        return "&ndash;"
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))


def _section(title, html):
    return f"<h2>{escape(title)}</h2>\n{html}" if html else ""


def _warning(results):
    skipped = results["skipped"]
    if not skipped:
        return ""
    shown = "".join(f"<li>{escape(entry['pair'])}: {escape(entry['reason'])}</li>" for entry in skipped[:10])
    more = f"<li>and {len(skipped) - 10} more, see results.json</li>" if len(skipped) > 10 else ""
    text = f"{len(skipped)} pairs were skipped; bad ones count as wrong in every number here."
    return f'<div class="warning">{text}<ul>{shown}{more}</ul></div>'


def _category_tables(results):
    """PCK and both variants of PCK-dagger, per category and over all."""
    note = (
        '<p class="note">PCK-dagger: right, and no other common keypoint of the target is nearer. The inclusive variant compares '
        "with &le; in place of &lt;.</p>"
    )
    dagger = _category_table(results, "pck_dagger") + "<br>" + _category_table(results, "pck_dagger_inclusive")
    return _category_table(results, "pck") + note + dagger


def _category_table(results, metric):
    alphas, label = list(results["all"]["pck"]), metric.replace("_", " ").upper()
    header = [label, "pairs", "skipped", *(f"@{a} {kind}" for a in alphas for kind in ("per image", "per point"))]
    places = [(name, entry, "per_image", "per_point") for name, entry in results["per_category"].items()]
    places.append(("all: mean of categories", results["all"], "mean_of_categories", "mean_of_categories_per_point"))
    places.append(("all: weighted by pairs / pooled points", results["all"], "pair_weighted", "per_point"))
    rows = []
    for name, entry, image, point in places:
        scores = [entry[metric][a][kind] for a in alphas for kind in (image, point)]
        rows.append([name, entry["pairs"], entry["skipped"], *scores])
    return table(header, rows, ours={len(rows) - 2, len(rows) - 1})


def _published_table(results):
    alphas = [a for a in results["all"]["pck"] if any(row.alpha == float(a) for row in published_results())]
    if not alphas:
        return '<p class="note">No published thresholds among those evaluated.</p>'
    text = (
        '<p class="note">Published numbers are those of SPair-71k&rsquo;s test split; compare only rows of one averaging, and only if '
        "this is that data set. The averages over all are not built alike in all papers: each row says how.</p>"
    )
    return text + "\n".join(f"<h3>PCK@{a}</h3>{_published_at(results, a)}" for a in sorted(alphas, key=float, reverse=True))


def _published_at(results, alpha):
    rows = [row for row in published_results() if row.alpha == float(alpha)]
    published, own = {category for row in rows for category in row.per_category}, results["per_category"]
    categories = [*own, *sorted(published if not published & set(own) else ())] if published else []
    header = ["method", "supervision", "average of a category", *categories, "all", "average over all"]
    lines = []
    for row in rows:
        scores = map(row.per_category.get, categories)
        lines.append([row.method, row.supervision, AVERAGING[row.averaging], *scores, row.all, AVERAGING[row.all_averaging]])
    for kind, totals in (("per_image", ("mean_of_categories", "pair_weighted")), ("per_point", ("per_point",))):
        scores = [own[c]["pck"][alpha][kind] if c in own else None for c in categories]
        for total in totals:
            everything = results["all"]["pck"][alpha][total]
            lines.append([f"this: {results['method']}", "", AVERAGING[kind], *scores, everything, AVERAGING[total]])
    return table(header, lines, ours=range(len(rows), len(lines)))


def _curves(evaluation):
    series = {"all (weighted by pairs)": curve(evaluation.scores, CURVE_ALPHAS)}
    categories = list(evaluation.results["per_category"])[: MOST_CURVES - 1]
    if len(categories) > 1:
        for category in categories:
            series[category] = curve([s for s in evaluation.scores if s.pair.category == category], CURVE_ALPHAS)
    return line_chart(series, "alpha (share of the reference length)", "PCK per image (%)")


def _breakdown_tables(results):
    alphas, parts = list(results["all"]["pck"]), []
    for attribute, levels in results["breakdowns"].items():
        rows = [
            [level, values["pairs"], *(values["pck"][a][kind] for a in alphas for kind in ("pair_weighted", "per_point"))]
            for level, values in levels.items()
            if level != "unlabelled" and values["pairs"]
        ]
        if rows:
            header = [attribute.replace("_", " "), "pairs", *(f"PCK@{a} {kind}" for a in alphas for kind in ("per image", "per point"))]
            parts.append(table(header, rows))
    return "<br>".join(parts) or '<p class="note">The pairs carry no attributes.</p>'


def _geometry_table(results):
    alphas, places = list(results["all"]["pck"]), {**results["per_category"], "all: weighted by pairs / pooled points": results["all"]}
    if not results["all"]["geometry_aware"]["pairs"]:
        return ""
    rows = []
    for name, entry in places.items():
        subset, image = entry["geometry_aware"], "per_image" if name in results["per_category"] else "pair_weighted"
        rows.append([name, subset["pairs"], subset["points"], *(subset["pck"][a][kind] for a in alphas for kind in (image, "per_point"))])
    header = ["category", "pairs", "keypoints", *(f"PCK@{a} {kind}" for a in alphas for kind in ("per image", "per point"))]
    note = '<p class="note">Keypoints that a look-alike visible in the target can be taken for: left and right, the four wheels.</p>'
    return note + table(header, rows, ours={len(rows) - 1})


def _kap_table(results):
    rows = []
    for label, entry, image, pooled in kap_places(results):
        scores = (values[kind] for values in entry["kap"].values() for kind in (image, pooled))
        rows.append([label, entry["kap_counts"]["pairs"], entry["kap_counts"]["points"], *scores])
    if not rows:
        return ""
    kinds = (f"KAP@{a} {kind}" for a in results["all"]["kap"] for kind in ("per image", "pooled"))
    note = (
        f'<p class="note">Variant {escape(results["protocol"]["kap"]["variant"])}, of the features: is a keypoint found, and is its '
        "absence noticed? Weighted: per image by pairs, pooled by source keypoints.</p>"
    )
    return note + table(["category", "pairs", "source keypoints", *kinds], rows, ours={len(rows) - 2, len(rows) - 1})


def _galleries(evaluation):
    alphas, count = evaluation.config.alpha, evaluation.config.gallery
    if not count:
        return []
    index = max(range(len(alphas)), key=lambda i: (alphas[i] <= 0.1, alphas[i] if alphas[i] <= 0.1 else -alphas[i]))
    note = (
        f'<p class="note">Left the source, right the target. Lines end where a point was predicted: green if right at {alphas[index]:g}, '
        "red if wrong; white circles are the true places.</p>"
    )
    best, worst = best_and_worst(evaluation.scores, count)
    sections = []
    for title, chosen in (("Best pairs", best), ("Worst pairs", worst)):
        figures = "\n".join(figure(score, index, alphas[index]) for score in chosen)
        sections.append(_section(title, f'{note}<div class="gallery">{figures}</div>' if figures else '<p class="note">none</p>'))
    return sections


def _details(results):
    parts = {key: results[key] for key in ("config", "versions", "protocol", "seeds", "hashes", "cache", "seconds")}
    return f"<pre>{escape(json.dumps(parts, indent=1))}</pre>"
