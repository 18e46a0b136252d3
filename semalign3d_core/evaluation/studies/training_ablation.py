"""What the parts of GeoAware-SC's training bring: the ablation of its Table 5, each row with a network of its own.

The rows add one part after another: the dense loss, the pose variants, perturbation and dropout, reading positions in a window, and
pre-training on AP-10K. Networks are trained on the split ``trn`` in ``<output>/training_ablation/<row>`` and go on where they stopped.
"""

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semalign3d_core.evaluation.report.tables import main_alpha
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.evaluation.studies.training_validation import validation_on
from semalign3d_core.learned.geoaware.losses import LossConfig
from semalign3d_core.learned.geoaware.network import save_network
from semalign3d_core.learned.geoaware.train import GeoAwareTraining, train_geoaware
from semalign3d_core.pages.charts import bar_chart
from semalign3d_core.pages.html import note, table
from semalign3d_core.runtime.config import from_dict
from semalign3d_core.runtime.files import read_yaml, write_json, write_text

ARG_MAX, WINDOW = "nearest_neighbour", "window_soft_argmax"
SPARSE = LossConfig(dense=False, variants=False, noise=0.0)
# row -> (losses, with dropout, how positions are read); each has all that the one before has
ROWS = {
    "sparse contrastive loss": (SPARSE, False, ARG_MAX),
    "+ dense loss": (replace(SPARSE, dense=True), False, ARG_MAX),
    "+ pose variants": (replace(SPARSE, dense=True, variants=True), False, ARG_MAX),
    "+ perturbation and dropout": (LossConfig(), True, ARG_MAX),
    "+ window soft arg-max": (LossConfig(), True, WINDOW),
}
PRETRAINED = "+ AP-10K pre-training"


@dataclass(frozen=True)
class Row:
    """A row of the study and its dictionary of results.json."""

    name: str
    results: dict


def run_training_ablation(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Trains and evaluates the rows for a finished evaluation's configuration; returns (title, HTML) sections for its report.

    Writes ``training_ablation.json`` and ``training_ablation.csv`` beside the other results.
    """
    config = replace(evaluation.config, cache=evaluation.config.cache_folder, predictions=None, gallery=0)
    settings = training_settings(config.training)
    rows = [Row("features without training", _evaluated(config, "zero shot", config.backbone, ARG_MAX))]
    for name, (losses, dropout, readout) in ROWS.items():
        network = _trained(config, settings, losses, dropout, config.dataset, None, evaluation.categories)
        rows.append(Row(name, _evaluated(config, name, f"geoaware:{network}", readout)))
    if config.pretraining is not None:
        first = replace(settings, epochs=None, schedule=None)
        initial = _trained(config, first, LossConfig(), True, config.pretraining, None, ())
        network = _trained(config, settings, LossConfig(), True, config.dataset, initial, evaluation.categories)
        rows.append(Row(PRETRAINED, _evaluated(config, PRETRAINED, f"geoaware:{network}", WINDOW)))
    entries = [{"name": row.name, "results": {key: row.results[key] for key in ("all", "per_category")}} for row in rows]
    write_json(config.output / "training_ablation.json", entries)
    write_text(config.output / "training_ablation.csv", _csv(rows))
    print(terminal_text(rows))
    return [("Ablation of the training", _table(rows) + _chart(rows))]


def training_settings(path: Path | None) -> GeoAwareTraining:
    """The :class:`GeoAwareTraining` of a YAML file; None: its defaults."""
    if path is None:
        return GeoAwareTraining()
    values = read_yaml(path, "it holds settings of the training, as semalign3d train geoaware has them")
    return from_dict(GeoAwareTraining, values or {}, str(path))


def _trained(config, settings, losses, dropout, dataset, initial, categories):
    """The file of a network that was trained with these parts; rows that share it train it once."""
    settings = replace(settings, losses=losses, dropout=settings.dropout if dropout else 0.0)
    parts = [name for name, on in (("dense", losses.dense), ("variants", losses.variants), ("dropout", dropout)) if on]
    parts += ["pretraining"] * (dataset != config.dataset) + ["pretrained"] * (initial is not None)
    folder = config.output / "training_ablation" / ("_".join(parts) or "sparse")
    path = (folder / "network.safetensors").absolute()
    if not path.is_file():
        network = train_geoaware(
            dataset,
            settings,
            folder,
            config.backbone,
            config.masks,
            tuple(categories),
            initial,
            config.cache / "geoaware",
            validation_on("val"),
            kind=config.kind if dataset == config.dataset else None,
            device=config.device,
        )
        save_network(network, path, {"backbone": config.backbone})
    return path


def _evaluated(config, name, backbone, method):
    print(f"{name}:")
    folder = config.output / "training_ablation" / "rows" / re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    window = config.window if method == WINDOW else None
    return evaluate(replace(config, backbone=backbone, method=method, window=window, output=folder)).results


def _scores(row, alpha):
    """(standard set, geometry-aware subset) per image, weighted by pairs, of a row."""
    total = row.results["all"]
    subset = total["geometry_aware"]
    return total["pck"][alpha]["pair_weighted"], subset["pck"][alpha]["pair_weighted"] if subset["pairs"] else None


def _alphas(rows):
    return sorted(rows[0].results["all"]["pck"], key=float)


def _table(rows):
    alphas = _alphas(rows)
    columns = [(kind, f"@{a}") for kind in ("standard set", "geometry-aware subset") for a in alphas]
    lines = [[row.name, *(_scores(row, a)[part] for part in (0, 1) for a in alphas)] for row in rows]
    return note("PCK per image, weighted by pairs; each row has all parts of those above it.") + table(["", *columns], lines)


def _chart(rows):
    alpha = main_alpha(_alphas(rows))
    bars = {row.name: _scores(row, alpha)[1] for row in rows}
    return bar_chart(bars, f"geometry-aware PCK@{alpha} per image (%)")


def terminal_text(rows: Any) -> str:
    """The table for the terminal."""
    alphas = _alphas(rows)
    lines = [f"{'PCK, standard / geometry-aware':32s} " + " ".join(f"{'@' + a:>15s}" for a in alphas)]
    for row in rows:
        cells = (" /".join("-" if value is None else f"{value:6.2f}" for value in _scores(row, alpha)) for alpha in alphas)
        lines.append(f"{row.name:32s} " + " ".join(f"{cell:>15s}" for cell in cells))
    return "\n".join(lines)


def _csv(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "alpha", "standard", "geometry_aware"])
    writer.writerows([row.name, alpha, *_scores(row, alpha)] for row in rows for alpha in _alphas(rows))
    return text.getvalue()
