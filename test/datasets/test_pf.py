import shutil

import numpy as np
import pytest
from published_format import write_pf_pascal, write_pf_willow
from scipy.io import savemat

from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.pf_pascal import PfPascalDataset
from semalign3d_core.datasets.pf_willow import PfWillowDataset
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


@pytest.fixture
def pascal(tmp_path):
    return write_pf_pascal(tmp_path / "PF-dataset-PASCAL")


@pytest.fixture
def willow(tmp_path):
    return write_pf_willow(tmp_path / "PF-dataset")


def test_pascal_test_pairs_take_their_keypoints_from_the_list(pascal):
    dataset = open_dataset(pascal)
    assert isinstance(dataset, PfPascalDataset) and dataset.threshold_kind == "image"
    (pair,) = dataset.pairs("test")
    assert pair.name == "000001-2008_000001-2008_000002:bird" and pair.category == "bird"
    assert pair.source.keypoints[:2].tolist() == [[10.5, 12.25], [30.0, 8.0]] and np.isnan(pair.source.keypoints[2:]).all()
    assert pair.target.keypoints[1].tolist() == [31.0, 9.0]
    assert (pair.source.height, pair.source.width) == (40, 60) and pair.target.box.tolist() == [5, 6, 45, 30]


def test_pascal_training_pairs_and_images_take_them_from_mat_files_with_gaps(pascal):
    dataset = open_dataset(pascal)
    (pair,) = dataset.pairs("trn")
    assert pair.source.keypoints.shape == (20, 2)
    assert np.flatnonzero(np.isfinite(pair.source.keypoints[:, 0])).tolist() == [0, 2]
    assert [r.name for r in dataset.images("bird")] == ["2008_000001", "2008_000002"]
    assert [r.name for r in dataset.images("bird", "test")] == ["2008_000001", "2008_000002"]
    assert dataset.images("cat", "test") == []
    assert len(dataset.categories()) == 20


def test_pascal_lists_of_other_toolkits_have_shorter_names(pascal):
    (pascal / "test_pairs_pf_pascal.csv").rename(pascal / "test_pairs.csv")
    assert len(open_dataset(pascal).pair_names("test")) == 1


@pytest.mark.parametrize(
    "missing", ["test_pairs_pf_pascal.csv", "JPEGImages", "Annotations", "JPEGImages/2008_000002.jpg", "Annotations/bird/2008_000002.mat"]
)
def test_an_incomplete_pascal_names_the_file_and_the_page(pascal, missing):
    path = pascal / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingFileError) as error:
        dataset = PfPascalDataset(pascal)
        list(dataset.pairs("test"))
        list(dataset.pairs("trn"))
    assert missing.rpartition("/")[2] in str(error.value) and "proposalflow" in str(error.value)


def test_damaged_pascal_files_are_named(pascal):
    dataset = open_dataset(pascal)
    mat = pascal / "Annotations" / "bird" / "2008_000001.mat"
    savemat(mat, {"kps": np.zeros((2, 3))})
    with pytest.raises(FileFormatError, match=r"2008_000001\.mat: kps of shape"):
        dataset.image("bird", "2008_000001")
    mat.write_bytes(b"MATLAB 5.0 MAT-file, broken")
    with pytest.raises(FileFormatError, match="not a readable MATLAB file"):
        dataset.image("bird", "2008_000001")
    savemat(mat, {"bbox": np.zeros((1, 4))})
    with pytest.raises(FileFormatError, match="no variable kps"):
        dataset.image("bird", "2008_000001")
    savemat(mat, {"kps": np.zeros((2, 2))})
    assert dataset.image("bird", "2008_000001").box is None, "a box is not needed where thresholds are relative to the image"


@pytest.mark.parametrize(
    ("row", "problem"),
    [("a.jpg,b.jpg,3,1;2,1;2,1;2", "6 columns"), ("a.jpg,b.jpg,21,1;2,1;2,1;2,1;2", "class '21'"), ("a.jpg,b.jpg,x,1,1,1,1", "class 'x'")],
)
def test_a_damaged_pascal_list_is_named(pascal, row, problem):
    (pascal / "test_pairs_pf_pascal.csv").write_text(f"source_image,target_image,class,XA,YA,XB,YB\n{row}\n")
    with pytest.raises(FileFormatError, match=problem):
        open_dataset(pascal).pairs("test")


def test_a_pascal_pair_with_unequal_lists_is_named(pascal):
    path = pascal / "test_pairs_pf_pascal.csv"
    path.write_text(path.read_text().replace("10.5;30.0", "10.5"))
    with pytest.raises(FileFormatError, match="1 x and 2 y"):
        list(open_dataset(pascal).pairs("test"))
    path.write_text(path.read_text().replace(",10.5,", ",10.5;oops,"))
    with pytest.raises(FileFormatError, match="oops"):
        list(open_dataset(pascal).pairs("test"))


def test_willow_categories_have_brackets_and_ten_keypoints(willow):
    dataset = open_dataset(willow)
    assert isinstance(dataset, PfWillowDataset) and dataset.categories() == ["car(G)", "winebottle(woC)"]
    pair = next(dataset.pairs("test", categories=["winebottle(woC)"]))
    assert pair.category == "winebottle(woC)" and pair.source.path.is_file()
    assert pair.source.keypoints[3].tolist() == [11.5, 8.75] and pair.target.keypoints[3].tolist() == [12.5, 10.75]
    assert pair.target.box.tolist() == [2.0, 4.0, 33.5, 24.25], "the reference length is the extent of the keypoints"
    assert [r.name for r in dataset.images("car(G)")] == ["060_0036", "060_0041"]
    assert len(dataset.keypoint_spec("car(G)").names) == 10


def test_bad_requests_of_willow_are_named(willow):
    dataset = open_dataset(willow)
    with pytest.raises(InputError, match="no split 'val'"):
        dataset.pair_names("val")
    with pytest.raises(InputError, match="unknown category 'car'"):
        dataset.pairs("test", categories=["car"])
    (willow / "car(G)" / "060_0036.png").unlink()
    with pytest.raises(MissingFileError, match=r"car\(G\)/060_0036.png.*PF-dataset.zip"):
        dataset.images("car(G)")
    (willow / "test_pairs_pf.csv").unlink()
    with pytest.raises(MissingFileError, match=r"test_pairs_pf\.csv"):
        open_dataset(willow)
