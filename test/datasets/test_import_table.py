"""Import of plain folders: images and one CSV or JSON file."""

import json

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.import_table import import_table, read_table
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

BROKEN = "image,keypoint,x,y\na.png,cap,10,20\na.png,left_foot,5.5,38\nb.png,cap,12,\nb.png,cap2,,\nb.png,right_foot,30,37\n"
LONG = "image,keypoint,x,y\na.png,cap,10,20\na.png,left_foot,5.5,38\nb.png,cap,,\nb.png,right_foot,30,37\n"
WIDE = "image,cap_x,cap_y,left_foot_x,left_foot_y,right_foot_x,right_foot_y\na.png,10,20,5.5,38,,\nb,,,,,30,37\n"
JSON = {"a.png": {"cap": [10, 20], "left_foot": [5.5, 38]}, "b.png": {"right_foot": [30, 37], "cap": None}}


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        Image.new("L", (60, 40), 90).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(("name", "text"), [("k.csv", LONG), ("k.csv", WIDE), ("k.json", JSON)])
def test_all_spellings_give_the_same_data_set(folder, name, text):
    (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))
    report = import_table(folder / name, folder, folder / "data", "bottle")
    dataset = FolderDataset(folder / "data")
    spec = dataset.keypoint_spec("bottle")
    assert set(spec.names) == {"cap", "left_foot", "right_foot"}
    left, right = spec.names.index("left_foot"), spec.names.index("right_foot")
    assert spec.flip_permutation[left] == right and spec.flip_permutation[spec.names.index("cap")] == spec.names.index("cap")
    first, second = dataset.images("bottle")
    assert first.keypoints[spec.names.index("cap")].tolist() == [10, 20] and first.keypoints[left].tolist() == [5.5, 38]
    assert second.keypoints[right].tolist() == [30, 37] and np.isnan(second.keypoints[left]).all()
    assert report.written == {"bottle": 2} and report.skipped == []
    with Image.open(first.path) as picture:
        assert picture.mode == "RGB"  # the grey picture is written as what the reader sees


def test_masks_give_the_box(folder):
    (folder / "k.json").write_text(json.dumps(JSON))
    mask = np.zeros((40, 60), np.uint8)
    mask[4:30, 8:50] = 255
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    report = import_table(folder / "k.json", folder, folder / "data", "bottle", masks=folder / "masks")
    record = FolderDataset(folder / "data").image("bottle", "a")
    assert record.box.tolist() == [8, 4, 50, 30] and record.attributes["bndbox_from"] == "mask"
    assert np.array_equal(np.asarray(Image.open(folder / "data" / "Segmentation" / "bottle" / "a.png")), mask)
    assert report.written == {"bottle": 1} and "masks/b.png does not exist" in report.skipped[0]


def test_box_of_keypoints_has_a_margin_inside_the_picture(folder):
    (folder / "k.json").write_text(json.dumps(JSON))
    import_table(folder / "k.json", folder, folder / "data", "bottle")
    record = FolderDataset(folder / "data").image("bottle", "a")
    assert record.box.tolist() == pytest.approx([5.5 - 1.8, 20 - 1.8, 10 + 1.8, 38 + 1.8])
    assert record.attributes["bndbox_from"] == "keypoints"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,x,y\n", "the header is 'picture,x,y'"),
        (BROKEN, "line 4: cap is \\['12', ''\\]"),
        ("image,keypoint,x,y\na.png,cap,1,2\na.png,cap,3,4\n", "line 3: cap occurs twice"),
        ("image,keypoint,x,y\na.png,,1,2\n", "line 2: a name is missing"),
        ("image,keypoint,x,y\n", "holds no keypoint"),
    ],
)
def test_broken_tables_say_where(folder, text, message):
    (folder / "k.csv").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_table(folder / "k.csv")


def test_broken_json_and_missing_files_are_named(folder):
    (folder / "k.json").write_text("[1]")
    with pytest.raises(FileFormatError, match="expected"):
        read_table(folder / "k.json")
    with pytest.raises(MissingFileError):
        read_table(folder / "none.csv")
    (folder / "k.json").write_text(json.dumps({"zzz.png": {"cap": [1, 2]}, "a.png": {"cap": [1, 2]}}))
    report = import_table(folder / "k.json", folder, folder / "data", "bottle")
    assert report.written == {"bottle": 1} and "zzz.png is not below" in report.skipped[0]
    with pytest.raises(InputError, match=r"zzz\.png"):
        import_table(folder / "k.json", folder, folder / "data2", "bottle", on_bad_input="error")


def test_command_needs_a_category_and_knows_the_format(folder, capsys):
    (folder / "k.csv").write_text(WIDE)
    arguments = ["import", str(folder / "k.csv"), "--output", str(folder / "data")]
    assert main(arguments) == 2
    assert "give one with --category NAME" in capsys.readouterr().err
    assert main([*arguments, "--category", "wine bottle", "--left-right", "cap:left_foot"]) == 0
    spec = FolderDataset(folder / "data").keypoint_spec("wine_bottle")
    assert spec.flip_permutation == (1, 0, 2)
    assert "wine_bottle: 2 images" in capsys.readouterr().out


def test_unnameable_category_is_refused(folder):
    (folder / "k.csv").write_text(WIDE)
    with pytest.raises(InputError, match="cannot be used as a name"):
        import_table(folder / "k.csv", folder, folder / "data", " : ")
