"""What annotation tools, users and file systems do to imports: nothing of another object, nothing lost, nothing silent."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.image_finder import ImageFinder
from semalign3d_core.datasets.import_coco import CocoOptions, import_coco
from semalign3d_core.datasets.import_table import import_table
from semalign3d_core.datasets.label_masks import LabelMasks, object_pixels
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_json

NAMES = ["cap", "neck", "left_base", "right_base"]
KEYPOINTS = [80, 20, 2, 80, 50, 2, 60, 100, 2, 100, 100, 2]
SQUARE = [50, 10, 110, 10, 110, 110, 50, 110]


def _picture(path, seed=0, size=(160, 120), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def _annotation(number=1, image=1, **more):
    return {"id": number, "image_id": image, "category_id": 1, "keypoints": KEYPOINTS, "bbox": [50, 10, 60, 100]} | more


def _content(*annotations, images=("a.png",), **more):
    entries = [{"id": n, "file_name": name, "width": 160, "height": 120} for n, name in enumerate(images, 1)]
    return {"images": entries, "annotations": list(annotations), "categories": [{"id": 1, "name": "bottle", "keypoints": NAMES}]} | more


@pytest.fixture
def photos(tmp_path):
    for seed, name in enumerate(("a.png", "b.png")):
        _picture(tmp_path / name, seed)
    return tmp_path


def _import(folder, content, name="labels.json", output="data", images=None, **options):
    (folder / name).write_text(json.dumps(content))
    report = import_coco(folder / name, images or folder, folder / output, CocoOptions(**options))
    files = {str(p.relative_to(folder / output)) for p in (folder / output).rglob("*") if p.is_file()}
    return report, files - {"keypoints.json"}


def test_images_of_one_id_are_left_out(photos):
    content = _content(_annotation(), _annotation(2))
    content["images"].append({"id": 1.0, "file_name": "b.png"})
    report, files = _import(photos, content)
    assert not files and any("image id 1 belongs to a.png and b.png" in text for text in report.skipped)
    with pytest.raises(InputError, match=r"image id 1 belongs to a\.png and b\.png"):
        _import(photos, content, on_bad_input="error")


def test_one_picture_is_not_given_to_two_entries(photos):
    report, files = _import(photos, _content(_annotation(), _annotation(2, 2), images=("a.png", "./a.png")))
    assert not files and "is the file of the images 1 and 2" in report.skipped[0]


@pytest.mark.parametrize("second", [{"id": 2, "name": " Bottle"}, {"id": 1, "name": "mug"}])
def test_categories_of_one_name_or_id_are_refused(photos, second):
    content = _content(_annotation())
    content["categories"].append(second | {"keypoints": NAMES})
    with pytest.raises(InputError, match="give every category its own"):
        _import(photos, content)


def test_categories_that_would_share_a_folder_are_refused(photos):
    content = _content(_annotation())
    content["categories"] = [{"id": 1, "name": "a bottle", "keypoints": NAMES}, {"id": 2, "name": "a_bottle", "keypoints": NAMES}]
    with pytest.raises(InputError, match="several categories would be called 'a_bottle'"):
        _import(photos, content)


def test_ids_are_compared_as_text_and_crowds_as_numbers(photos):
    report, _ = _import(photos, _content(_annotation(category_id="1", image_id="1", iscrowd="0")))
    assert report.written == {"bottle": 1}


def test_nothing_is_left_out_silently(photos):
    entries = [_annotation(keypoints=None), _annotation(iscrowd=1), _annotation(category_id=9)]
    report, files = _import(photos, _content(*entries))
    text = "\n".join(report.remarks)
    assert not files and "1 objects of 'bottle' have no keypoints" in text
    assert "1 annotations of 'bottle' are crowd regions" in text and "have the category '9' that the file does not list (ids 1)" in text
    for v, advice in ((1, "give --hidden keep"), (0, "mark them as visible")):
        marked = [v if k % 3 == 2 else value for k, value in enumerate(KEYPOINTS)]
        assert any(advice in remark for remark in _import(photos, _content(_annotation(keypoints=marked)))[0].remarks)


def test_polygons_of_other_categories_are_no_masks(photos):
    sticker = {"id": 2, "image_id": 1, "category_id": 2, "bbox": [70, 50, 30, 20], "segmentation": [[70, 50, 100, 50, 100, 70, 70, 70]]}
    table = {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5, 5, 150, 110], "segmentation": [[5, 5, 155, 5, 155, 115, 5, 115]]}
    for info, other, masked in ({}, sticker, 0), ({}, table, 0), ({"contributor": "Label Studio"}, sticker, 0):
        content = _content(_annotation(bbox=[60, 20, 40, 80] if other is table else [50, 10, 60, 100]), other, info=info)
        content["categories"].append({"id": 2, "name": "thing"})
        report, _ = _import(photos, content)
        assert report.masked["bottle"] == masked
        assert FolderDataset(photos / "data").image("bottle", "a").box[0] > 45
    outline = {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50, 10, 60, 100], "segmentation": [SQUARE]}
    content = _content(_annotation(), outline, info={"contributor": "Label Studio"})
    content["categories"].append({"id": 2, "name": "thing"})
    report, _ = _import(photos, content)
    assert report.masked["bottle"] == 1 and "1 masks of 'bottle' are polygons of 'thing'" in report.remarks


def test_keypoints_survive_broken_masks(photos):
    for wrong in ([[1, 2, 3, 4]], [{"size": [120, 160], "counts": [10, 20]}], {"counts": "\x7f"}, "none", [[SQUARE, 3]]):
        report, _ = _import(photos, _content(_annotation(segmentation=wrong)))
        assert report.written["bottle"] == 1 and report.masked["bottle"] == 0
        assert any("left out" in remark for remark in report.remarks)


def _turned(folder, claimed, points, info=None, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    _picture(folder / "a.jpg", exif=exif)
    content = _content(_annotation(keypoints=points, bbox=None), images=("a.jpg",), info=info or {})
    content["images"][0] |= {"width": claimed[0], "height": claimed[1]}
    report, _ = _import(folder, content)
    return report, FolderDataset(folder / "data").image("bottle", "a").keypoints.tolist()


LOW = [60, 30, 2, 60, 60, 2, 40, 110, 2, 80, 110, 2]  # fits the stored 160 x 120 and the displayed 120 x 160
DOWN = [60, 30, 2, 60, 60, 2, 40, 150, 2, 80, 150, 2]  # fits the displayed picture only


@pytest.mark.parametrize(
    ("claimed", "points", "info", "displayed"),
    [
        ((160, 120), LOW, {}, False),  # a tool that ignores EXIF
        ((120, 160), LOW, {}, True),  # one that turns the picture
        ((160, 120), LOW, {"contributor": "Label Studio"}, True),  # one that claims the stored size and shows the picture turned
        ((160, 120), DOWN, {}, True),  # any such tool, as a point tells
    ],
)
def test_the_frame_of_turned_pictures_is_told(tmp_path, claimed, points, info, displayed):
    report, found = _turned(tmp_path, claimed, points, info)
    x, y = points[0], points[1]
    assert found[0] == ([x, y] if displayed else [119 - y, x])
    assert any("1 images turned by EXIF were taken to be annotated as" in remark for remark in report.remarks)


def test_every_exif_orientation_moves_points_as_it_moves_pixels(tmp_path):
    from semalign3d_core.datasets.importing import MOVES
    from semalign3d_core.runtime.pictures import TURNS

    stored = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for turn, move in MOVES.items():
        displayed = np.asarray(Image.fromarray(stored).transpose(TURNS[turn]))
        for y, x in np.ndindex(stored.shape):
            column, row = move(x, y, 3, 2)
            assert displayed[row, column] == stored[y, x]


def test_deleted_annotations_go_and_other_batches_stay(photos):
    both = _content(_annotation(), _annotation(2, 2, segmentation=[SQUARE]), images=("a.png", "b.png"))
    _, files = _import(photos, both)
    assert {"ImageAnnotation/bottle/b.json", "Segmentation/bottle/b.png"} <= files
    report, files = _import(photos, _content(_annotation(), images=("a.png", "b.png")), name="after.json")
    assert not any("b." in name for name in files) and any("1 images of an earlier import" in remark for remark in report.remarks)
    _picture(photos / "tuesday" / "a.png", seed=7)
    report, files = _import(photos, _content(_annotation()), name="tuesday.json", images=photos / "tuesday")
    names = {"ImageAnnotation/bottle/a.json", "ImageAnnotation/bottle/a_2.json", "JPEGImages/bottle/a.png", "JPEGImages/bottle/a_2.png"}
    assert files == names and any("1 further images" in remark for remark in report.remarks)
    assert (photos / "data/JPEGImages/bottle/a.png").read_bytes() == (photos / "a.png").read_bytes()
    assert (photos / "data/JPEGImages/bottle/a_2.png").read_bytes() == (photos / "tuesday" / "a.png").read_bytes()


def test_a_second_import_of_the_same_picture_replaces_its_mask_and_its_name(photos):
    _import(photos, _content(_annotation(segmentation=[SQUARE])))
    moved = photos / "moved"
    moved.mkdir()
    (photos / "a.png").rename(moved / "a.png")
    _, files = _import(photos, _content(_annotation()), images=moved)
    assert files == {"ImageAnnotation/bottle/a.json", "JPEGImages/bottle/a.png"}


def test_a_changed_picture_does_not_inherit_depth(photos):
    _import(photos, _content(_annotation()))
    (photos / "data/Depth/bottle").mkdir(parents=True)
    (photos / "data/Depth/bottle/a.npz").write_bytes(b"of the first picture")
    _picture(photos / "a.png", seed=9)
    _, files = _import(photos, _content(_annotation()))
    assert {name for name in files if "Annotation" in name} == {"ImageAnnotation/bottle/a_2.json"}


def test_a_picture_of_the_same_name_in_another_folder_is_not_taken(tmp_path):
    for name in ("mug_red/0001.jpg", "masks/0002.png", "0003.jpg", "upload.jpg"):
        _picture(tmp_path / name)
    wrong = ("mug_blue/0001.jpg", "0002.jpg", "20240131-0003.jpg", "C:\\pictures\\mug_blue\\0001.jpg", "data/mug_blue/0001.jpg")
    for name in wrong:
        with pytest.raises(MissingFileError):
            ImageFinder(tmp_path, [name]).find(name)
    names = ["x/upload.jpg", "y/upload.jpg"]
    for name in names:
        with pytest.raises(InputError, match="may as well be"):
            ImageFinder(tmp_path, names).find(name)


def test_files_outside_of_the_folder_are_not_read(tmp_path):
    _picture(tmp_path / "secret.png")
    (tmp_path / "photos").mkdir()
    for name in ("../secret.png", str(tmp_path / "secret.png"), "..\\secret.png", "x/../../secret.png", "", "\0", ".."):
        with pytest.raises(MissingFileError):
            ImageFinder(tmp_path / "photos", [name]).find(name)


def test_windows_paths_and_tools_folders_are_understood(tmp_path):
    _picture(tmp_path / "images" / "0a1b2c3d-chair.png")
    _picture(tmp_path / "red" / "b.png")
    for name in ("images\\0a1b2c3d-chair.png", "C:\\Users\\me\\images\\0a1b2c3d-chair.png", "/data/upload/1/0a1b2c3d-chair.png"):
        assert ImageFinder(tmp_path, [name]).find(name).name == "0a1b2c3d-chair.png"
    for name in ("/home/me/photos/red/b.png", "/data/local-files/?d=photos%2Fred%2Fb.png", "b", "b.heic"):
        assert ImageFinder(tmp_path, [name]).find(name) == tmp_path / "red" / "b.png"


def test_masks_and_the_data_set_itself_are_no_pictures(photos):
    table = {"a": {"cap": [10, 10]}}
    (photos / "k.json").write_text(json.dumps(table))
    _picture(photos / "masks" / "a.png")
    for _ in range(2):
        report = import_table(photos / "k.json", photos, photos / "data", "bottle", masks=photos / "masks")
        assert report.written == {"bottle": 1}


def test_the_label_of_the_object_is_its_mask(tmp_path):
    labels = np.zeros((120, 160), np.uint8)
    labels[10:110, 50:110], labels[60:, :50], labels[8:10, 50:110] = 3, 7, 255
    points = np.array(KEYPOINTS, dtype=float).reshape(-1, 3)[:, :2]
    assert np.array_equal(object_pixels(labels, points), labels == 3)
    assert np.array_equal(object_pixels(labels, points[:0]), (labels == 3) | (labels == 7))
    assert np.array_equal(object_pixels(np.where(labels == 7, 0, labels), points[:0]), labels == 3)
    soft = (np.arange(120 * 160) % 256).astype(np.uint8).reshape(120, 160)
    assert np.array_equal(object_pixels(soft, points), soft > 0)
    folder = tmp_path / "SegmentationClass"
    folder.mkdir()
    colours = np.zeros((120, 160, 3), np.uint8)
    colours[labels == 3], colours[labels == 7] = (250, 50, 83), (50, 183, 250)
    Image.fromarray(colours).save(folder / "a.png")
    assert np.array_equal(LabelMasks(folder, "bottle").read(tmp_path / "a.jpg", points), labels == 3)
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nbottle:50,183,250::\n")
    assert np.array_equal(LabelMasks(folder, "Bottle").read(tmp_path / "a.jpg", points), labels == 7)


def test_marks_at_the_beginning_of_files_are_not_content(tmp_path):
    for encoding in ("utf-8-sig", "utf-16", "utf-8"):
        (tmp_path / "a.json").write_text('{"ä": 1}', encoding=encoding)
        assert read_json(tmp_path / "a.json") == {"ä": 1}


def test_a_key_that_occurs_twice_is_an_error(photos):
    (photos / "k.json").write_text('{"a.png": {"cap": [1, 2]}, "a.png": {"cap": [3, 4]}}')
    with pytest.raises(FileFormatError, match=r"'a\.png' occurs twice"):
        import_table(photos / "k.json", photos, photos / "data", "bottle")
    (photos / "k.csv").write_text("image,cap_x,cap_y,cap_x,cap_y\na.png,1,2,3,4\n")
    with pytest.raises(FileFormatError, match="the column 'cap_x' occurs twice"):
        import_table(photos / "k.csv", photos, photos / "data", "bottle")


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": "abc"},
        {"keypoints": [[1, 2, 2]]},
        {"bbox": {"x": 1}},
        {"image_id": [1]},
        {"keypoints": [10**5000] * 12},
        {"keypoints": [{}] * 12},
    ],
)
def test_errors_name_the_place_in_the_file(photos, change):
    text = json.dumps(_content(_annotation(**{k: v for k, v in change.items() if k != "keypoints"}), images=("a.png",)))
    if "keypoints" in change:
        value = "[" + ",".join(["1" + "0" * 5000] * 12) + "]" if change["keypoints"][0] == 10**5000 else json.dumps(change["keypoints"])
        text = text.replace(json.dumps(KEYPOINTS), value)
    (photos / "labels.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"labels\.json"):
        import_coco(photos / "labels.json", photos, photos / "data")


def test_broken_exif_does_not_cost_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _picture(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    from semalign3d_core.perception.evidence import read_image

    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(30, 60, 4):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "b.jpg").write_bytes(bytes(damaged))
        with contextlib.suppress(FileFormatError):
            read_image(tmp_path / "b.jpg")
