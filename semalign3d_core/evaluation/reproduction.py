"""The paper's Table 1 from nothing: models of all categories, every method, and a table with intervals beside the published numbers."""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semalign3d_core.calibration.recipe import BuildOptions, build_one, training_providers, training_records
from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.records import category_of
from semalign3d_core.evaluation.keypoints.results import csv_text
from semalign3d_core.evaluation.report.published import published_results
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.engine import ENGINES
from semalign3d_core.evaluation.run.methods import build_options
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.pages.html import note, page, table
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.perception.look import features_and_mask
from semalign3d_core.perception.providers import ProviderOptions
from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_core.runtime.files import read_json, write_json, write_text

METHODS = ("nearest_neighbour", "semalign3d", "nearest_neighbour_keypoints", "semalign3d_keypoints")
ALPHA = 0.1  # of the paper's Table 1
QUICK_IMAGES, QUICK_PAIRS = 20, 25  # per category
BYTES_PER_CHANNEL = 7200  # of the features of an image in the cache, 60 x 60 cells in half precision
LOOKS_AT_TRAINING_IMAGES = 4  # the image and its mirror image in the build, and again in the calibration as far as it looks closer
SECONDS_PER_MODEL, SECONDS_PER_PAIR = 90.0, 0.02  # without looking at images; one thread


@dataclass(frozen=True)
class Plan:
    """What is to be reproduced, and where. Fields as the options of ``semalign3d reproduce``."""

    dataset: Path
    output: Path
    providers: ProviderOptions
    quick: bool = False
    preset: str = "em"
    engine: str = "local"
    workers: int = 1

    @property
    def cache(self) -> Path:
        """Shared by all builds and evaluations."""
        return self.output / "cache"


def estimate(plan: Plan) -> Iterator[str]:
    """Lines about time and disk: one training image is looked at now, the rest follows from the counts."""
    dataset = open_dataset(plan.dataset)
    categories = dataset.categories()
    options = _build_options(plan)
    record = training_records(dataset, categories[0], "trn", 1)[0]
    providers, started = training_providers(replace(options, cache=None), categories[0]), time.perf_counter()
    image = read_image(record.path, record)
    found, _ = features_and_mask(image, providers.backbone, providers.segmenter, record.box)  # type: ignore[arg-type]
    if providers.depth is not None:
        providers.depth.estimate(image)
    look = time.perf_counter() - started
    training = sum(len(training_records(dataset, category, "trn", options.max_images)) for category in categories)
    pairs = dataset.pair_names("test")
    count = min(len(pairs), QUICK_PAIRS * len(categories)) if plan.quick else len(pairs)
    testing = min(len({name for pair in pairs for name in pair.partition(":")[0].split("-")[1:]}), 2 * count)
    seconds = look * (LOOKS_AT_TRAINING_IMAGES * training + testing) + len(categories) * SECONDS_PER_MODEL
    seconds = (seconds + len(METHODS) * count * SECONDS_PER_PAIR) / plan.workers
    channels = int(found.values.shape[0])
    disk = (2 * training + testing) * (BYTES_PER_CHANNEL * channels + 400_000) / 1e9
    yield f"{len(categories)} categories, {training} training images, {testing} test images, {count} pairs, {len(METHODS)} methods"
    yield f"one look takes {look:.2f} s here: about {_duration(seconds)} with {plan.workers} workers, and {disk:.1f} GB in {plan.cache}"


def _duration(seconds):
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(seconds / 60, 1):.0f} min"


def reproduce(plan: Plan) -> dict[str, Any]:
    """Builds what is missing, evaluates all methods, writes table1.json, table1.csv and table1.html; returns the content of the first."""
    categories = open_dataset(plan.dataset).categories()
    failures = {}
    device = str(choose_device(plan.providers.device))
    with ENGINES[plan.engine](plan.workers, 2, device) as engine:
        for index, problem in engine.run(functools.partial(build_if_missing, _build_options(plan)), categories):
            if problem:
                failures[categories[index]] = problem
                print(f"{categories[index]}: not built: {problem}")
    built = tuple(category for category in categories if category not in failures)
    if not built:
        raise SemAlign3DError("no model could be built; the reasons are above")
    results = {method: evaluate(_evaluation(plan, method, built)).results for method in METHODS}
    content: dict[str, Any] = {"table": _table(results), "failures": failures, "quick": plan.quick, "dataset": str(plan.dataset)}
    write_json(plan.output / "table1.json", content)
    write_text(plan.output / "table1.csv", _csv(content["table"]))
    write_text(plan.output / "table1.html", _page(content))
    return content


def with_models(config: EvaluationConfig) -> EvaluationConfig:
    """The configuration with a folder of models in which none is missing: those that are not there are built, with the evaluation's cache.

    Raises :class:`SemAlign3DError` for the first that cannot be built.
    """
    folder = config.models or config.output / "models"
    options = build_options(config, folder)
    categories = config.categories
    if not categories:  # those of the split: other splits of AP-10K have models of families or of all animals
        categories = tuple(sorted({*map(category_of, open_dataset(config.dataset, config.kind).pair_names(config.split, config.layout))}))
    for category in categories:
        if not (folder / f"{category}.safetensors").is_file():
            print(f"{category}: building its model", flush=True)
            build_one(options, category)
    return replace(config, models=folder, build=False)


def _build_options(plan: Plan) -> BuildOptions:
    chosen = {name: getattr(plan.providers, name) for name in ("backbone", "depth", "masks", "device")}
    limit = QUICK_IMAGES if plan.quick else 0
    return BuildOptions(
        dataset=plan.dataset, output=plan.output / "models", cache=plan.cache, preset=plan.preset, max_images=limit, **chosen
    )


def build_if_missing(options: BuildOptions, category: str) -> str:
    """Builds a category unless that was done with the same options; why it could not be built, or "" (for any process of an engine)."""
    recipe = {name: str(value) for name, value in vars(options).items() if name != "category"}
    path = options.output / f"{category}.recipe.json"
    if path.is_file() and read_json(path) == recipe and (options.output / f"{category}.safetensors").is_file():
        return ""
    try:
        build_one(options, category)
    except SemAlign3DError as error:
        return str(error)
    write_json(path, recipe, ours=True)
    return ""


def _evaluation(plan: Plan, method: str, categories: tuple[str, ...]) -> EvaluationConfig:
    chosen = {name: getattr(plan.providers, name) for name in ("backbone", "depth", "masks", "device")}
    return EvaluationConfig(
        plan.dataset,
        plan.output / method,
        categories=categories,
        models=plan.output / "models",
        method=method,
        cache=plan.cache,
        limit=QUICK_PAIRS if plan.quick else None,
        on_bad_input="skip",
        gallery=0,
        engine=plan.engine,  # type: ignore[arg-type]
        workers=plan.workers,
        **chosen,
    )


def _table(results: dict[str, dict]) -> list[dict[str, Any]]:
    """Rows: published ones that average per image, then ours with intervals."""
    categories = list(next(iter(results.values()))["per_category"])
    rows = [
        {
            "method": row.method,
            "published": True,
            "told": "",
            "all": row.all,
            "per_category": {c: row.per_category.get(c) for c in categories},
        }
        for row in published_results()
        if row.alpha == ALPHA and row.averaging == "per_image"
    ]
    key = f"{ALPHA:g}"
    for method, found in results.items():
        scores = {c: entry["pck"][key]["per_image"] for c, entry in found["per_category"].items()}
        ends = {c: entry["intervals"]["pck"][key]["per_image"] for c, entry in found["per_category"].items()}
        total, around = (found["all"]["pck"], found["all"]["intervals"]["pck"])
        rows.append({
            "method": method, "published": False, "told": found["protocol"]["queries"], "all": total[key]["mean_of_categories"],
            "interval": around[key]["mean_of_categories"], "per_category": scores, "intervals": ends,
        })  # fmt: skip
    return rows


def _cells(row: dict[str, Any], categories: Sequence[str]) -> list[str]:
    ends = [row.get("interval"), *(row.get("intervals", {}).get(category) for category in categories)]
    values = [row["all"], *(row["per_category"][category] for category in categories)]
    return ["" if v is None else f"{v:.1f}" + (f" [{e[0]:.1f}, {e[1]:.1f}]" if e else "") for v, e in zip(values, ends, strict=True)]


def _csv(rows: list[dict[str, Any]]) -> str:
    categories = list(rows[-1]["per_category"])
    return csv_text(("method", "published", "all", *categories), [(r["method"], r["published"], *_cells(r, categories)) for r in rows])


def _page(content: dict[str, Any]) -> str:
    rows, categories = content["table"], list(content["table"][-1]["per_category"])
    lines = [[("published: " if row["published"] else "this: ") + row["method"], *_cells(row, categories)] for row in rows]
    ours = [index for index, row in enumerate(rows) if not row["published"]]
    text = f"PCK@{ALPHA:g} per image, mean of categories; in brackets the 95 % interval (bootstrap over images). "
    text += "Methods named ..._keypoints know that queries are keypoints."
    quick = note("<b>Quick: fewer training images and pairs than the paper; not comparable.</b>") if content["quick"] else ""
    return page("Table 1", f"<h1>Table 1</h1>{note(text)}{quick}" + table(["method", "all", *categories], lines, ours=ours))


def terminal_table(content: dict[str, Any]) -> str:
    """The totals, published and ours."""
    lines = [
        f"PCK@{ALPHA:g} per image, mean of categories" + (" (quick: not comparable with published numbers)" if content["quick"] else "")
    ]
    for row in content["table"]:
        ends = f" [{row['interval'][0]:.1f}, {row['interval'][1]:.1f}]" if row.get("interval") else ""
        lines.append(f"  {row['method']:34s} {row['all']:5.1f}{ends}{'  (published)' if row['published'] else ''}")
    return "\n".join(lines)
