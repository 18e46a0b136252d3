"""The published results that a report stands beside (``assets/published_results.csv``)."""

import csv
from dataclasses import dataclass
from importlib import resources

AVERAGING = {
    "per_image": "per image",
    "per_point": "per point (pooled)",
    "mean_of_categories": "mean of categories",
    "pair_weighted": "weighted by pairs",
    "not stated": "not stated",
}


@dataclass(frozen=True)
class PublishedResult:
    """One row of a published SPair-71k table, PCK in percent.

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


def published_results():
    """All rows of the file, in its order."""
    text = resources.files("semalign3d_core").joinpath("assets/published_results.csv").read_text(encoding="utf-8")
    fixed = ("method", "supervision", "alpha", "averaging", "all_averaging", "all")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        scores = {category: float(value) for category, value in row.items() if category not in fixed and value}
        rows.append(
            PublishedResult(
                row["method"], row["supervision"], float(row["alpha"]), row["averaging"], row["all_averaging"], scores, float(row["all"])
            )
        )
    return rows
