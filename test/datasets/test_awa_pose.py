"""AwA-Pose: keypoints of the first annotator, the pair list across animals, and a whole evaluation of a method on it."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.cli.eval_spair import main as eval_spair
from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.awa_pose import PARTS
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

SOURCE = {"bbox": [10.0, 10.0, 60.0, 50.0], "nose": [12.0, 20.0], "left_eye": [15.5, 18.0], "right_eye": [-1, -1], "tail_end": [58.0, 30.0]}
TARGET = {"bbox": [5.0, 5.0, 85.0, 45.0], "nose": [80.0, 22.0], "left_eye": [70.0, 12.0], "right_eye": [72.0, 13.0], "antlers": [3.0]}


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for animal, name, parts in (("horse", "horse_10001", SOURCE), ("polar+bear", "polar+bear_10007", TARGET), ("ox", "ox_10003", {})):
        for folder in ("Annotations", "JPEGImages"):
            (tmp_path / folder / animal).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).save(tmp_path / "JPEGImages" / animal / f"{name}.jpg")
        other = {"nose": [1.0, 1.0]}
        (tmp_path / "Annotations" / animal / f"{name}.pickle").write_bytes(pickle.dumps({"a1": parts, "a2": other}))
    horse, bear, ox = "horse/horse_10001.jpg", "polar+bear/polar+bear_10007.jpg", "ox/ox_10003.jpg"
    (tmp_path / "random_pairs.txt").write_text(f"{horse} {bear}\n{horse} {ox}\n{bear} {horse}\n")
    return tmp_path


def test_pairs_across_animals(root):
    dataset = open_dataset(root)
    assert dataset.categories() == ["horse", "ox", "polar+bear", "all"]
    first, second = dataset.pair_names("test")  # a target without a box has no threshold
    assert first == "1-horse_10001-polar+bear_10007:all" and second.startswith("3-")
    pair = dataset.pair("test", first)
    common = np.flatnonzero(np.isfinite(pair.source.keypoints).all(1) & np.isfinite(pair.target.keypoints).all(1))
    assert [PARTS[k] for k in common] == ["nose", "left_eye"]
    assert pair.target.keypoints[PARTS.index("left_eye")].tolist() == [70.0, 12.0] and pair.target.box.tolist() == [5, 5, 85, 45]
    assert [record.name for record in dataset.images("all", "test")] == ["horse_10001", "polar+bear_10007"]
    assert [record.name for record in dataset.images("ox")] == ["ox_10003"]


def test_sides_change_places_in_the_mirror(root):
    spec = open_dataset(root).keypoint_spec("all")
    assert len(spec.names) == 39
    partner = {name: spec.names[k] for name, k in zip(spec.names, spec.flip_permutation, strict=True)}
    assert partner["left_eye"] == "right_eye" and partner["back_right_paw"] == "back_left_paw" and partner["nose"] == "nose"
    assert sum(name == other for name, other in partner.items()) == 13


@pytest.mark.slow
def test_a_method_is_scored_on_it(root, tmp_path):
    arguments = ["--dataset", str(root), "--backbone", "compact", "--method", "nearest_neighbour", "--output", str(tmp_path / "out")]
    assert eval_spair(arguments) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["per_category"]["all"]["pairs"] == 2 and 0 <= results["all"]["pck"]["0.1"]["per_point"] <= 100


def test_what_is_wrong_is_named(root):
    path = root / "Annotations" / "ox" / "ox_10003.pickle"
    path.write_bytes(pickle.dumps({"a1": {"nose": [1.0]}}))
    with pytest.raises(FileFormatError, match="without x and y"):
        open_dataset(root).images("ox")
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a command
    with pytest.raises(FileFormatError, match="asks for os"):
        open_dataset(root).images("ox")
    with pytest.raises(InputError, match="no split 'trn'"):
        open_dataset(root).pair_names("trn")
    (root / "random_pairs.txt").unlink()
    with pytest.raises(MissingFileError, match="random_pairs"):
        open_dataset(root, "awa_pose")
