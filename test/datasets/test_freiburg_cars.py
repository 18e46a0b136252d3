"""Freiburg cars: boxes and azimuths from the annotation files, masks beside them."""

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.datasets import open_dataset
from semalign3d_core.perception import masks
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


@pytest.fixture
def root(tmp_path):
    for folder in ("car_01", "car_27"):
        for image in ("f001.png", "f002.png"):
            for place in (tmp_path / "images" / folder, tmp_path / "Segmentation" / "car" / folder):
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((20, 30), 255, np.uint8)).save(place / image)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "01_annot.txt").write_text("f001.png 1 2 20 18 359.5\nf002.png 2 3 21 19 45\n")
    (tmp_path / "annotations" / "27_annot.txt").write_text("f002.png 5 6 25 16 100.25\n")
    return tmp_path


def test_every_image_has_its_own_line(root):
    dataset = open_dataset(root)
    records = dataset.images("car")
    assert [record.name for record in records] == ["car_01/f001", "car_01/f002", "car_27/f002"]  # what nobody annotated is left out
    assert [record.attributes["azimuth_deg"] for record in records] == [359.5, 45, 100.25]
    assert records[2].box.tolist() == [5, 6, 25, 16] and (records[2].height, records[2].width) == (20, 30)
    mask = masks.create("precomputed", root).segment(read_image(records[2].path, records[2]))
    assert mask.all()


def test_it_cannot_be_scored(root):
    with pytest.raises(InputError, match="no pairs"):
        open_dataset(root).pair_names("test")
    with pytest.raises(InputError, match="no split"):
        open_dataset(root).images("car", "trn")


def test_what_is_wrong_is_named(root, tmp_path):
    (root / "annotations" / "01_annot.txt").write_text("f001.png 1 2 20 18\n")
    with pytest.raises(FileFormatError, match="line of f001 is too short"):
        open_dataset(root).images("car")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="holds no file"):
        open_dataset(tmp_path / "empty", "freiburg_cars")
