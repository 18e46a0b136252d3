"""What annotation tools, operating systems and people do to annotations: each is imported right, or left out with its reason."""

import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_import_mixes_nothing_up import KEYPOINTS, NAMES, SQUARE, _annotation, _content, _import, _picture

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.image_finder import ImageFinder
from semalign3d_core.datasets.import_table import import_table
from semalign3d_core.datasets.importing import MOVES
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_json

COMPOSED, APART = unicodedata.normalize("NFC", "Café.png"), unicodedata.normalize("NFD", "Café.png")


@pytest.fixture
def photos(tmp_path):
    for seed, name in enumerate(("a.png", "b.png")):
        _picture(tmp_path / name, seed)
    return tmp_path


def _mask(folder, name="a"):
    return np.asarray(Image.open(folder / "data/Segmentation/bottle" / f"{name}.png")) > 0


# Masks: polygons and run lengths


def _runs(mask):
    values = np.concatenate([[0], mask.T.ravel().astype(int), [1 - int(mask.T.ravel()[-1])]])
    return np.diff(np.concatenate([[0], np.flatnonzero(np.diff(values)), [mask.size]]))


BOX = np.zeros((120, 160), bool)
BOX[10:111, 50:111] = True
CORNERS = [SQUARE[i : i + 2] for i in range(0, 8, 2)]
COUNTS = [int(count) for count in _runs(BOX)]


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        SQUARE,  # one flat list
        [CORNERS],  # corners as pairs
        CORNERS,  # the same, without the list around it
        [[float(v) for v in SQUARE], [1, 2]],  # a part that is no polygon
        [SQUARE, []],
        [[str(v) for v in SQUARE]],  # numbers as texts
        [SQUARE + SQUARE[:2]],  # closed
        {"size": [120, 160], "counts": COUNTS},
        {"size": [120.0, 160.0], "counts": [float(c) for c in COUNTS]},  # numbers with a point
        [{"size": [120, 160], "counts": COUNTS}],
    ],
)  # fmt: skip
def test_every_spelling_of_a_mask(photos, segmentation):
    report, _ = _import(photos, _content(_annotation(segmentation=segmentation)))
    assert report.masked["bottle"] == 1
    np.testing.assert_array_equal(_mask(photos), BOX)


@pytest.mark.parametrize(
    "segmentation", [[[]], [], {}, [[1, 2]], None, [None], "", [[None] * 6], {"counts": []}, {"size": [3, 3], "counts": [9]}]
)
def test_what_is_no_mask_costs_no_keypoints(photos, segmentation):
    report, _ = _import(photos, _content(_annotation(segmentation=segmentation)))
    assert report.written["bottle"] == 1 and not report.masked["bottle"]


# Boxes and keypoints


@pytest.mark.parametrize(
    "box",
    [[80, 60, 60, 100, 30.0], [None] * 4, [], None, [80, 60, 60], [[50, 10], [110, 110]][0] * 3, [50, 10, 0, 0], [50, 10, -60, -100],
     [float("nan")] * 4, [float("inf"), 1, 2, 3]],
)  # fmt: skip
def test_boxes_that_are_none_cost_no_keypoints(photos, box):
    """Rotated ones with five numbers, null, empty, corners, without extent ..."""
    report, _ = _import(photos, _content(_annotation(bbox=box)))
    record = FolderDataset(photos / "data").image("bottle", "a")
    assert report.written["bottle"] == 1 and record.box[2] > record.box[0]
    assert record.box[0] <= 60 and record.box[2] >= 100, "made of the keypoints"


@pytest.mark.parametrize(
    ("keypoints", "seen"),
    [
        ([80, 20, 2, 80, 50, 0, 60, 100, 2, 100, 100, 2], [0, 2, 3]),  # v = 0 with a place
        ([80, 20, 2, 0, 0, 0, 60, 100, 2, 100, 100, 2], [0, 2, 3]),
        ([80, 20, 2, None, None, 0, 60, 100, 2, 100, 100, 2], [0, 2, 3]),
        ([80, 20, 2, None, None, None, 60, 100, 2, 100, 100, 2], [0, 2, 3]),
        ([80, 20, 2, 80, 50, 1, 60, 100, 2, 100, 100, 2], [0, 2, 3]),  # hidden
        ([80, 20, 2, -5, 50, 2, 60, 100, 2, 100, 100, 2], [0, 2, 3]),  # outside
        ([80, 20, 2, 1e6, 50, 2, 60, 100, 2, 100, 100, 2], [0, 2, 3]),
        ([80, 20, 2.0, "80", "50", "2", 60, 100, 2, 100, 100, 2], [0, 1, 2, 3]),  # texts
        ([80, 20, 3, 80, 50, 2, 60, 100, 2, 100, 100, 2], [0, 1, 2, 3]),
    ],
)
def test_visibility_of_keypoints(photos, keypoints, seen):
    _import(photos, _content(_annotation(keypoints=keypoints)))
    found = FolderDataset(photos / "data").image("bottle", "a").keypoints
    assert np.flatnonzero(np.isfinite(found[:, 0])).tolist() == seen


@pytest.mark.parametrize(
    "keypoints", [KEYPOINTS[:-1], KEYPOINTS[:8], [80, 20] * 4, [float("nan")] * 12, [float("inf")] * 12, [1e30, 1, 2] * 4]
)
def test_keypoints_that_cannot_be_are_listed_and_others_go_on(photos, keypoints):
    report, files = _import(photos, _content(_annotation(keypoints=keypoints), _annotation(2, 2), images=("a.png", "b.png")))
    assert report.written["bottle"] == 1 and len(report.skipped) == 1 and "annotation 1 has" in report.skipped[0]
    assert "ImageAnnotation/bottle/b.json" in files


# Ids and names that are nearly the same


@pytest.mark.parametrize("second", ["Bottle", " bottle ", "BOTTLE", unicodedata.normalize("NFD", "bottle")])
def test_categories_that_differ_in_spelling_only_are_refused(photos, second):
    content = _content(_annotation())
    content["categories"].append({"id": 2, "name": second, "keypoints": NAMES})
    with pytest.raises(InputError, match="give every category its own"):
        _import(photos, content)


def test_composed_letters_are_the_same_letters(tmp_path):
    for named, stored in ((COMPOSED, APART), (APART, COMPOSED), (COMPOSED.upper(), APART)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        _picture(folder / "photos" / stored)
        assert ImageFinder(folder / "photos", [named]).find(named).name == stored
    content = _content(_annotation())
    content["categories"] = [
        {"id": n, "name": unicodedata.normalize(form, "Café"), "keypoints": NAMES} for n, form in enumerate(("NFC", "NFD"), 1)
    ]
    _picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="give every category its own"):
        _import(tmp_path, content)


@pytest.mark.parametrize("ids", [(1, 1), (1, "1"), (1, 1.0), ("a", "a"), (0, "0"), ("007", "007")])
def test_two_images_of_one_id(photos, ids):
    content = _content(_annotation(image=ids[0]))
    content["images"] = [{"id": i, "file_name": name} for i, name in zip(ids, ("a.png", "b.png"), strict=True)]
    report, files = _import(photos, content)
    assert not files and "belongs to a.png and b.png" in report.skipped[0]


@pytest.mark.parametrize("ids", [("a", "A"), (1, "01"), ("x", "x ")])
def test_ids_that_differ_are_different(photos, ids):
    content = _content(_annotation(image=ids[0]), _annotation(2, ids[1]))
    content["images"] = [{"id": i, "file_name": name} for i, name in zip(ids, ("a.png", "b.png"), strict=True)]
    assert _import(photos, content)[0].written["bottle"] == 2


@pytest.mark.parametrize("second", ["sub/a.png", "A.png", "a.jpg", "sub/A.PNG", "a_.png", " a.png"])
def test_images_of_nearly_one_name_stay_apart(photos, second):
    """Also on file systems that do not tell capitals."""
    _picture(photos / second, seed=5, **({"quality": 95} if second.endswith("jpg") else {}))
    report, files = _import(photos, _content(_annotation(), _annotation(2, 2), images=("a.png", second)))
    names = [Path(name).stem.casefold() for name in files if name.startswith("ImageAnnotation")]
    assert report.written["bottle"] == 2 and len(set(names)) == 2
    pictures = {name: np.asarray(Image.open(photos / "data" / name).convert("RGB")) for name in files if name.startswith("JPEGImages")}
    for record in (FolderDataset(photos / "data").image("bottle", Path(name).stem) for name in files if name.startswith("ImageAnnotation")):
        source = Image.open(json.loads((photos / f"data/ImageAnnotation/bottle/{record.name}.json").read_text())["imported_from"])
        np.testing.assert_array_equal(pictures[f"JPEGImages/bottle/{record.path.name}"], np.asarray(source.convert("RGB")))


def test_masks_of_one_name_are_not_exchanged(tmp_path):
    for colour in ("red", "blue"):
        _picture(tmp_path / "photos" / colour / "0001.png", seed=len(colour))
    mask = np.zeros((120, 160), np.uint8)
    mask[10:110, 50:110] = 255
    (tmp_path / "masks" / "red").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks" / "0001.png")
    content = _content(_annotation(), _annotation(2, 2), images=("red/0001.png", "blue/0001.png"))
    report, _ = _import(tmp_path, content, images=tmp_path / "photos", masks=tmp_path / "masks")
    assert not report.masked["bottle"] and len(report.skipped) == 2 and "several images are called '0001'" in report.skipped[0]
    (tmp_path / "masks" / "0001.png").rename(tmp_path / "masks" / "red" / "0001.png")
    report, files = _import(tmp_path, content, images=tmp_path / "photos", masks=tmp_path / "masks")
    assert report.masked["bottle"] == 1 and len(report.skipped) == 1 and "blue" in report.skipped[0]


# Paths of other machines


@pytest.mark.parametrize(
    "name",
    [
        "red\\a.png", "C:\\data\\red\\a.png", "\\\\server\\share\\red\\a.png", "C:/Users/me/red/a.png", "file:///C:/Users/me/red/a.png",
        "https://example.org/store/red/a.png?X-Amz-Signature=0123&x=1", "s3://bucket/red/a.png", "/data/local-files/?d=store/red/a.png",
        "/mnt/c/red/a.png", "red/A.PNG", "./red/a.png", "red//a.png", "red/sub/../a.png", "%72ed/a.png",
    ],
)  # fmt: skip
def test_paths_of_other_machines(tmp_path, name):
    _picture(tmp_path / "red" / "a.png")
    assert ImageFinder(tmp_path, [name]).find(name).samefile(tmp_path / "red" / "a.png")


@pytest.mark.parametrize(
    "name", ["blue\\a.png", "blue/a.png", "https://example.org/blue/a.png", "a.jpg", "b.png", "red/a.png/c.png", "redder/a.png"]
)
def test_paths_of_other_pictures(tmp_path, name):
    _picture(tmp_path / "red" / "a.png")
    with pytest.raises(MissingFileError):
        ImageFinder(tmp_path, [name]).find(name)


def test_two_spellings_of_an_ending(tmp_path):
    _picture(tmp_path / "a.jpg")
    assert ImageFinder(tmp_path, ["a.JPEG"]).find("a.JPEG").name == "a.jpg"


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_mark_at_the_beginning(tmp_path, encoding):
    text = '{"ä": "中"}'
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (tmp_path / "a.json").write_bytes((mark + text).encode(encoding))
    assert read_json(tmp_path / "a.json") == {"ä": "中"}


TABLES = {
    "excel": "sep=;\r\nimage;cap_x;cap_y\r\na.png;10,5;20\r\n",
    "european": "image;cap_x;cap_y\na.png;10,5;20,0\n",
    "tabs": "image\tcap_x\tcap_y\na.png\t10.5\t20\n",
    "old mac": "image,cap_x,cap_y\ra.png,10.5,20\r",
    "windows": "image,cap_x,cap_y\r\na.png,10.5,20\r\n",
    "mark": "\ufeffimage,cap_x,cap_y\na.png,10.5,20\n",
    "quoted": '"image","cap_x","cap_y"\n"a.png","10.5","20"\n',
    "spaces": " image , cap_x , cap_y \na.png, 10.5, 20\n",
    "long": "image,keypoint,x,y\na.png,cap,10.5,20\n",
    "empty lines": "image,cap_x,cap_y\n\na.png,10.5,20\n\n",
    "no end": "image,cap_x,cap_y\na.png,10.5,20",
    "more columns": "id,image,cap_x,cap_y,note\n1,a.png,10.5,20,x\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_tables_of_every_program(photos, text):
    (photos / "k.csv").write_bytes(text.encode())
    import_table(photos / "k.csv", photos, photos / "data", "bottle")
    np.testing.assert_allclose(FolderDataset(photos / "data").image("bottle", "a").keypoints, [[10.5, 20]])


# What holds nothing, or is of another tool

OTHERS = {
    "empty": b"", "nothing": b"{}", "list": b"[]", "null": b"null", "text": b'"x"', "half": b'{"images": [',
    "labelme": b'{"version": "5.5.0", "shapes": [{"label": "cap", "points": [[1, 2]]}], "imagePath": "a.png"}',
    "label studio": b'[{"id": 1, "data": {"img": "a.png"}, "annotations": [{"result": []}]}]',
    "via": b'{"a.png1234": {"filename": "a.png", "regions": []}}',
    "no annotations": json.dumps(_content()).encode(),
    "no keypoints": json.dumps(_content(_annotation()) | {"categories": [{"id": 1, "name": "bottle"}]}).encode(),
    "no categories": json.dumps(_content(_annotation()) | {"categories": []}).encode(),
    "no images": json.dumps(_content(_annotation(), images=())).encode(),
    "deleted": json.dumps(_content(_annotation(keypoints=[0] * 12))).encode(),
    "other images": json.dumps(_content(_annotation(), images=("x.png",))).encode(),
}  # fmt: skip


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_what_holds_nothing_says_so(photos, capsys, content):
    (photos / "labels.json").write_bytes(content)
    assert main(["import", str(photos / "labels.json"), "--output", str(photos / "data"), "--category", "bottle"]) in (1, 2)
    said = capsys.readouterr()
    reasons = [line for line in (said.out + said.err).splitlines() if line.strip()]
    assert len(reasons) >= 1 and "Traceback" not in said.err
    assert any(len(line) > 40 and "0 images ->" not in line for line in reasons), reasons


def test_a_zipped_export_and_an_xml_one_say_what_to_do(photos, capsys):
    with zipfile.ZipFile(photos / "labels.json", "w") as archive:
        archive.writestr("annotations/person_keypoints_default.json", "{}")
    with pytest.raises(FileFormatError, match="is a ZIP archive; unpack it"):
        read_json(photos / "labels.json")
    (photos / "labels.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    assert main(["import", str(photos / "labels.xml"), "--output", str(photos / "data"), "--category", "bottle"]) == 2
    assert "expected image,keypoint,x,y" in capsys.readouterr().err


# What was deleted since


def test_a_category_that_is_called_otherwise_now_is_named(photos):
    _import(photos, _content(_annotation()))
    content = _content(_annotation())
    content["categories"][0]["name"] = "flask"
    report, _ = _import(photos, content)
    assert any(text.startswith("bottle: 1 images of an earlier import of this file stay") for text in report.remarks)


def test_pairs_of_deleted_images_go(tmp_path):
    names = [f"{n}.png" for n in range(8)]
    for seed, name in enumerate(names):
        _picture(tmp_path / name, seed)
    (tmp_path / "l.json").write_text(json.dumps(_content(*(_annotation(n, n) for n in range(1, 9)), images=names)))
    arguments = ["import", str(tmp_path / "l.json"), "--output", str(tmp_path / "data")]
    assert main(arguments) == 0
    assert FolderDataset(tmp_path / "data").splits() == ["test", "trn"]
    for content, more in ((_content(*(_annotation(n, n) for n in range(1, 4)), images=names), []), (None, ["--split", "0"])):
        if content is not None:
            (tmp_path / "l.json").write_text(json.dumps(content))
        assert main([*arguments, *more]) == 0
        data = FolderDataset(tmp_path / "data")
        assert not data.splits() and not list((tmp_path / "data" / "PairAnnotation").rglob("*.json")) and len(data.images("bottle")) == 3


def test_a_file_whose_annotations_are_all_deleted(photos):
    _import(photos, _content(_annotation()))
    report, files = _import(photos, _content())
    assert not files and any("holds no annotations" in text for text in report.remarks)


# Pictures turned by EXIF


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", [*MOVES])
def test_turned_pictures_of_every_format(tmp_path, suffix, turn):
    """Annotated as they are displayed, and as they are stored: the same place of the object."""
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[28:33, 18:23] = 255  # the cap, as it is stored
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    x, y = MOVES[turn](20, 30, 159, 119)
    for frame, point, size in (("stored", (20, 30), (160, 120)), ("displayed", (x, y), (120, 160) if turn >= 5 else (160, 120))):
        content = _content(_annotation(keypoints=[*point, 2] + [0] * 9, bbox=None), images=(f"a.{suffix}",))
        content["images"][0] |= {"width": size[0], "height": size[1]}
        _import(tmp_path, content, output=frame, frame=frame)
        (record,) = FolderDataset(tmp_path / frame).images("bottle")
        found = record.keypoints[0]
        np.testing.assert_allclose(found, (x, y), atol=0.01)
        assert np.asarray(Image.open(record.path).convert("L"))[int(found[1]), int(found[0])] > 200


def test_names_that_are_no_text_are_imported(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    _picture(tmp_path / name)
    (tmp_path / "k.csv").write_text("image,cap_x,cap_y\ncaf*,1,2\n")
    (tmp_path / "l.json").write_text(json.dumps({name: {"cap": [10, 20]}}))
    report = import_table(tmp_path / "l.json", tmp_path, tmp_path / "data", "bottle")
    assert report.written["bottle"] == 1
