"""Names in a data set reach no file outside of it."""

import json

import pytest
from tiny_dataset import make_dataset

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.files import inside


def test_places_outside_of_a_folder_are_none(tmp_path):
    for name in ("../x", "/etc/passwd", "a/../../x", "", "\0", "..", "."):
        assert inside(tmp_path, name) is None
    assert inside(tmp_path, "a/../b.png") == tmp_path / "b.png"


def test_names_of_annotations_and_pairs_stay_in_the_data_set(tmp_path):
    root = make_dataset(tmp_path / "data")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    annotation = root / "ImageAnnotation" / "chair" / "img0.json"
    content = json.loads(annotation.read_text())
    for name in ("../../../secret.jpg", str(tmp_path / "secret.jpg")):
        annotation.write_text(json.dumps(content | {"filename": name}))
        assert FolderDataset(root).image("chair", "img0").path.parent == root / "JPEGImages" / "chair"
    dataset = FolderDataset(root)
    for name in ("../../ImageAnnotation/chair/img0", "a/b"):
        with pytest.raises(InputError, match="names have no folders"):
            dataset.image("chair", name)
        with pytest.raises((InputError, MissingFileError)):
            dataset.pair("test", f"{name}:chair")


def test_hidden_files_are_no_data(tmp_path):
    root = make_dataset(tmp_path / "data")
    names = [record.name for record in FolderDataset(root).images("chair")]
    for folder, suffix in (("ImageAnnotation/chair", ".json"), ("JPEGImages/chair", ".jpg"), ("Layout/large", ".txt")):
        for hidden in ("._img0", ".semalign3d-x1", ".img0.k3j2"):
            (root / folder / f"{hidden}{suffix}").write_bytes(b"\x00\x05\x16\x07\xff")
    dataset = FolderDataset(root)
    assert [record.name for record in dataset.images("chair")] == names and dataset.splits() == ["test", "trn"]


def test_features_of_synth_have_a_name_not_a_path(tmp_path, capsys):
    assert main(["synth", "--output", str(tmp_path / "out"), "--features", "../../x"]) == 2
    assert "is no name of a folder" in capsys.readouterr().err and not (tmp_path / "x").exists()
