"""Damaged files of every kind are read or refused, with the product's own errors; ``bench/fuzz.py`` does it a hundred thousand times."""

import pytest
from fuzz import crashes, fuzz, sound_files

KINDS = (
    *("picture jpg", "picture png", "picture webp", "picture tif", "picture bmp", "picture bytes", "mask", "depth", "sensor depth"),
    *("features", "annotation", "pair", "keypoints.json", "grid.json", "coco", "table json", "table csv", "boxes", "predictions"),
    *("preset", "demonstration", "model", "model, signed", "checkpoint", "state"),
)


def test_every_kind_is_tried(tmp_path):
    assert set(sound_files(tmp_path)) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind):
    results = fuzz(2000 // len(KINDS), seed=1, kinds=[kind])
    assert not crashes(results), crashes(results)
