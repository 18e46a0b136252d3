from pathlib import Path

import numpy as np
import pytest
from published.metrics import column_flip_permutation

from semalign3d_core.datasets.tables import (
    AP10K_KEYPOINTS,
    GEOMETRY_GROUPS,
    MIRROR_PAIRS,
    SPAIR_CATEGORIES,
    flip_permutation,
    used_labels,
)

VECTORS = Path(__file__).resolve().parents[1] / "data" / "vectors"


def test_mirror_table_is_that_of_the_published_flip_index():
    published = np.load(VECTORS / "semalign3d" / "spair_flip_index.npz")["flip"]
    for category, expected in zip(SPAIR_CATEGORIES, published, strict=True):
        ours = np.array(flip_permutation(category, 30))
        used = np.isin(np.arange(30), used_labels(category))
        assert (np.where(used, ours, -1) == expected).all(), category


@pytest.mark.parametrize("category", [*SPAIR_CATEGORIES, "ap10k"])
def test_tables_are_consistent(category):
    flip = flip_permutation(category)
    assert [flip[flip[k]] for k in range(len(flip))] == list(range(len(flip)))
    used = set(used_labels(category))
    grouped = [label for group in GEOMETRY_GROUPS[category] for label in group]
    assert len(grouped) == len(set(grouped)) and set(grouped) <= used
    assert {label for pair in MIRROR_PAIRS[category] for label in pair} <= used


def test_names_of_animal_keypoints_agree_with_the_mirror_table():
    for name, mirrored in zip(AP10K_KEYPOINTS, flip_permutation("ap10k"), strict=True):
        swapped = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert AP10K_KEYPOINTS[mirrored] == swapped


def test_columns_follow_the_labels_that_are_kept():
    assert column_flip_permutation("bus")[10] == 20 and flip_permutation("bus")[12] == 22
    assert column_flip_permutation("cat", used=[0, 2, 3]) == [0, 2, 1], "a label whose partner is dropped stays"
    assert flip_permutation("dog", visible=[1, 1, 1, 0] + [0] * 12)[:4] == [1, 0, 2, 3]
