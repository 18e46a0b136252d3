"""Import of COCO keypoint files: every variation that annotation tools produce."""

import json

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.coco_masks import decode_mask
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.image_finder import ImageFinder
from semalign3d_core.datasets.import_coco import CocoOptions, import_coco
from semalign3d_core.datasets.left_right import flip_permutation, parse_pairs, partner_name, unpaired
from semalign3d_core.perception.masks.precomputed import PrecomputedMasks
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

NAMES = ["nose", "left_ear", "right_ear", "tail"]


def _picture(path, width=60, height=40, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path, **options)


def _entry(number, image, keypoints, **more):
    return {"id": number, "image_id": image, "category_id": 7, "keypoints": keypoints, "bbox": [5, 6, 30, 20], "iscrowd": 0, **more}


@pytest.fixture
def coco(tmp_path):
    """A folder with two pictures and the content of a COCO file about them."""
    for name in ("a.jpg", "deep/b-1.png"):
        _picture(tmp_path / "photos" / name)
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40},
            {"id": 2, "file_name": "upload/3/0a1b2c3d-b-1.png", "width": 60, "height": 40},
        ],
        "categories": [{"id": 7, "name": "toy dog", "keypoints": NAMES, "skeleton": [[1, 2]]}, {"id": 8, "name": "box", "keypoints": []}],
        "annotations": [
            _entry(1, 1, [10, 11, 2, 20, 12, 2, 30, 13, 1, 0, 0, 0], segmentation=[[5, 6, 35, 6, 35, 26, 5, 26]]),
            _entry(2, 2, [12, 13.5, 2, 22, 14, 2, 31, 15, 2, 40, 20, 2]),
        ],
    }
    return tmp_path, content


def _import(folder, content, **options):
    (folder / "labels.json").write_text(json.dumps(content))
    report = import_coco(folder / "labels.json", folder / "photos", folder / "data", CocoOptions(**options))
    return report, FolderDataset(folder / "data")


def test_objects_arrive_in_the_layout(coco):
    folder, content = coco
    report, dataset = _import(folder, content)
    assert dataset.categories() == ["toy_dog"]
    spec = dataset.keypoint_spec("toy_dog")
    assert spec.names == tuple(NAMES) and spec.flip_permutation == (0, 2, 1, 3)
    first, second = dataset.images("toy_dog")
    assert first.name == "a" and second.name == "b_1"
    assert first.keypoints[:2].tolist() == [[10, 11], [20, 12]]
    assert np.isnan(first.keypoints[2:]).all()  # hidden, and not annotated
    assert second.keypoints[0].tolist() == [12, 13.5] and second.keypoints[3].tolist() == [40, 20]
    assert first.box.tolist() == [5, 6, 35, 26] and (first.width, first.height) == (60, 40)
    assert first.path.read_bytes() == (folder / "photos" / "a.jpg").read_bytes()
    assert report.written == {"toy_dog": 2} and report.keypoints["toy_dog"] == {"nose": 2, "left_ear": 2, "right_ear": 1, "tail": 1}


def test_polygons_become_masks_that_the_mask_source_reads(coco):
    from semalign3d_core.perception.evidence import read_image

    folder, content = coco
    _, dataset = _import(folder, content)
    record = dataset.image("toy_dog", "a")
    mask = PrecomputedMasks(dataset_root=folder / "data").segment(read_image(record.path, record))
    assert mask[16, 20] and not mask[30, 20] and not mask[16, 50]
    assert abs(int(mask.sum()) - 31 * 21) <= 60


def _compressed(counts):
    """Run lengths as COCO writes them (an independent encoder)."""
    text = ""
    for n, count in enumerate(counts):
        value, more = count - (counts[n - 2] if n > 2 else 0), True
        while more:
            part, value = value & 31, value >> 5
            more = value != (-1 if part & 16 else 0)
            text += chr((part | (32 if more else 0)) + 48)
    return text


def test_run_lengths_in_both_spellings():
    mask = np.random.default_rng(3).random((23, 31)) > 0.4
    mask[3:15, 4:20] = True
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    for spelling in (counts, _compressed(counts)):
        assert np.array_equal(decode_mask({"counts": spelling, "size": [23, 31]}, 23, 31)[0], mask)
        assert np.array_equal(decode_mask([{"counts": spelling, "size": [23, 31]}], 23, 31)[0], mask)
    with pytest.raises(FileFormatError, match="run lengths describe"):
        decode_mask({"counts": counts[:-2], "size": [23, 31]}, 23, 31)
    assert decode_mask([], 23, 31) == (None, 0)


def test_parts_that_are_no_polygon_are_left_out():
    square = [4, 4, 12, 4, 12, 12, 4, 12]
    whole, left_out = decode_mask([square], 23, 31)
    assert whole.sum() == 81 and left_out == 0
    for spelling, parts in ((square, 0), ([square, [1, 2, 3, 4]], 1), ([square, [], "x", [float("nan")] * 6, [1e300] * 6], 4)):
        mask, left_out = decode_mask(spelling, 23, 31)
        assert np.array_equal(mask, whole) and left_out == parts
    assert decode_mask([[]], 23, 31) == (None, 1)


def test_rectangle_polygon_and_keypoints_as_separate_annotations(coco):
    """Label Studio writes the three of one object as annotations of three categories, with the keypoints' extent as their box."""
    folder, content = coco
    content["categories"] = [{"id": 7, "name": "default", "keypoints": NAMES}, {"id": 8, "name": "dog"}, {"id": 9, "name": "outline"}]
    content["info"] = {"contributor": "Label Studio"}
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 8, "segmentation": [], "bbox": [5, 6, 30, 20], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 9, "segmentation": [[5, 6, 35, 6, 35, 26, 5, 26]], "bbox": [5, 6, 30, 20], "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 8, "segmentation": [], "bbox": [40, 2, 15, 15], "iscrowd": 0},
        {"id": 4, "image_id": 1, "category_id": 9, "segmentation": [[40, 2, 55, 2, 55, 17]], "bbox": [40, 2, 15, 15], "iscrowd": 0},
        _entry(5, 1, [10, 11, 2, 20, 12, 2, 30, 20, 2, 0, 0, 0], bbox=[10, 11, 20, 9]),
    ]
    _, dataset = _import(folder, content, rename="dog")
    assert dataset.image("dog", "a").box.tolist() == [5, 6, 35, 26]
    mask = np.asarray(Image.open(folder / "data" / "Segmentation" / "dog" / "a.png")) > 0
    assert mask[16, 20] and not mask[5, 45:].any()


def test_extent_of_the_keypoints_is_not_the_box_of_the_object(coco):
    folder, content = coco
    content["annotations"][1]["bbox"] = [12, 13.5, 28, 6.5]  # as CVAT writes it
    _, dataset = _import(folder, content)
    low, high = dataset.image("toy_dog", "b_1").box.reshape(2, 2)
    assert (low < [11, 12.5]).all() and (high > [41, 21]).all()


def test_masks_of_a_folder(coco):
    """CVAT exports keypoints without masks, and masks as coloured pictures of their own."""
    folder, content = coco
    (folder / "masks").mkdir()
    colours = np.zeros((40, 60, 3), np.uint8)
    colours[10:30, 5:50] = (0, 90, 0)
    Image.fromarray(colours).save(folder / "masks" / "a.png")
    (folder / "labels.json").write_text(json.dumps(content))
    arguments = ["--images", str(folder / "photos"), "--output", str(folder / "data"), "--masks", str(folder / "masks")]
    assert main(["import", str(folder / "labels.json"), *arguments]) == 0
    mask = np.asarray(Image.open(folder / "data" / "Segmentation" / "toy_dog" / "a.png")) > 0
    assert np.array_equal(mask, colours[..., 1] > 0)
    skipped = json.loads((folder / "data" / "import_report.json").read_text())["skipped"]
    assert len(skipped) == 1 and "b-1.png does not exist" in skipped[0]


def test_hidden_keypoints_can_be_kept(coco):
    folder, content = coco
    _, dataset = _import(folder, content, hidden="keep")
    assert dataset.image("toy_dog", "a").keypoints[2].tolist() == [30, 13]


def test_several_objects_follow_the_policy(coco):
    folder, content = coco
    content["annotations"].append(_entry(3, 1, [50, 30, 2, 51, 31, 2, 52, 32, 2, 53, 33, 2], bbox=[48, 28, 8, 8]))
    content["annotations"].append(_entry(4, 1, [1, 1, 2] * 4, iscrowd=1))
    _, dataset = _import(folder, content)
    assert dataset.image("toy_dog", "a").keypoints[0].tolist() == [50, 30]  # most visible keypoints, although small
    report, dataset = _import(folder, content, objects="each", rename="dog")
    assert report.written == {"dog": 3}
    assert {tuple(dataset.image("dog", name).keypoints[0].tolist()) for name in ("a", "a_2")} == {(10, 11), (50, 30)}


def test_exif_rotation_is_applied_to_picture_and_annotation(coco):
    """The tool annotated the unturned 60 x 40 picture of a phone held upright; what is seen is 40 x 60."""
    folder, content = coco
    exif = Image.Exif()
    exif[0x0112] = 6
    _picture(folder / "photos" / "a.jpg", exif=exif)
    raw = np.asarray(Image.open(folder / "photos" / "a.jpg").convert("RGB"))
    _, dataset = _import(folder, content)
    record = dataset.image("toy_dog", "a")
    seen = np.asarray(Image.open(record.path))
    x, y = record.keypoints[0].astype(int)
    assert seen.shape == (60, 40, 3) and record.width == 40
    assert seen[y, x].tolist() == raw[11, 10].tolist()
    mask = np.asarray(Image.open(folder / "data" / "Segmentation" / "toy_dog" / "a.png")) > 0
    assert mask[y + 3, x - 3] and mask.shape == (60, 40)
    low, high = record.box[:2], record.box[2:]
    assert (low < [x, y]).all() and (high > [x, y]).all()
    content["images"][0].update(width=40, height=60)  # a tool that saw it turned
    _, dataset = _import(folder, content, rename="other")
    assert dataset.image("other", "a").keypoints[0].tolist() == [10, 11]


def test_bad_input_is_listed_or_an_error(coco):
    folder, content = coco
    content["images"] += [
        {"id": 3, "file_name": "missing.jpg", "width": 60, "height": 40},
        {"id": 4, "file_name": "broken.jpg", "width": 60, "height": 40},
        {"id": 5, "file_name": "small.png", "width": 600, "height": 400},
    ]
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    _picture(folder / "photos" / "small.png")
    good = [10, 11, 2] * 4
    content["annotations"] += [_entry(3, 3, good), _entry(4, 4, good), _entry(5, 5, good), _entry(6, 1, [1, 2, 2]), _entry(7, 99, good)]
    content["annotations"][1]["keypoints"][9:] = [400, 20, 2]
    report, dataset = _import(folder, content)
    assert report.written == {"toy_dog": 2}
    text = "\n".join(report.skipped)
    for part in ("missing.jpg is not below", "broken.jpg cannot be read", "its annotation 600 x 400", "has 3 numbers for 4"):
        assert part in text
    assert "keypoint 'tail' at (400.0, 20.0) lies outside" in text and "unknown image 99" in text
    assert np.isnan(dataset.image("toy_dog", "b_1").keypoints[3]).all()
    with pytest.raises(InputError):
        _import(folder, content, on_bad_input="error")


def test_files_that_are_no_keypoint_files_are_refused(coco):
    folder, content = coco
    with pytest.raises(FileFormatError, match="has no annotations, categories"):
        _import(folder, {"images": []})
    content["categories"][0]["keypoints"] = ["nose", "nose", "a", "b"]
    with pytest.raises(FileFormatError, match="names nose twice"):
        _import(folder, content)
    content["categories"][0]["keypoints"] = []
    with pytest.raises(InputError, match="no category has keypoint names"):
        _import(folder, content)
    with pytest.raises(InputError, match="unknown policy for several objects 'all'"):
        _import(folder, content, objects="all")


def test_other_keypoints_do_not_replace_those_that_are_there(coco):
    folder, content = coco
    _import(folder, content)
    content["categories"][0]["keypoints"] = ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="has other keypoints for 'toy_dog'"):
        _import(folder, content)


def test_pairs_come_from_options_file_or_names(coco):
    assert flip_permutation(NAMES) == (0, 2, 1, 3)
    assert flip_permutation(["eyeL", "eyeR", "FinLeft", "FinRight", "mid"]) == (1, 0, 3, 2, 4)
    assert flip_permutation(["a", "b", "c"], [("a", "c")]) == (2, 1, 0)
    assert partner_name("front-left-leg") == "front-right-leg" and partner_name("L_ear") == "R_ear" and partner_name("bolt") is None
    assert unpaired(["left_ear", "rigth_ear"], (0, 1)) == ["left_ear"]
    assert parse_pairs("a:b, c:d") == (("a", "b"), ("c", "d"))
    for pairs, message in (([("a", "x")], "names the keypoint 'x'"), ([("a", "b"), ("b", "c")], "in one pair only")):
        with pytest.raises(InputError, match=message):
            flip_permutation(["a", "b", "c"], pairs)
    with pytest.raises(InputError, match="'ab' is no pair"):
        parse_pairs("ab")
    folder, content = coco
    content["categories"][0]["flip_pairs"] = [[0, 3], [1, 2]]
    _, dataset = _import(folder, content)
    assert dataset.keypoint_spec("toy_dog").flip_permutation == (3, 2, 1, 0)


def test_files_are_found_by_any_tools_name(tmp_path):
    _picture(tmp_path / "one" / "My photo.JPG.png")
    _picture(tmp_path / "one" / "x.png")
    _picture(tmp_path / "two" / "x.png")
    names = ["/data/upload/12345678-My%20photo.JPG.png", "one/x.png", "x.png", "y.png"]
    finder = ImageFinder(tmp_path, names)
    assert finder.find("/data/upload/12345678-My%20photo.JPG.png").name == "My photo.JPG.png"
    assert finder.find("one/x.png") == tmp_path / "one" / "x.png"
    with pytest.raises(InputError, match=r"x\.png is ambiguous"):
        finder.find("x.png")
    with pytest.raises(MissingFileError, match=r"image y\.png is not below"):
        finder.find("y.png")


def test_command_prints_counts_and_remarks(coco, capsys):
    folder, content = coco
    (folder / "labels.json").write_text(json.dumps(content))
    arguments = ["import", str(folder / "labels.json"), "--images", str(folder / "photos"), "--category", "dog"]
    arguments += ["--output", str(folder / "data")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "dog: 2 images" in printed and "left_ear" in printed and "at least 10 are needed" in printed
    report = json.loads((folder / "data" / "import_report.json").read_text())
    assert report["written"] == {"dog": 2} and report["skipped"] == []
    content["annotations"] = []
    (folder / "labels.json").write_text(json.dumps(content))
    assert main(arguments) == 1
