"""Choosing pairs of a split by category."""

from semalign3d_core.runtime.errors import InputError


def category_of(pair_name):
    """The category of a pair: what stands behind the last colon of its name."""
    return pair_name.rpartition(":")[2]


def check_categories(wanted, known, where):
    """Raises :class:`InputError` for the first of ``wanted`` (None: no wish) that is not ``known``."""
    for category in wanted or ():
        if category not in known:
            raise InputError(f"unknown category {category!r}: {where} has {', '.join(known)}")


def selected_pairs(dataset, split, layout, categories):
    """The pairs of a data set in its order, read one after the other; unknown categories and splits raise at once."""
    if isinstance(categories, str):
        categories = (categories,)
    check_categories(categories, dataset.categories(), dataset.root)
    names = dataset.pair_names(split, layout)
    wanted = None if categories is None else set(categories)
    return (dataset.pair(split, name, category_of(name)) for name in names if wanted is None or category_of(name) in wanted)
