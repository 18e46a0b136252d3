"""The cache on disk: content-addressed, atomic, damage noticed, safe with several processes."""

import numpy as np
import pytest
import torch

from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.processes import in_processes


def entry(value=1.0):
    return {"kind": "disparity"}, {"depth": torch.full((3, 4), value).half()}


def test_second_fetch_reads_what_the_first_computed(tmp_path):
    first, second = Cache(tmp_path), Cache(tmp_path)
    a = first.fetch("depth", {"image": "x"}, entry)
    b = second.fetch("depth", {"image": "x"}, lambda: pytest.fail("computed again"))
    assert a[0] == b[0] == {"kind": "disparity"} and torch.equal(a[1]["depth"], b[1]["depth"])
    assert first.counts == {"depth_computed": 1} and second.counts == {"depth_hits": 1}


@pytest.mark.parametrize("change", [{"image": "y"}, {"image": "x", "model": "m"}])
def test_other_dependencies_are_other_entries(tmp_path, change):
    cache = Cache(tmp_path)
    cache.fetch("depth", {"image": "x"}, entry)
    assert cache.fetch("depth", change, lambda: entry(2.0))[1]["depth"][0, 0] == 2
    assert cache.fetch("masks", {"image": "x"}, lambda: entry(3.0))[1]["depth"][0, 0] == 3


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign"])
def test_damaged_entry_is_counted_and_computed_again(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.fetch("depth", {"image": "x"}, entry)
    path = cache.path("depth", {"image": "x"})
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes({"truncated": content[:-5], "empty": b"", "flipped": content, "foreign": b"not a tensor file at all"}[damage])
    again = cache.fetch("depth", {"image": "x"}, entry)
    assert torch.equal(again[1]["depth"], entry()[1]["depth"])
    assert cache.counts == {"depth_computed": 2, "damaged": 1}
    assert Cache(tmp_path).fetch("depth", {"image": "x"}, lambda: pytest.fail("not repaired"))


def test_failed_computation_leaves_nothing(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cache.fetch("depth", {"image": "x"}, lambda: 1 / 0)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        Cache(tmp_path / "file" / "cache").fetch("depth", {"image": "x"}, entry)


def hammer(root):
    cache, total = Cache(root), 0.0
    for index in range(40):
        value = float(index % 5)
        total += float(cache.fetch("depth", {"index": index % 5}, lambda value=value: entry(value))[1]["depth"].sum())
    return total, dict(cache.counts)


def test_processes_share_a_folder_without_damage(tmp_path):
    found = list(in_processes(hammer, [tmp_path] * 4, 4))
    assert len({total for total, _ in found}) == 1
    assert not any("damaged" in counts for _, counts in found)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 5 == len([p for p in tmp_path.rglob("*") if p.is_file()])


def test_half_precision_survives(tmp_path):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 6, 6))).half()
    stored = Cache(tmp_path).fetch("features", {}, lambda: ({}, {"features": values}))[1]["features"]
    assert stored.dtype == torch.float16 and torch.equal(stored, values)
