"""Choosing pairs of a split by category."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from semalign3d_core.datasets.records import Dataset, PairRecord
from semalign3d_core.runtime.errors import InputError


def category_of(pair_name: str) -> str:
    """The category of a pair: what stands behind the last colon of its name."""
    return pair_name.rpartition(":")[2]


def check_categories(wanted: Sequence[str] | None, known: Sequence[str], where: Path) -> None:
    """Raises :class:`InputError` for the first of ``wanted`` (None: no wish) that is not ``known``."""
    for category in wanted or ():
        if category not in known:
            raise InputError(f"unknown category {category!r}: {where} has {', '.join(known)}")


def selected_pairs(dataset: Dataset, split: str, layout: str, categories: Sequence[str] | None) -> Iterator[PairRecord]:
    """The pairs of a data set in its order, read one after the other; unknown categories and splits raise at once."""
    if isinstance(categories, str):
        categories = (categories,)
    check_categories(categories, dataset.categories(), dataset.root)
    names = dataset.pair_names(split, layout)
    wanted = None if categories is None else set(categories)
    return (dataset.pair(split, name, category_of(name)) for name in names if wanted is None or category_of(name) in wanted)
