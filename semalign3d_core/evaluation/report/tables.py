"""The tables of the report, all from the dictionary of ``results.json``."""

from collections.abc import Iterable
from html import escape
from typing import Any

from semalign3d_core.evaluation.keypoints.kap import kap_keys
from semalign3d_core.evaluation.keypoints.results import kap_places
from semalign3d_core.evaluation.report.published import AVERAGING, published_results
from semalign3d_core.pages.html import note, table

METRICS = {"pck": "PCK", "pck_dagger": "PCK-dagger", "pck_dagger_inclusive": "PCK-dagger, inclusive", "geometry_aware": "PCK", "kap": "KAP"}
# how we average: (name, key of a category, key over all)
OURS = (
    ("per image, mean of categories", "per_image", "mean_of_categories"),
    ("per image, weighted by pairs", "per_image", "pair_weighted"),
    ("per point, mean of categories", "per_point", "mean_of_categories_per_point"),
    ("per point", "per_point", "per_point"),
)
MEAN, WEIGHTED = "all: mean of categories", "all: weighted by pairs / pooled points"


def main_alpha(alphas: Iterable[Any]) -> Any:
    """The largest threshold up to 0.1, else the smallest: what pictures and rankings show. ``alphas``: as numbers or as their names."""
    small = [alpha for alpha in alphas if float(alpha) <= 0.1]
    return max(small, key=float) if small else min(alphas, key=float)


def category_table(results: dict[str, Any], metric: str = "pck") -> str:
    """A metric per category and over all, per image and per point."""
    alphas = list(results["all"]["pck"])
    header = ["", "pairs", "skipped", *_columns(metric, alphas, ("per image", "95 %", "per point", "95 %"))]
    rows = []
    for name, entry, image, point in _places(results):
        cells = (cell for a in alphas for kind in (image, point) for cell in (entry[metric][a][kind], _ends(entry, metric, a, kind)))
        rows.append([name, entry["pairs"], entry["skipped"], *cells])
    return table(header, rows, ours={len(rows) - 2, len(rows) - 1})


def dagger_tables(results: dict[str, Any]) -> str:
    """Both variants of PCK-dagger."""
    text = "Right, and no other common keypoint of the target is nearer. The inclusive variant compares with &le; in place of &lt;."
    return note(text) + category_table(results, "pck_dagger") + "<br>" + category_table(results, "pck_dagger_inclusive")


def geometry_table(results: dict[str, Any]) -> str:
    """PCK on the geometry-aware subset, per category and over all."""
    if not results["all"]["geometry_aware"]["pairs"]:
        return ""
    alphas, rows = list(results["all"]["pck"]), []
    for name, entry, image, point in _places(results):
        subset = entry["geometry_aware"]
        cells = (
            cell for a in alphas for kind in (image, point) for cell in (subset["pck"][a][kind], _ends(entry, "geometry_aware", a, kind))
        )
        rows.append([name, subset["pairs"], subset["points"], *cells])
    header = ["", "pairs", "keypoints", *_columns("geometry_aware", alphas, ("per image", "95 %", "per point", "95 %"))]
    text = note("Keypoints with a look-alike that is visible in the target: left and right, the four wheels.")
    return text + table(header, rows, ours={len(rows) - 2, len(rows) - 1})


def breakdown_tables(results: dict[str, Any]) -> str:
    """PCK by difficulty of viewpoint and scale, truncation and occlusion."""
    alphas, parts = list(results["all"]["pck"]), []
    kinds = {"mean_of_categories": "mean of cat.", "pair_weighted": "by pairs", "per_point": "per point"}
    for attribute, levels in results["breakdowns"].items():
        rows = [
            [
                level,
                values["pairs"],
                *(cell for a in alphas for kind in kinds for cell in (values["pck"][a][kind], _text(values["intervals"][a][kind]))),
            ]
            for level, values in levels.items()
            if level != "unlabelled" and values["pairs"]
        ]
        if rows:
            columns = [column for kind in kinds.values() for column in (kind, "95 %")]
            header = [attribute.replace("_", " "), "pairs", *_columns("pck", alphas, columns)]
            parts.append(table(header, rows))
    if not parts:
        return note("The pairs carry no attributes.")
    text = "Over all categories: per image (mean of categories, and weighted by pairs) and per point. "
    text += "Truncation and occlusion say which of the two images has it."
    return note(text) + "<br>".join(parts)


def kap_table(results: dict[str, Any]) -> str:
    """Keypoint average precision per category and over all, a table per variant that was asked for."""
    parts = []
    for variant, key in kap_keys(results["config"]["kap"]).items():
        rows = []
        for label, entry, image, pooled in kap_places(results):
            cells = (
                cell for a, values in entry[key].items() for kind in (image, pooled) for cell in (values[kind], _ends(entry, key, a, kind))
            )
            rows.append([label, entry["kap_counts"]["pairs"], entry["kap_counts"]["points"], *cells])
        header = ["", "pairs", "source keypoints", *_columns("kap", list(results["all"][key]), ("per image", "95 %", "pooled", "95 %"))]
        text = (
            f"Variant {escape(variant)}: is a keypoint found, and is its absence noticed? Of "
            f"{escape(results['protocol']['kap']['scores'])}. Weighted: per image by pairs, pooled by source keypoints."
        )
        parts.append(note(text) + table(header, rows, ours={len(rows) - 2, len(rows) - 1}))
    return "<br>".join(parts)


def published_tables(results: dict[str, Any]) -> str:
    """Ours beside what papers report for this data set and split; for a data set of one's own, beside SPair-71k."""
    kind, split = results["config"]["kind"], results["config"]["split"]
    own = kind == "folder"
    place = {"kind": "spair", "split": "test"} if own else {"kind": kind, "split": split}
    published = {metric: published_results(**place, metric=metric) for metric in ("pck", "pck_dagger", "geometry_aware", "kap")}
    parts = [_published_categories(results, published["pck"])]
    parts += [_published_totals(results, metric, rows) for metric, rows in published.items()]
    parts = [part for part in parts if part]
    if not parts:
        return note(f"No results for split {escape(split)} of {escape(kind)} at these thresholds are known to this program.")
    text = "Papers average over categories in different ways; each row says how. Compare only rows of one averaging."
    if own:
        text = f"<b>Published numbers are of SPair-71k&rsquo;s test split, ours of other images: not comparable.</b> {text}"
    return note(text) + "\n".join(parts)


def _published_categories(results, published):
    """One table per threshold at which papers report the categories."""
    own, parts = results["per_category"], []
    for alpha in results["all"]["pck"]:
        rows = [row for row in published if row.alpha == float(alpha) and row.per_category]
        known = {category for row in rows for category in row.per_category}
        categories = [*own, *sorted(known if not known & set(own) else ())]
        lines = [[row.method, row.supervision, _averaging(row), row.all, *map(row.per_category.get, categories)] for row in rows]
        for name, kind, total in OURS:
            scores = [own[c]["pck"][alpha][kind] if c in own else None for c in categories]
            lines.append([f"this: {results['method']}", "", name, results["all"]["pck"][alpha][total], *scores])
        if rows:
            header, ours = ["method", "supervision", "average", "all", *categories], range(len(rows), len(lines))
            upright = categories if len(categories) > 6 else ()
            parts.append(f"<h3>PCK@{alpha} per category</h3>{table(header, lines, ours, upright)}")
    return "\n".join(parts)


def _published_totals(results, metric, published):
    """A table over thresholds of what papers report in total."""
    entry = results["all"]
    ours = entry["geometry_aware"]["pck"] if metric == "geometry_aware" else entry.get(metric)
    alphas = [a for a in ours or () if any(row.alpha == float(a) for row in published)]
    if not alphas or (metric == "geometry_aware" and not entry["geometry_aware"]["pairs"]):
        return ""
    lines = {(row.method, row.supervision, _averaging(row)): dict.fromkeys(alphas) for row in published}
    for row in published:
        lines[row.method, row.supervision, _averaging(row)][f"{row.alpha:g}"] = row.all
    names = {total: total.replace("_", " ") for total in ours[alphas[0]]} | {total: name for name, _, total in OURS if metric != "kap"}
    rows = [[*line, *(values[a] for a in alphas)] for line, values in lines.items()]
    rows += [[f"this: {results['method']}", "", name, *(ours[a][total] for a in alphas)] for total, name in names.items()]
    title = {"geometry_aware": "Geometry-aware subset"}.get(metric, METRICS[metric])
    header = ["method", "supervision", "average", *(f"@{a}" for a in alphas)]
    return f"<h3>{title} over all categories</h3>" + table(header, rows, ours=range(len(lines), len(rows)))


def _averaging(row):
    """How a published row averages: within a category, then over all."""
    parts = dict.fromkeys((AVERAGING[row.averaging], AVERAGING[row.all_averaging]))
    return ", ".join(parts)


def _places(results):
    """(label, entry, key per image, key per point) of all categories and of both ways to average over them."""
    places = [(name, entry, "per_image", "per_point") for name, entry in results["per_category"].items()]
    places.append((MEAN, results["all"], "mean_of_categories", "mean_of_categories_per_point"))
    return [*places, (WEIGHTED, results["all"], "pair_weighted", "per_point")]


def _ends(entry, metric, alpha, kind):
    """The interval of a number as text."""
    found = entry["intervals"].get(metric) or entry.get(f"{metric}_intervals", {})
    return _text(found.get(alpha, {}).get(kind))


def _text(ends):
    return None if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"


def _columns(metric, alphas, kinds):
    return [(f"{METRICS[metric]}@{alpha}", kind) for alpha in alphas for kind in kinds]
