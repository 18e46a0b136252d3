import shutil

import numpy as np
import pytest
from published_format import spair_image, write_json, write_spair

from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.spair import SpairDataset, SpairUDataset
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.perception.masks.precomputed import PrecomputedMasks
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


@pytest.fixture
def root(tmp_path):
    return write_spair(tmp_path / "SPair-71k")


def test_null_keypoints_are_nan_and_labels_stay_raw(root):
    dataset = open_dataset(root)
    assert isinstance(dataset, SpairDataset) and dataset.threshold_kind == "bbox"
    record = dataset.image("cat", "2008_000001")
    assert record.keypoints.shape == (30, 2) and record.keypoints.dtype == np.float32
    assert np.flatnonzero(np.isfinite(record.keypoints[:, 0])).tolist() == [0, 1, 4]
    assert record.keypoints[4].tolist() == [30, 8] and record.box.tolist() == [5, 5, 45, 35]
    assert (record.height, record.width) == (40, 60) and record.attributes["azimuth_id"] == 2
    assert record.path.is_file()


def test_splits_layouts_and_pair_attributes(root):
    dataset = open_dataset(root)
    assert [len(dataset.pair_names(split)) for split in ("trn", "val", "test")] == [1, 1, 2]
    assert len(list(dataset.pairs("test", layout="small"))) == 1
    pair = next(dataset.pairs("test", categories=["cat"]))
    assert pair.name == "000001-2008_000001-2008_000002:cat" and pair.category == "cat"
    assert (pair.source.name, pair.target.name) == ("2008_000001", "2008_000002")
    assert (pair.attributes["viewpoint_variation"], pair.attributes["occlusion"]) == (2, 3)
    assert [r.name for r in dataset.images("cat", "val")] == ["2008_000001", "2008_000002"]
    assert len(dataset.images("cat")) == 3


def test_the_mirror_table_is_the_published_one(root):
    spec = open_dataset(root).keypoint_spec("cat")
    assert spec.flip_permutation[:13] == (1, 0, 3, 2, 5, 4, 7, 6, 8, 10, 9, 12, 11) and spec.flip_permutation[13:] == tuple(range(13, 30))
    assert len(spec.names) == len(set(spec.names)) == 30
    assert FolderDataset(root).keypoint_spec("cat") == spec
    assert open_dataset(root).geometry_groups("cat") == ((2, 3), (9, 10, 11, 12))


def test_palette_masks_of_the_data_set_are_read(root):
    record = open_dataset(root).image("cat", "2008_000001")
    mask = PrecomputedMasks(root).segment(read_image(record.path, record))
    assert mask.sum() == 200 and mask[25, 30] and not mask[0, 0]


@pytest.mark.parametrize(
    "missing",
    ["JPEGImages", "ImageAnnotation", "Layout/large/test.txt", "PairAnnotation/test/000001-2008_000001-2008_000002:cat.json",
     "ImageAnnotation/cat/2008_000002.json"],
)  # fmt: skip
def test_a_half_extracted_download_names_the_file_and_where_to_get_it(root, missing):
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingFileError) as error:
        list(SpairDataset(root).pairs("test"))
    assert missing in str(error.value) and "SPair-71k.tar.gz" in str(error.value)


def test_pairs_of_a_category_that_was_not_extracted_are_missed(root):
    list_file = root / "Layout" / "large" / "test.txt"
    list_file.write_text(list_file.read_text() + "000009-2008_1-2008_2:dog\n")
    with pytest.raises(MissingFileError, match="ImageAnnotation/dog"):
        open_dataset(root).pairs("test")


def test_unknown_names_are_refused_at_once(root):
    dataset = open_dataset(root)
    with pytest.raises(InputError, match=r"unknown category 'unicorn'.*cat"):
        dataset.pairs("test", categories=["unicorn"])
    with pytest.raises(InputError, match="unknown category"):
        dataset.images("unicorn")
    with pytest.raises(MissingFileError, match="splits are trn, val and test"):
        dataset.pairs("training")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [({"kps": {"0": [1]}}, "expected kps"), ({"kps": {"31": [1, 2]}}, "keypoint '31' of 30"), ({"kps": {"0": [1, "x"]}}, "could not"),
     ({"bndbox": [1, 2]}, "expected kps, bndbox"), ({"image_width": None}, "image_width"), ({"kps": {"2": [1, float("nan")]}}, "expected")],
)  # fmt: skip
def test_a_damaged_annotation_names_file_and_key(root, damage, problem):
    write_json(root / "ImageAnnotation" / "cat" / "2008_000001.json", spair_image("2008_000001", "cat", {0: [1, 2]}) | damage)
    with pytest.raises(FileFormatError, match=problem) as error:
        open_dataset(root).image("cat", "2008_000001")
    assert "2008_000001.json" in str(error.value)


def test_a_corrupt_jpeg_is_named(root):
    record = open_dataset(root).image("cat", "2008_000001")
    record.path.write_bytes(record.path.read_bytes()[:200])
    with pytest.raises(FileFormatError, match=r"2008_000001\.jpg"):
        read_image(record.path, record)


def test_spair_u_finds_images_and_layout_of_the_folder_beside_it(root, tmp_path):
    extra = tmp_path / "SPair-U"
    annotation = {name: spair_image(name, "cat", {0: [2, 2], 1: [5, 5]}) for name in ("2008_000001", "2008_000002")}
    for name, content in annotation.items():
        write_json(extra / "ImageAnnotation" / "cat" / f"{name}.json", content)
    pair = root / "PairAnnotation" / "test" / "000001-2008_000001-2008_000002:cat.json"
    (extra / "PairAnnotation" / "test").mkdir(parents=True)
    shutil.copy(pair, extra / "PairAnnotation" / "test")
    dataset = open_dataset(extra)
    assert isinstance(dataset, SpairUDataset)
    pairs = list(dataset.pairs("test"))
    assert len(pairs) == 1, "a pair of the layout without new annotation is not part of it"
    assert pairs[0].source.keypoints[1].tolist() == [5, 5] and pairs[0].source.path.is_file()
    assert dataset.keypoint_spec("cat").flip_permutation == tuple(range(30))
    shutil.rmtree(root)
    with pytest.raises(MissingFileError, match=r"SPair-U\.zip"):
        open_dataset(extra)
