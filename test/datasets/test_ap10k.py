import json
import shutil

import numpy as np
import pytest
from published_format import write_ap10k_download, write_ap10k_prepared

from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.ap10k import Ap10kDataset
from semalign3d_core.datasets.ap10k_pairs import split_images
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


@pytest.fixture
def download(tmp_path):
    return write_ap10k_download(tmp_path / "ap-10k")


@pytest.fixture
def prepared(tmp_path):
    return write_ap10k_prepared(tmp_path / "prepared")


def test_the_benchmark_is_built_from_the_download(download):
    dataset = open_dataset(download)
    assert isinstance(dataset, Ap10kDataset)
    assert dataset.categories() == ["cat", "fox", "king cheetah", "Felidae", "all"]
    test = list(dataset.pairs("test"))
    assert {p.category for p in test} == {"cat", "fox", "king cheetah"}
    assert all(p.source.category == p.target.category == p.category for p in test)
    crossed = list(dataset.pairs("test_cross_species"))
    assert {p.category for p in crossed} == {"Felidae"} and len(crossed) == 900
    assert all({p.source.category, p.target.category} == {"cat", "king cheetah"} for p in crossed)
    families = list(dataset.pairs("test_cross_family"))
    assert {p.category for p in families} == {"all"} and len(families) == 30
    assert {p.source.category for p in families} == {"fox"} and {p.target.category for p in families} <= {"cat", "king cheetah"}


def test_splits_do_not_share_images_and_pairs_have_three_common_keypoints(download):
    dataset = open_dataset(download)
    used = {split: {r.name for p in dataset.pairs(split) for r in (p.source, p.target)} for split in ("trn", "val", "test")}
    assert not used["val"] & used["test"] and not used["trn"] & (used["val"] | used["test"])
    for pair in dataset.pairs("val"):
        flags = [np.array(r.attributes["keypoints"][2::3]) / 2 for r in (pair.source, pair.target)]
        assert (flags[0] * flags[1]).sum() >= 3


def test_crowds_are_left_out_and_the_result_is_always_the_same(download):
    first, second = open_dataset(download), open_dataset(download)
    names = {r.name for r in first.images("fox")}
    assert "000000000001" not in names and "000000000002" in names
    for split in ("trn", "val", "test", "val_cross_species", "test_cross_family"):
        assert first.pair_names(split) == second.pair_names(split)


def test_hidden_keypoints_stay_where_they_are_annotated(download):
    record = open_dataset(download).images("cat")[0]
    flags = np.array(record.attributes["keypoints"][2::3])
    assert (flags == 1).any()
    assert (np.isfinite(record.keypoints[:, 0]) == (flags > 0)).all()
    k = int(np.flatnonzero(flags == 1)[0])
    assert record.keypoints[k].tolist() == [10 + k, 20 + 2 * k]
    assert record.box.tolist() == [5, 6, 45, 36] and (record.height, record.width) == (80, 64)
    assert record.path.name == f"{record.name}.jpg"


def test_the_prepared_folder_is_read_with_its_own_lists(prepared):
    dataset = open_dataset(prepared)
    assert isinstance(dataset, Ap10kDataset) and dataset.categories() == ["cat", "lion", "Felidae", "all"]
    assert dataset.pair_names("test") == ["000000000001-000000000002:cat"]
    crossed = list(dataset.pairs("test_cross_species", categories=["Felidae"]))
    assert [(p.source.category, p.target.category) for p in crossed] == [("cat", "lion")] * 2
    assert crossed[0].source.path.is_file()
    assert [r.name for r in dataset.images("Felidae", "test_cross_species")] == ["000000000001", "000000000002", "000000000003"]
    assert dataset.keypoint_spec("cat").names[dataset.keypoint_spec("cat").flip_permutation[5]] == "right shoulder"


def test_split_sizes_are_the_published_ones():
    sizes = {n: {part: len(ids) for part, ids in split_images(list(range(n))).items()} for n in (4, 36, 60)}
    assert sizes[4] == {"train": 0, "val": 0, "test": 4}
    assert sizes[36] == {"train": 0, "val": 6, "test": 30}
    assert sizes[60] == {"train": 10, "val": 20, "test": 30}
    assert split_images(list(range(60)))["test"][0] == 30


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [("annotations/ap10k-val-split1.json", "ap-10k.zip"), ("data", "ap-10k.zip"), ("ap-10k_is_crowd.txt", "GeoAware-SC")],
)
def test_an_incomplete_download_names_the_file_and_the_page(download, missing, remedy):
    path = download / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingFileError) as error:
        open_dataset(download)
    assert missing in str(error.value) and remedy in str(error.value)


def test_bad_requests_and_files_are_named(download, prepared):
    dataset = open_dataset(download)
    with pytest.raises(InputError, match=r"no split 'train'.*test_cross_family"):
        dataset.pair_names("train")
    with pytest.raises(InputError, match="unknown category 'wolf'"):
        dataset.images("wolf")
    with pytest.raises(InputError, match="layout"):
        dataset.pair_names("test", "small")
    with pytest.raises(MissingFileError, match="there are the splits test, test_cross_species"):
        open_dataset(prepared).pair_names("val")
    path = prepared / "ImageAnnotation" / "Felidae" / "cat" / "000000000001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"keypoints": [1, 2, 2]}))
    with pytest.raises(FileFormatError, match="000000000001"):
        next(open_dataset(prepared).pairs("test"))


def test_families_and_all_animals_have_the_images_of_their_species(download):
    """Models of families and of all animals, for the pairs between species and families, are built from pairs within species."""
    dataset = open_dataset(download)
    images = {category: {record.name for record in dataset.images(category, "test")} for category in dataset.categories()}
    assert images["Felidae"] == images["cat"] | images["king cheetah"] != set()
    assert images["all"] == images["cat"] | images["king cheetah"] | images["fox"]
    crossed = {record.name for record in dataset.images("Felidae", "test_cross_species")}
    assert crossed and crossed <= images["Felidae"]
