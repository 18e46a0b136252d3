"""The report of a mask transfer: tables, and pictures of the best and worst pairs."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from semalign3d_core.evaluation.masks.transfer import METRICS, transferred_mask
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.pages.html import details, note, page, section, table, tiles, warning
from semalign3d_core.pages.page import picture_url
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_core.runtime.files import write_text

PUBLISHED = (("SFNet (CVPR 2019), Caltech-101", 0.88, 0.67),)
HEIGHT = 170
COLOURS = {"both": (25, 176, 91), "transferred only": (229, 56, 59), "missed": (30, 110, 240)}


def write_report(evaluation: Evaluation, sections: Sequence[tuple[str, str]] = ()) -> Path:
    """Writes ``report.html`` into the output folder and returns its path."""
    results, config = evaluation.results, evaluation.config
    shown = {"data": f"{config.dataset} ({results['config']['kind']}), split {config.split}", "features": config.backbone}
    parts = [
        f"<h1>{escape(results['method'])}</h1>",
        note("; ".join(f"{name}: {escape(value)}" for name, value in shown.items())),
        _tiles(results),
        warning(results),
        section("Mask transfer per category", _category_table(results)),
        section("Beside published results", _published_table(results)),
        *_galleries(evaluation),
        section("Details", details(results)),
    ]
    path = config.output / "report.html"
    write_text(path, page(f"{results['method']} on {config.dataset}", "\n".join(parts)))
    return path


def _tiles(results):
    total = results["all"]
    found = []
    for metric, name in METRICS.items():
        mean, weighted = (_share(total[metric][kind]) for kind in ("mean_of_categories", "pair_weighted"))
        found.append((f"{name}, mean of categories", mean, f"{weighted} over all pairs"))
    counts = f"{len(results['per_category'])} categories<br>{total['skipped']} pairs skipped, {total['undefined_iou']} without IoU"
    return tiles([*found, ("pairs", str(total["pairs"]), counts)])


def _share(value):
    return None if value is None else f"{value:.3f}"


def _category_table(results):
    rows = [[name, e["pairs"], e["skipped"], *(_share(e[metric]) for metric in METRICS)] for name, e in results["per_category"].items()]
    total = results["all"]
    for name in ("mean_of_categories", "pair_weighted"):
        label = f"all: {name.replace('_', ' ')}"
        rows.append([label, total["pairs"], total["skipped"], *(_share(total[metric][name]) for metric in METRICS)])
    return table(["", "pairs", "skipped", *METRICS.values()], rows, ours={len(rows) - 2, len(rows) - 1})


def _published_table(results):
    rows = [[name, "mean over pairs", *map(_share, scores)] for name, *scores in PUBLISHED]
    for name in ("mean_of_categories", "pair_weighted"):
        rows.append([f"this: {results['method']}", name.replace("_", " "), *(_share(results["all"][metric][name]) for metric in METRICS)])
    return table(["method", "average", *METRICS.values()], rows, ours=range(len(PUBLISHED), len(rows)))


def _galleries(evaluation):
    count = evaluation.config.gallery
    ranked = sorted((s for s in evaluation.scores if not s.problem and np.isfinite(s.iou)), key=lambda s: (-s.iou, s.pair.name))
    half = min(count, (len(ranked) + 1) // 2)
    text = "Left the source with its mask, right the target: green where the transferred mask and the target's agree, "
    text = note(f"{text}red where only the transferred one is, blue where only the target's own is.")
    found = []
    for title, chosen in (("Best pairs", ranked[:half]), ("Worst pairs", ranked[::-1][: min(count, len(ranked) - half)])):
        if count:
            figures = "\n".join(_figure(evaluation.dataset, entry) for entry in chosen)
            found.append(section(title, f'{text}<div class="gallery">{figures}</div>' if figures else note("none")))
    return found


def _figure(dataset, entry):
    name = f"{escape(entry.pair.name)}: LT-ACC {entry.lt_acc:.3f}, IoU {entry.iou:.3f}"
    target, source = entry.pair.record.source, entry.pair.record.target
    try:
        carried, truth = transferred_mask(dataset, entry.pair, entry.points)
        warped = carried.numpy() > 0.5
        pictures = [
            _tinted(source, {"both": dataset.mask(source)}),
            _tinted(target, {"both": warped & truth, "transferred only": warped & ~truth, "missed": truth & ~warped}),
        ]
    except SemAlign3DError as error:
        return f"<figure><figcaption>{name}: {escape(str(error))}</figcaption></figure>"
    images = "".join(f'<img src="{picture}" height="{HEIGHT}" alt=""> ' for picture in pictures)
    return f"<figure>{images}<figcaption>{name}</figcaption></figure>"


def _tinted(record, masks):
    """The record's picture, coloured where masks are, as a ``data:`` address."""
    rgb = read_image(record.path, record).rgb.astype(np.float32)
    for name, mask in masks.items():
        rgb[mask] = 0.5 * rgb[mask] + 0.5 * np.array(COLOURS[name])
    return picture_url(rgb.astype(np.uint8), longer_side=2 * HEIGHT)
