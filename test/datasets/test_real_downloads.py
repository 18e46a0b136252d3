"""What real downloads are like: odd line ends, void labels, strings for numbers, half-extracted archives, nested folders."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from published_format import (
    spair_image,
    spair_pair,
    write_ap10k_download,
    write_ap10k_prepared,
    write_caltech,
    write_image,
    write_json,
    write_pf_pascal,
    write_pf_willow,
    write_spair,
)
from scipy.io import savemat

from semalign3d_core.datasets import open_dataset
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.perception.masks.precomputed import PrecomputedMasks
from semalign3d_core.runtime.errors import InputError, MissingFileError

WRITERS = {
    "spair": write_spair,
    "ap10k": write_ap10k_download,
    "ap10k prepared": write_ap10k_prepared,
    "pf_pascal": write_pf_pascal,
    "pf_willow": write_pf_willow,
    "caltech101": write_caltech,
}


def crlf(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def test_spair_lists_with_dos_line_ends_and_blank_lines(tmp_path):
    root = write_spair(tmp_path / "SPair-71k")
    layout = root / "Layout" / "large" / "test.txt"
    before = open_dataset(root).pair_names("test")
    layout.write_text(layout.read_text() + "\n\n")
    crlf(layout)
    assert open_dataset(root).pair_names("test") == before and all(name.endswith(":cat") for name in before)


def test_spair_segmentation_has_void_borders_and_the_classes_number(tmp_path):
    root = write_spair(tmp_path / "SPair-71k")
    values = np.zeros((40, 60), np.uint8)
    values[10:30, 20:50], values[10, 20:50], values[29, 20:50] = 8, 255, 255  # 8 is the cat of PASCAL VOC, 255 the void around it
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([v for index in range(256) for v in (index % 7 * 36, index % 5 * 51, index % 3 * 85)])
    picture.save(root / "Segmentation" / "cat" / "2008_000001.png")
    record = open_dataset(root).image("cat", "2008_000001")
    mask = PrecomputedMasks(root).segment(read_image(record.path, record))
    assert mask.sum() == 18 * 30 and not mask[10].any() and mask[11, 20:50].all()


def test_the_order_of_a_pairs_keypoints_is_that_of_its_own_list(tmp_path):
    """kps_ids are strings, src_kps and trg_kps stand in their order; both are integers in the file."""
    root = write_spair(tmp_path / "SPair-71k")
    images = [json.loads((root / "ImageAnnotation" / "cat" / f"2008_00000{n}.json").read_text()) for n in (1, 2)]
    name = open_dataset(root).pair_names("test")[0]
    write_json(root / "PairAnnotation" / "test" / f"{name}.json", spair_pair(*images, "cat", [4, 0]))
    pair = open_dataset(root).pair("test", name)
    assert pair.attributes["kps_ids"] == ["4", "0"] and pair.attributes["src_kps"] == [[30, 8], [10, 12]]
    assert pair.source.keypoints[[4, 0]].tolist() == pair.attributes["src_kps"]


def test_images_of_one_name_in_two_categories_are_two_images(tmp_path):
    root = write_spair(tmp_path / "SPair-71k")
    content = spair_image("2008_000001", "dog", {3: [1, 2]}, size=(30, 20))
    write_json(root / "ImageAnnotation" / "dog" / "2008_000001.json", content)
    write_image(root / "JPEGImages" / "dog" / "2008_000001.jpg", 30, 20)
    dataset = open_dataset(root)
    assert dataset.image("dog", "2008_000001").width == 30 and dataset.image("cat", "2008_000001").width == 60
    assert dataset.categories() == ["cat", "dog"]


def test_willow_has_the_same_names_in_all_categories_and_fractions_in_the_list(tmp_path):
    root = write_pf_willow(tmp_path / "PF-dataset")
    crlf(root / "test_pairs_pf.csv")
    pairs = list(open_dataset(root).pairs("test"))
    assert [pair.source.name for pair in pairs] == ["060_0036"] * 2 and len({pair.source.path for pair in pairs}) == 2
    assert pairs[0].source.keypoints[1].tolist() == [4.5, 4.25]


def test_pascal_lists_may_have_a_length_column_a_byte_order_mark_and_spaces(tmp_path):
    root = write_pf_pascal(tmp_path / "PF-dataset-PASCAL")
    path = root / "test_pairs_pf_pascal.csv"
    header, row = path.read_text().split()
    path.write_bytes(b"\xef\xbb\xbf" + f"{header},L\r\n{row.replace(';', '; ')},288.5\r\n".encode())
    (pair,) = open_dataset(root).pairs("test")
    assert pair.source.keypoints[:2].tolist() == [[10.5, 12.25], [30.0, 8.0]]


def test_pascal_mat_files_are_compressed_and_hold_more_than_is_needed(tmp_path):
    root = write_pf_pascal(tmp_path / "PF-dataset-PASCAL")
    keypoints = np.array([[10, 12], [np.nan, np.nan], [30, 8]])
    content = {"kps": keypoints, "bbox": np.array([[5, 6, 45, 30]], np.uint16), "class": "bird", "part": {"x": np.arange(3)}}
    savemat(root / "Annotations" / "bird" / "2008_000001.mat", content, do_compression=True)
    record = open_dataset(root).image("bird", "2008_000001")
    assert np.isnan(record.keypoints[1]).all() and record.keypoints[2].tolist() == [30, 8] and record.box.tolist() == [5, 6, 45, 30]


def test_ap10k_keeps_what_is_hidden_but_labelled_and_drops_coordinates_of_what_is_not(tmp_path):
    root = write_ap10k_download(tmp_path / "ap-10k")
    path = root / "annotations" / "ap10k-test-split1.json"
    content = json.loads(path.read_text())
    annotation = content["annotations"][0]
    annotation["keypoints"][:9] = [11, 12, 2, 13, 14, 1, 15, 16, 0]
    annotation["bbox"] = [0.5, 1.25, 40.5, 30.0]
    annotation["num_keypoints"] = 17
    path.write_text(json.dumps(content))
    name = content["categories"][annotation["category_id"] - 1]["name"]
    record = open_dataset(root).image(name, f"{annotation['image_id']:012d}")
    assert record.keypoints[0].tolist() == [11, 12] and record.keypoints[1].tolist() == [13, 14] and np.isnan(record.keypoints[2]).all()
    assert record.box.tolist() == [0.5, 1.25, 41.0, 31.25]


@pytest.mark.parametrize(
    ("kind", "kept", "missing", "remedy"),
    [
        ("spair", ("PairAnnotation",), "ImageAnnotation", "SPair-71k.tar.gz"),
        ("spair", ("Layout",), "ImageAnnotation", "SPair-71k.tar.gz"),
        ("spair", ("ImageAnnotation", "Layout"), "JPEGImages", "tar -xzf SPair-71k.tar.gz"),
        ("ap10k", ("annotations",), "data", "ap-10k.zip"),
        ("ap10k prepared", ("PairAnnotation",), "annotations", "ap-10k.zip"),
        ("pf_pascal", ("Annotations",), "JPEGImages", "PF-dataset-PASCAL.zip"),
        ("pf_pascal", ("test_pairs_pf_pascal.csv",), "JPEGImages", "PF-dataset-PASCAL.zip"),
        ("pf_willow", ("car(G)",), "test_pairs_pf.csv", "PF-dataset.zip"),
        ("caltech101", ("test_pairs_caltech_with_category.csv",), "101_ObjectCategories", "D1.20086"),
    ],
)
def test_a_part_of_a_download_is_recognised_and_the_rest_is_asked_for(tmp_path, kind, kept, missing, remedy):
    root = WRITERS[kind](tmp_path / "data")
    for path in list(root.iterdir()):
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingFileError) as error:
        open_dataset(root)
    assert str(root / missing) in str(error.value) and remedy in str(error.value)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "ap10k"])
def test_a_missing_picture_says_where_to_get_it(tmp_path, kind):
    root = WRITERS[kind](tmp_path / "data")
    dataset = open_dataset(root)
    split = dataset.splits()[-1]
    record = next(dataset.pairs(split)).source
    record.path.unlink()
    with pytest.raises(MissingFileError) as error:
        read_image(record.path, record)
    assert str(record.path) in str(error.value) and ("https://" in str(error.value))


def test_an_empty_annotation_folder_is_a_half_extracted_spair(tmp_path):
    root = write_spair(tmp_path / "SPair-71k")
    shutil.rmtree(root / "ImageAnnotation" / "cat")
    with pytest.raises(MissingFileError, match=r"ImageAnnotation/cat.*SPair-71k\.tar\.gz"):
        open_dataset(root).pair_names("test")


def test_a_folder_around_the_data_set_is_seen_through(tmp_path):
    write_spair(tmp_path / "downloads" / "SPair-71k")
    with pytest.raises(InputError, match=r"they are in .*downloads/SPair-71k"):
        open_dataset(tmp_path / "downloads")
