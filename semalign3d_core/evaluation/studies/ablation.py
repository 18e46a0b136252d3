"""What an evaluation of SemAlign3D owes to its parts: the ablation of the paper's Table 4, and the number of training images.

Every row is an evaluation of its own in ``<output>/ablation/<row>``; all share the cache, so that features, depth and masks are
computed once. Models are built from the data set's split ``trn``.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semalign3d_core.evaluation.report.published import published_ablation
from semalign3d_core.evaluation.report.tables import main_alpha
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.pages.charts import bar_chart, line_chart
from semalign3d_core.pages.html import note, table
from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_core.runtime.files import write_json, write_text

# term -> what turns it off, in the reported energy and in both solvers
TERMS = {
    "dense reconstruction (Eq. 7, 8)": {"energy.dense": 0.0},
    "sparse likelihood (Eq. 9)": {"energy.sparse": 0.0},
    "geometric consistency (Eq. 10)": {"energy.geometry": 0.0},
    "background (Eq. 11)": {"energy.background": 0.0},
    "depth regularisation (Eq. 12)": {"energy.depth": 0.0},
}
FAST_SOLVER_NOTE = note(
    "The fast solver has a Gaussian prior of the deformation in place of Eq. 10 and fixes the scale by itself, "
    "so that Eq. 12 enters only the energy by which it chooses among its solutions; with the preset reference all act as published."
)
PUBLISHED_NOTE = note(
    "The paper&rsquo;s Table 4, on SPair-71k, PCK@0.1. The names of its terms are not preserved in our source; which row is which "
    "follows from the paper&rsquo;s text, as far as it says so."
)


@dataclass(frozen=True)
class Row:
    """One row of the study: ``results`` as in results.json, or None with the ``problem`` that prevented them.

    images: number of training images per category (the largest of the categories), of rows about that
    """

    group: str
    name: str
    results: dict | None
    problem: str = ""
    images: int = 0


def run_ablation(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Runs what the configuration of a finished evaluation asks for; returns (title, HTML) sections for its report.

    Writes ``ablation.json`` and ``ablation.csv`` beside the other results.
    """
    config = replace(evaluation.config, cache=evaluation.config.cache_folder)
    categories = tuple(evaluation.results["per_category"])
    rows = [Row("terms", "original", evaluation.results)]
    if config.ablation:
        rows += [_without(config, term) for term in TERMS]
    if config.other_backbone:
        changed = replace(config, backbone=config.other_backbone)
        rows.append(_rebuilt(changed, categories, "backbone", f"backbone {config.other_backbone}", 0))
    for count in sorted(set(config.training_images)):
        rows.append(_rebuilt(config, categories, "training images", f"{count} training images", count))
        if 0 < rows[-1].images < count:
            break  # there are no more
    write_json(config.output / "ablation.json", [_plain(row) for row in rows])
    write_text(config.output / "ablation.csv", _csv(rows))
    return sections(rows)


def ablated(config: Any, changes: dict[str, Any]) -> Any:
    """A (nested) frozen configuration with some fields replaced: ``changes`` maps dotted names to values."""
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        config = replace(config, **{head: ablated(getattr(config, head), {rest: value}) if rest else value})
    return config


def _without(config, term):
    from semalign3d_core.alignment.config import AlignConfig
    from semalign3d_core.matchers.semalign3d import SemAlign3DKeypointsMatcher, SemAlign3DMatcher
    from semalign3d_core.runtime.config import load_preset, save

    folder = _folder(config, f"without {term}")
    preset = folder / "preset.yaml"
    save(ablated(load_preset(AlignConfig, "align", config.preset or "fast"), TERMS[term]), preset)
    matcher = SemAlign3DKeypointsMatcher if config.method == "semalign3d_keypoints" else SemAlign3DMatcher
    transfer = config.transfer or matcher.transfer_preset(config.preset)
    changed = replace(config, preset=str(preset), transfer=transfer, output=folder)
    return _evaluated(changed, "terms", f"without {term}")


def _rebuilt(config, categories, group, name, count):
    """A row whose models are built for it, from ``count`` training images (0: all)."""
    folder = _folder(config, name)
    try:
        used = [build_models(config, category, folder / "models", count) for category in categories]
    except SemAlign3DError as error:
        return Row(group, name, None, str(error))
    images = max(used) if count else 0
    if images < count:
        name = f"{name} asked for: only {images} training images there"
    return _evaluated(replace(config, models=folder / "models", output=folder), group, name, images)


def build_models(config: EvaluationConfig, category: str, folder: Path, count: int) -> Any:
    """Builds one category's model from ``count`` images of the split ``trn`` (0: all), evenly spread; returns their number.

    With the settings that the model of the evaluation was built with, and sources as ``semalign3d build`` chooses them where the evaluation
    has none.
    """
    from semalign3d_core.calibration.recipe import build_one, config_of
    from semalign3d_core.evaluation.run.methods import build_options, model_of

    options = build_options(config, folder, count)
    return len(build_one(options, category, config_of(model_of(config, category))).report["images"])


def _evaluated(config, group, name, images=0):
    print(f"{name}:")
    return Row(group, name, evaluate(replace(config, gallery=0)).results, images=images)


def _folder(config, name):
    """The output folder of a row; the cache of the main evaluation is used by all of them."""
    return config.output / "ablation" / re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _plain(row):
    scores = None if row.results is None else {key: row.results[key] for key in ("all", "per_category")}
    return {"group": row.group, "name": row.name, "images": row.images, "problem": row.problem, "results": scores}


def _csv(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "category", "alpha", "pck_per_image", "pck_per_point"])
    for row in rows:
        for category, entry in (row.results or {"per_category": {}})["per_category"].items():
            for alpha, scores in entry["pck"].items():
                writer.writerow([row.name, category, alpha, scores["per_image"], scores["per_point"]])
        for alpha, scores in (row.results or {"all": {"pck": {}}})["all"]["pck"].items():
            writer.writerow([row.name, "mean of categories", alpha, scores["mean_of_categories"], scores["mean_of_categories_per_point"]])
            writer.writerow([row.name, "weighted by pairs", alpha, scores["pair_weighted"], scores["per_point"]])
    return text.getvalue()


def sections(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(title, HTML) of the ablation table with its bars, and of the curve over the number of training images."""
    assert rows[0].results is not None  # the evaluation itself
    alpha, found = main_alpha(rows[0].results["all"]["pck"]), []
    parts = [row for row in rows if row.group in ("terms", "backbone")]
    if len(parts) > 1:
        bars = {row.name: _total(row, alpha) for row in parts if row.results}
        chart = bar_chart(bars, f"PCK@{alpha} per image, mean of categories (%)")
        found.append(("Ablation", FAST_SOLVER_NOTE + _score_table(parts, alpha) + chart + _published_table()))
    counts = [row for row in rows if row.group == "training images"]
    if counts:
        found.append(("Number of training images", _score_table([rows[0], *counts], alpha) + _curve(counts)))
    return found


def _score_table(rows, alpha):
    """Scores per image of the categories at ``alpha``, and over all at every threshold."""
    categories, alphas = list(rows[0].results["per_category"]), list(rows[0].results["all"]["pck"])
    columns = [(f"PCK@{alpha}", name) for name in (*categories, "weighted by pairs", "mean of cat.", "difference")]
    others = [a for a in sorted(alphas, key=float, reverse=True) if a != alpha]
    lines, reference = [], _total(rows[0], alpha)
    for row in rows:
        if row.results is None:
            lines.append([f"{row.name}: {row.problem}", *[None] * (len(columns) + len(others))])
            continue
        scores = [row.results["per_category"][c]["pck"][alpha]["per_image"] for c in categories]
        total = _total(row, alpha)
        difference = None if None in (total, reference) else total - reference
        weighted = row.results["all"]["pck"][alpha].get("pair_weighted")
        lines.append([row.name, *scores, weighted, total, difference, *(_total(row, a) for a in others)])
    text = note("Per image; the same images, models and settings but for what the row names.")
    return text + table(["", *columns, *((f"PCK@{a}", "mean of cat.") for a in others)], lines, ours={0})


def _published_table():
    rows = published_ablation()
    categories = list(rows[0][1])
    return PUBLISHED_NOTE + table(["", *categories], [[name, *(scores[c] for c in categories)] for name, scores in rows])


def _curve(rows):
    """PCK over the number of training images, one line per threshold."""
    rows = [row for row in rows if row.results]
    alphas = list(rows[0].results["all"]["pck"]) if rows else []
    series = {f"PCK@{a}": [(row.images, _total(row, a)) for row in rows] for a in sorted(alphas, key=float, reverse=True)}
    return line_chart(series, "training images per category", "PCK per image, mean of categories (%)")


def _total(row, alpha):
    return row.results["all"]["pck"][alpha]["mean_of_categories"]
