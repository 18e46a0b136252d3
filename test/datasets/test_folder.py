import json

import numpy as np
import pytest
from published_format import write_ap10k_prepared, write_pf_pascal, write_spair

from semalign3d_core.datasets import DATASETS, open_dataset
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.records import ImageRecord, PairRecord
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


@pytest.fixture
def root(tmp_path):
    """A folder of an own category with three keypoints."""
    root = write_spair(tmp_path / "own", category="garden gnome")
    for path in (root / "ImageAnnotation" / "garden gnome").glob("*.json"):
        content = json.loads(path.read_text())
        content["kps"] = {"0": [4, 5], "2": None}
        path.write_text(json.dumps(content))
    specs = {"garden gnome": {"names": ["hat", "left boot", "right boot"], "flip_permutation": [0, 2, 1]}}
    (root / "keypoints.json").write_text(json.dumps(specs))
    return root


def test_own_categories_come_with_their_names_and_mirror_labels(root):
    dataset = open_dataset(root)
    assert type(dataset) is FolderDataset and dataset.categories() == ["garden gnome"]
    assert dataset.keypoint_spec("garden gnome").names == ("hat", "left boot", "right boot")
    keypoints = dataset.images("garden gnome")[0].keypoints
    assert keypoints.shape == (3, 2) and keypoints[0].tolist() == [4, 5] and np.isnan(keypoints[1:]).all()


def test_parts_that_look_alike_are_listed_or_are_the_mirror_pairs(root):
    assert open_dataset(root).geometry_groups("garden gnome") == ((1, 2),)
    specs = {"garden gnome": {"names": ["hat", "left boot", "right boot"], "flip_permutation": [0, 2, 1], "groups": [[0, 1, 2]]}}
    (root / "keypoints.json").write_text(json.dumps(specs))
    assert open_dataset(root).geometry_groups("garden gnome") == ((0, 1, 2),)
    specs["garden gnome"]["groups"] = [[1, 3]]
    (root / "keypoints.json").write_text(json.dumps(specs))
    with pytest.raises(FileFormatError, match="groups of garden gnome"):
        open_dataset(root).geometry_groups("garden gnome")


def test_category_names_with_spaces_and_colons_in_pair_names(root):
    dataset = open_dataset(root)
    pairs = list(dataset.pairs("test", categories="garden gnome"))
    assert len(pairs) == 2 and pairs[0].category == "garden gnome"
    assert [r.name for r in dataset.images("garden gnome", "val")] == ["2008_000001", "2008_000002"]


def test_image_names_with_hyphens_are_taken_from_the_annotation(root):
    folder = root / "ImageAnnotation" / "garden gnome"
    (folder / "a-b.json").write_text((folder / "2008_000001.json").read_text())
    name = "000007-a-b-2008_000002:garden gnome"
    content = json.loads((root / "PairAnnotation" / "val" / "000001-2008_000002-2008_000001:garden gnome.json").read_text())
    content |= {"src_imname": "a-b.jpg", "trg_imname": "2008_000002.jpg"}
    (root / "PairAnnotation" / "val" / f"{name}.json").write_text(json.dumps(content))
    (root / "Layout" / "large" / "val.txt").write_text(name + "\n")
    assert [r.name for r in open_dataset(root).images("garden gnome", "val")] == ["2008_000002", "a-b"]


def test_a_pair_that_names_a_missing_image_says_which_pair_and_which_image(root):
    (root / "ImageAnnotation" / "garden gnome" / "2009_000003.json").unlink()
    pairs = open_dataset(root).pairs("test")
    next(pairs)
    with pytest.raises(MissingFileError, match=r"000002-.*2009_000003"):
        next(pairs)


@pytest.mark.parametrize(
    ("content", "problem"),
    [('{"garden gnome": {"names": ["a", "b", "c"], "flip_permutation": [1, 2, 0]}}', "must pair its 3 labels"),
     ('{"garden gnome": {"names": ["a"]}}', "flip_permutation"), ("[]", "must be an object"), ("{", "not valid JSON")],
)  # fmt: skip
def test_a_damaged_keypoint_file_is_named(root, content, problem):
    (root / "keypoints.json").write_text(content)
    with pytest.raises(FileFormatError, match=problem) as error:
        open_dataset(root).keypoint_spec("garden gnome")
    assert "keypoints.json" in str(error.value)


def test_without_keypoint_file_only_published_categories_work(root):
    (root / "keypoints.json").unlink()
    with pytest.raises(MissingFileError, match=r"keypoints\.json does not give the keypoints of 'garden gnome'"):
        open_dataset(root).images("garden gnome")


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="pf_willow"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="unknown data set kind 'spair71'"):
        open_dataset(tmp_path, "spair71")
    with pytest.raises(MissingFileError, match="ImageAnnotation"):
        open_dataset(tmp_path, "folder")


def test_splits_are_those_with_lists(root, tmp_path):
    assert open_dataset(root).splits() == ["test", "trn", "val"]
    assert open_dataset(write_pf_pascal(tmp_path / "pascal")).splits() == ["trn", "val", "test"]
    assert open_dataset(write_ap10k_prepared(tmp_path / "prepared")).splits() == ["test", "test_cross_species"]
    for path in (root / "Layout" / "large").iterdir():
        path.unlink()
    assert open_dataset(root).splits() == []


def test_every_kind_says_what_it_is_scored_by():
    for kind in DATASETS.values():
        assert kind.threshold_kind in ("bbox", "image") and kind.annotation in ("keypoints", "masks")


def test_a_pair_without_colon_belongs_to_its_source():
    image = ImageRecord("mug", "a", None, 1, 1, np.zeros((0, 2)))
    assert PairRecord("0-a-a", image, image).category == "mug" and PairRecord("0-a-a:all", image, image).category == "all"
