"""The published results that a report stands beside: the tables ``assets/published_*.csv``."""

import csv
from dataclasses import dataclass
from importlib import resources

AVERAGING = {
    "per_image": "per image",
    "per_point": "per point",
    "mean_of_categories": "mean of categories",
    "pair_weighted": "weighted by pairs",
    "not stated": "not stated",
}


@dataclass(frozen=True)
class PublishedResult:
    """One row of a published table, in percent.

    averaging: how a category's number is averaged;  all_averaging: how ``all`` is averaged over categories or points
    per_category: {category: PCK}, empty where only the total was published
    """

    method: str
    supervision: str
    alpha: float
    averaging: str
    all_averaging: str
    per_category: dict
    all: float


def published_results(kind: str = "spair", split: str = "test", metric: str = "pck") -> list[PublishedResult]:
    """All published rows of a metric (``pck``, ``pck_dagger``, ``kap``, ``geometry_aware``) on a kind of data set and a split."""
    rows = _rows("published_elsewhere.csv")
    if (kind, split, metric) == ("spair", "test", "pck"):
        return [_result(row) for row in _rows("published_results.csv")]
    return [_result(row) for row in rows if (row.pop("kind"), row.pop("split"), row.pop("metric")) == (kind, split, metric)]


def published_ablation() -> list[tuple[str, dict[str, float]]]:
    """[(row, {category: PCK@0.1 per image})] of the paper's Table 4."""
    return [(row.pop("row"), {category: float(value) for category, value in row.items()}) for row in _rows("published_ablation.csv")]


def _rows(name):
    text = resources.files("semalign3d_core").joinpath(f"assets/{name}").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _result(row):
    fixed = {key: row.pop(key) for key in ("method", "supervision", "alpha", "averaging", "all_averaging", "all")}
    scores = {category: float(value) for category, value in row.items() if value}
    return PublishedResult(**fixed | {"alpha": float(fixed["alpha"]), "all": float(fixed["all"]), "per_category": scores})
