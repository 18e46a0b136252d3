"""An entry of the cache is used only if it is what was asked for."""

import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from semalign3d_core.runtime.cache import Cache


def _fetch(cache, number):
    _, tensors = cache.fetch("features", {"image": number}, lambda: ({"n": number}, {"x": torch.full((3,), float(number))}))
    return float(tensors["x"][0])


def test_an_entry_under_another_name_is_not_believed(tmp_path):
    cache = Cache(tmp_path)
    assert [_fetch(cache, n) for n in (1, 2)] == [1, 2]
    shutil.copyfile(cache.path("features", {"image": 1}), cache.path("features", {"image": 2}))
    assert _fetch(cache, 2) == 2 and cache.counts["damaged"] == 1
    assert _fetch(Cache(tmp_path), 2) == 2  # it was replaced


@pytest.mark.parametrize("kind", ["bfloat16", "folder", "pipe", "text", "other header"])
def test_anything_else_in_its_place_is_computed_again_and_counted(tmp_path, kind):
    cache = Cache(tmp_path)
    path = cache.path("features", {"image": 1})
    _fetch(cache, 1)
    path.unlink()
    if kind == "bfloat16":
        save_file({"x": torch.zeros(3, dtype=torch.bfloat16)}, path, {"structure": "{}", "hash": "x", "key": path.stem})
    elif kind == "other header":
        save_file({"x": torch.zeros(3)}, path, {"structure": "[" * 100_000})
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("no tensors")
    assert _fetch(cache, 1) == 1 and cache.counts["damaged"] == 1
