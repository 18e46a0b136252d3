"""Depth images of sensors: millimetres with holes, metres, files beside the pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from semalign3d_core.perception import depth
from semalign3d_core.perception.depth.sensor import SensorDepth, sensor_depth
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


def picture(name="image", height=4, width=6, record=None):
    return ImageInput(np.zeros((height, width, 3), np.uint8), name, record)


def millimetres():
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100 + 500
    values[1, 2], values[3, 5] = 0, 65535
    return values


def test_millimetres_become_metres_and_holes_nan():
    found = sensor_depth(millimetres())
    assert found.kind == "metric" and found.values.dtype == torch.float32
    assert found.values[0, 1].item() == pytest.approx(0.6)
    assert torch.isnan(found.values).nonzero().tolist() == [[1, 2], [3, 5]]


def test_metres_keep_their_values():
    values = np.array([[1.5, np.nan, np.inf], [0.0, -1.0, 2.5]])
    found = sensor_depth(values).values
    assert torch.isnan(found).tolist() == [[False, True, True], [True, True, False]]
    assert found[1, 2].item() == 2.5


@pytest.mark.parametrize("values", [np.zeros((2, 3, 3), np.uint16), np.zeros((2, 3), bool)])
def test_what_is_no_depth_image_is_refused(values):
    with pytest.raises(InputError, match="depth image"):
        sensor_depth(values)


def test_a_file_a_folder_and_a_data_set_folder(tmp_path):
    folder = tmp_path / "Depth" / "chair"
    folder.mkdir(parents=True)
    Image.fromarray(millimetres()).save(folder / "one.png")
    record = SimpleNamespace(category="chair", name="one")
    expected = sensor_depth(millimetres()).values
    for spec, image in (
        (f"sensor:{folder / 'one.png'}", picture("anything.jpg")),
        (f"sensor:{folder}", picture("/somewhere/one.jpg")),
        ("sensor", picture(record=record)),
    ):
        found = depth.create(spec, tmp_path).estimate(image)
        assert torch.equal(found.values.nan_to_num(), expected.nan_to_num()), spec
    mirrored = depth.create("sensor", tmp_path).estimate(picture(record=record).mirror())
    assert torch.equal(mirrored.values.nan_to_num(), expected.flip(1).nan_to_num())


def test_metres_in_a_tiff(tmp_path):
    Image.fromarray(np.full((4, 6), 1.25, np.float32)).save(tmp_path / "one.tiff")
    assert SensorDepth(str(tmp_path)).estimate(picture("one.jpg")).values.unique().tolist() == [1.25]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"two\.png"):
        SensorDepth(str(tmp_path)).estimate(picture("two.jpg"))
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "eight.png")
    with pytest.raises(FileFormatError, match=r"eight\.png has 8 bits"):
        SensorDepth(str(tmp_path)).estimate(picture("eight.jpg"))
    Image.fromarray(millimetres()).save(tmp_path / "small.png")
    with pytest.raises(FileFormatError, match="register it"):
        SensorDepth(str(tmp_path)).estimate(picture("small.jpg", height=8))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(FileFormatError, match=r"broken\.png"):
        SensorDepth(str(tmp_path)).estimate(picture("broken.jpg"))
    with pytest.raises(InputError, match="--depth sensor:PATH"):
        depth.create("sensor")
