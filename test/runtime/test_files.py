"""Files that several threads read."""

import time

import numpy as np
import pytest

from semalign3d_core.runtime import files
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.threads import in_parallel


def test_archives_are_read_one_at_a_time(tmp_path, monkeypatch):
    path, load, readers = tmp_path / "depth.npz", np.load, []
    np.savez(path, depth=np.arange(6.0).reshape(2, 3), kind="disparity")

    def told(*args, **options):
        readers.append(+1)
        time.sleep(0.005)
        stored = load(*args, **options)
        readers.append(-1)
        return stored

    monkeypatch.setattr(np, "load", told)
    for found in in_parallel(lambda _: files.read_arrays(path), range(12), 4):
        assert set(found) == {"depth", "kind"} and str(found["kind"]) == "disparity"
        np.testing.assert_array_equal(found["depth"], [[0, 1, 2], [3, 4, 5]])
    assert np.cumsum(readers).max() == 1 and len(readers) == 24


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(FileFormatError, match="pickle"):
        files.read_arrays(tmp_path / "a.npz")
