"""Values of the package survive the cache; nothing else is accepted."""

import numpy as np
import pytest
import torch

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.evidence import DepthMap, FeatureMap
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.packing import pack, unpack


def test_round_trip_of_nested_values():
    camera = PinholeCamera.centred(1.3, 40, 60)
    value = {"camera": camera, "numbers": (1, 0.1, float("nan"), None, True, "a"), "list": [np.arange(3), torch.ones(2, dtype=torch.bool)]}
    found = unpack(*pack(value))
    assert found["camera"].height == 40 and torch.equal(found["camera"].focal, camera.focal)
    assert found["numbers"][:2] == (1, 0.1) and np.isnan(found["numbers"][2]) and found["numbers"][3:] == (None, True, "a")
    assert isinstance(found["list"][0], np.ndarray) and found["list"][0].tolist() == [0, 1, 2] and found["list"][1].dtype == torch.bool


def test_known_values_are_stored_by_name_only():
    features = FeatureMap(torch.ones(2, 3, 3), SquareGrid(5, 5, 3))
    structure, tensors = pack({"features": features, "depth": DepthMap(torch.ones(2, 2), "depth")}, {"features": features})
    assert [t.shape for t in tensors.values()] == [(2, 2)]
    assert unpack(structure, tensors, {"features": features})["features"] is features


def test_what_is_not_ours_is_refused():
    with pytest.raises(InputError, match="function"):
        pack({"call": lambda: 0})
    with pytest.raises(FileFormatError, match="subprocess"):
        unpack({"class": "subprocess:Popen", "fields": {"args": "true"}}, {})
    with pytest.raises(FileFormatError, match="not a dataclass"):
        unpack({"class": "semalign3d_core.runtime.files:write_text", "fields": {"path": "x", "text": "y"}}, {})
