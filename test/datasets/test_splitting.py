"""Splits and pairs of imported categories: disjoint, repeatable, in the files that build and eval_spair read."""

import json

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.calibration.recipe import training_records
from semalign3d_core.cli.main import main
from semalign3d_core.datasets import open_dataset
from semalign3d_core.runtime.errors import InputError


def imported(folder, category, count=10, *options):
    photos = folder / category
    photos.mkdir(exist_ok=True)
    points = {}
    for n in range(count):
        Image.fromarray(np.full((40, 50, 3), n, np.uint8)).save(photos / f"p{n}.png")
        points[f"p{n}.png"] = {"cap": [10, 10 + n], "base": [20, 30], "left_edge": [5, 20] if n % 2 else None}
    (folder / f"{category}.json").write_text(json.dumps(points))
    command = ["import", str(folder / f"{category}.json"), "--images", str(photos), "--output", str(folder / "data")]
    return main([*command, "--category", category, *options])


def names(dataset, category, split):
    return {record.name for record in dataset.images(category, split)}


def test_three_tenths_are_kept_for_the_test(tmp_path, capsys):
    assert imported(tmp_path, "bottle") == 0 == imported(tmp_path, "mug", 12)
    assert "bottle: splits trn 7 images, 42 pairs; test 3 images, 6 pairs" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "data")
    assert dataset.splits() == ["test", "trn"]
    train, test = names(dataset, "bottle", "trn"), names(dataset, "bottle", "test")
    assert not train & test and len(train | test) == 10
    assert {record.name for record in training_records(dataset, "bottle", "trn", 0)} == train
    assert len(names(dataset, "mug", "test")) == 4  # the second category stands beside the first
    pair = next(iter(dataset.pairs("test", categories=("bottle",))))
    assert pair.attributes["kps_ids"][:2] == ["0", "1"] and pair.attributes["trg_kps"][0] == pair.target.keypoints[0].tolist()
    before = dataset.pair_names("test")
    assert imported(tmp_path, "bottle") == 0 and sorted(open_dataset(tmp_path / "data").pair_names("test")) == sorted(before)


def test_pairs_and_shares_can_be_chosen(tmp_path):
    assert imported(tmp_path, "bottle", 10, "--split", "0.5", "--pairs", "4") == 0
    dataset = open_dataset(tmp_path / "data")
    assert len(names(dataset, "bottle", "test")) <= 5 and len(dataset.pair_names("test")) == 4 == len(dataset.pair_names("trn"))
    assert imported(tmp_path, "mug", 5, "--split", "0") == 0
    assert imported(tmp_path, "vase", 5, "--split", "1") == 2


def test_without_splits_all_images_train(tmp_path):
    assert imported(tmp_path, "bottle", 6, "--split", "0") == 0
    dataset = open_dataset(tmp_path / "data")
    assert dataset.splits() == [] and len(training_records(dataset, "bottle", "trn", 0)) == 6
    with pytest.raises(InputError, match="unknown category"):
        training_records(dataset, "chair", "trn", 0)


def test_what_a_killed_import_left_is_no_image(tmp_path):
    assert imported(tmp_path, "bottle") == 0
    before = sorted(open_dataset(tmp_path / "data").pair_names("test"))
    for left in (".semalign3d-x1y2z3.json", "._p0.json"):
        (tmp_path / "data" / "ImageAnnotation" / "bottle" / left).write_bytes(b"")
    assert imported(tmp_path, "bottle") == 0 and sorted(open_dataset(tmp_path / "data").pair_names("test")) == before
