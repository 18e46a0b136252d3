"""One page and one table of several runs."""

from collections.abc import Sequence
from html import escape
from typing import Any

from semalign3d_core.evaluation.compare.differences import differing_pairs
from semalign3d_core.evaluation.compare.runs import Run
from semalign3d_core.evaluation.report.gallery import figure
from semalign3d_core.evaluation.report.tables import main_alpha
from semalign3d_core.pages.html import note, page, section, table

MEANS = {"mean_of_categories": "mean of categories", "pair_weighted": "weighted by pairs", "per_point": "per point"}
COLUMNS = ("run", "told", "category", "alpha", "number", "percent", "low", "high", "difference", "difference_low", "difference_high")
DIFFERENT = "The methods know different things about the points; compare only methods that know the same."
UNKNOWN = "What predictions from a file know of the points is not recorded; compare only methods that know the same."
SIDE_BY_SIDE = '<div style="flex: 1 1 0; min-width: min(100%, 180px)"><b>{}</b>{}</div>'  # all runs in one row, however wide they are


def rows(comparison: dict[str, Any]) -> list[tuple]:
    """Every number as a row of :data:`COLUMNS`."""
    found = []
    for run in comparison["runs"]:
        for category, scores in [("all", run["all"]), *run["per_category"].items()]:
            for alpha, numbers in scores.items():
                for number, entry in numbers.items():
                    ends, spread = entry["interval"] or (None, None), entry["difference_interval"] or (None, None)
                    values = (entry["percent"], *ends, entry["difference"], *spread)
                    found.append((run["name"], run["told"], category, alpha, number, *values))
    return found


def terminal_table(comparison: dict[str, Any]) -> str:
    """What a user sees: totals with intervals, differences to the first run, winners."""
    runs, alphas = comparison["runs"], list(comparison["runs"][0]["all"])
    width = max(len(run["name"]) for run in runs) + 2
    lines = [f"PCK per image, mean of categories, in percent [95 % interval]; differences to {runs[0]['name']}, pair by pair"]
    for run in runs:
        cells = []
        for alpha in alphas:
            entry = run["all"][alpha]["mean_of_categories"]
            cells.append(f"@{alpha} {_number(entry['percent'])} {_ends(entry['interval'])}" + _difference(entry, run is runs[0]))
        lines.append(f"{run['name']:{width}s}" + "   ".join(cells) + f"   knows of the points: {run['told']}")
    alpha = main_alpha(alphas)
    counts = {run["name"]: [0, 0] for run in runs}
    for found in comparison["winners"].values():
        if found[alpha]:
            for name in found[alpha]["winners"]:
                counts[name][0] += 1
                counts[name][1] += bool(found[alpha]["clear"])
    lines.append(f"best at {alpha}: " + ", ".join(f"{name} in {n} categories ({clear} clearly)" for name, (n, clear) in counts.items()))
    lines.append(_warning(comparison))
    return "\n".join(filter(None, lines))


def _warning(comparison):
    """What to mind because of what the methods know, or ""."""
    told = {run["told"] for run in comparison["runs"]}
    return DIFFERENT if len(told - {"unknown"}) > 1 else UNKNOWN if len(told) > 1 else ""


def compare_page(runs: Sequence[Run], comparison: dict[str, Any], pictures: int) -> str:
    """HTML of the page; pictures: of how many pairs, those on which the runs differ most."""
    alphas = list(comparison["runs"][0]["all"])
    alpha = main_alpha(alphas)
    names = [run.name for run in runs]
    parts = [
        ("All categories", _totals(comparison, alphas)),
        (f"PCK@{alpha} per category", _categories(comparison, alpha)),
        (f"Where the runs differ most, at {alpha}", _pictures(runs, alphas.index(alpha), float(alpha), pictures)),
    ]
    place = escape(str(runs[0].results["config"]["dataset"]))
    text = note(f"{comparison['runs'][0]['pairs']} pairs of {place}. Intervals: 95 %, bootstrap over images.")
    warning = _warning(comparison) and f'<div class="warning">{_warning(comparison)}</div>'
    head = f"<h1>{escape(' / '.join(names))}</h1>{text}{warning}"
    return page("Comparison", head + "\n".join(section(*part) for part in parts))


def _totals(comparison, alphas):
    lines = []
    for run in comparison["runs"]:
        for number, label in MEANS.items():
            cells = []
            for alpha in alphas:
                entry = run["all"][alpha][number]
                cells += _cells(entry, run is comparison["runs"][0])
            lines.append([run["name"], run["told"], label, *cells])
    columns = [(f"PCK@{alpha}", name) for alpha in alphas for name in ("%", "95 %", "difference", "95 %")]
    return table(["run", "knows of the points", "average", *columns], lines, ours={0, 1, 2})


def _categories(comparison, alpha):
    lines = []
    for category, found in comparison["winners"].items():
        cells = []
        for run in comparison["runs"]:
            entry = run["per_category"][category][alpha]["per_image"]
            cells += _cells(entry, run is comparison["runs"][0])
        best = found[alpha] or {"winners": [], "clear": None}
        lines.append([category, " = ".join(best["winners"]), {True: "yes", False: "no", None: None}[best["clear"]], *cells])
    columns = [(run["name"], name) for run in comparison["runs"] for name in ("%", "95 %", "difference", "95 %")]
    return note("Clear: the interval of the difference to the next best leaves out 0.") + table(["", "best", "clear", *columns], lines)


def _pictures(runs, alpha_index, alpha, count):
    parts = []
    for index in differing_pairs(runs, alpha_index, count):
        figures = "".join(SIDE_BY_SIDE.format(escape(run.name), figure(run.scores[index], alpha_index, alpha)) for run in runs)
        parts.append(f'<div class="gallery">{figures}</div>')
    text = "Green lines end at right points, red ones at wrong points; white circles are the true places. One row per pair."
    return note(text) + "<br>".join(parts) if parts else note("On every pair the runs have equally many right points.")


def _number(value):
    return "-" if value is None else f"{value:.1f}"


def _ends(ends):
    return "" if ends is None else f"[{ends[0]:.1f}, {ends[1]:.1f}]"


def _cells(entry, first):
    """Percent, interval, difference and its interval; the first run has no difference to itself."""
    difference = [None, ""] if first else [entry["difference"], _ends(entry["difference_interval"])]
    return [entry["percent"], _ends(entry["interval"]), *difference]


def _difference(entry, first):
    if first or entry["difference"] is None:
        return ""
    return f" ({entry['difference']:+.1f} {_ends(entry['difference_interval'])})"
