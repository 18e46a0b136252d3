"""The training of the post-processor on a tiny data set: what it learns, that it goes on where it stopped, what it writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_format import write_ap10k_prepared, write_image, write_pf_pascal, write_spair
from safetensors.torch import load_file, save_file
from tiny_dataset import make_dataset

from semalign3d_core.cli.main import main
from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.evaluation.studies.training_validation import validation_on
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.learned.geoaware import train as training
from semalign3d_core.learned.geoaware.losses import LossConfig
from semalign3d_core.learned.geoaware.network import AggregationNetwork, load_network
from semalign3d_core.learned.geoaware.samples import FeatureSource, PairSamples, box_in_cells, keypoints_on_canvas
from semalign3d_core.learned.geoaware.train import GeoAwareTraining, resolved, train_geoaware
from semalign3d_core.perception import backbones
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import InputError

CURVE = Path(__file__).with_name("loss_curve.json")
QUICK = {"width": 128, "validate_every": 8, "checkpoint_every": 4, "validation_pairs": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny data set with mirrored features and a validation split."""
    root = make_dataset(tmp_path_factory.mktemp("data"), images=3)
    for path in (root / "Features").rglob("img?.safetensors"):
        save_file({"features": load_file(path)["features"].flip(-1).contiguous()}, path.with_suffix(".flip.safetensors"))
    (root / "Layout" / "large" / "val.txt").write_text((root / "Layout" / "large" / "test.txt").read_text())
    (root / "PairAnnotation" / "val").symlink_to(root / "PairAnnotation" / "test")
    return root


def run(folder, work, config, split="val", **options):
    return train_geoaware(folder, config, work, "precomputed:sim", validation=validation_on(split), quiet=True, **options)


def losses(work):
    lines = [json.loads(line) for line in (work / "losses.jsonl").read_text().splitlines()]
    return [line for line in lines if "scores" not in line]


@pytest.mark.slow
def test_one_epoch_reproduces_the_stored_curve(folder, tmp_path):
    """Fixed seed; the stored curve was made by this code, so a change of anything in the training shows here."""
    run(folder, tmp_path, GeoAwareTraining(epochs=1, **QUICK))
    found = [{name: round(value, 5) for name, value in line.items()} for line in losses(tmp_path)]
    if "STORE_CURVE" in os.environ:
        CURVE.write_text(json.dumps(found, indent=1))
    stored = json.loads(CURVE.read_text())
    assert len(found) == len(stored) == 12
    for line, expected in zip(found, stored, strict=True):
        assert line == pytest.approx(expected, rel=2e-3, abs=2e-4)


@pytest.mark.slow
def test_interrupted_training_is_bit_equal(folder, tmp_path, monkeypatch):
    config = GeoAwareTraining(steps=11, accumulate=2, **QUICK)
    whole = run(folder, tmp_path / "whole", config).state_dict()
    real = training.Step.__call__

    def stops(self, number):
        if number == 7:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(training.Step, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "part", config)
    monkeypatch.setattr(training.Step, "__call__", real)
    resumed = run(folder, tmp_path / "part", config).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert losses(tmp_path / "whole") == losses(tmp_path / "part")


@pytest.mark.slow
def test_training_learns(folder, tmp_path):
    """The training images themselves are matched better after a few dozen steps, and the page says so."""
    run(folder, tmp_path, GeoAwareTraining(steps=60, learning_rate=3e-3, **QUICK))
    scores = [json.loads(line)["scores"] for line in (tmp_path / "losses.jsonl").read_text().splitlines() if '"scores"' in line]
    assert max(s["PCK@0.1"] for s in scores) > 60 > scores[0]["PCK@0.1"]
    assert "geometry-aware PCK@0.1" in scores[0]
    page = (tmp_path / "training.html").read_text()
    assert "PCK@0.1" in page and "dense" in page and "self" in page


def test_command_writes_both_layouts_and_a_backbone_that_knows_its_features(folder, tmp_path, capsys):
    output = tmp_path / "net.safetensors"
    arguments = ["train", "geoaware", "--dataset", str(folder), "--backbone", "precomputed:sim", "--output", str(output)]
    arguments += ["--work", str(tmp_path / "work"), "--config.steps", "2", "--config.width", "128", "--config.validation-pairs", "2"]
    assert main(arguments) == 0
    ours, official = load_network(output), torch.load(output.with_suffix(".pth"), weights_only=True)
    assert all(torch.equal(value, official[name]) for name, value in ours.state_dict().items())
    record = open_dataset(folder).images("car")[0]
    picture = read_image(record.path, record)
    features = backbones.create(f"geoaware:{output}", folder).extract(picture)
    torch.testing.assert_close(features.values.norm(dim=0), torch.ones(12, 12), atol=1e-4, rtol=0)
    assert features.values.shape[0] == 128 and features.values.min() >= 0
    again = [*arguments[:-6], "--config.steps", "3", "--config.width", "128"]
    assert main(again) == 2
    assert "other settings" in capsys.readouterr().err


def test_official_layout_has_48_tensors(tmp_path):
    from semalign3d_core.learned.geoaware.network import save_network

    network = AggregationNetwork()
    save_network(network, tmp_path / "full.safetensors", {})
    stored = torch.load(tmp_path / "full.pth", weights_only=True)
    official = json.loads((Path(__file__).parents[2] / "data/vectors/geoaware/state_dict_official.json").read_text())["shapes"]
    assert {name: list(value.shape) for name, value in stored.items()} == official and len(stored) == 48
    for name in ("full.safetensors", "full.pth"):
        loaded = load_network(tmp_path / name).state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


def test_training_starts_from_a_trained_network(folder, tmp_path):
    from semalign3d_core.learned.geoaware.network import save_network

    first = run(folder, tmp_path / "first", GeoAwareTraining(steps=3, **QUICK))
    save_network(first, tmp_path / "first.safetensors", {})
    still = GeoAwareTraining(steps=1, learning_rate=0.0, schedule="constant", **QUICK)
    second = run(folder, tmp_path / "second", still, initial=tmp_path / "first.safetensors")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(InputError, match="width"):
        run(folder, tmp_path / "third", GeoAwareTraining(steps=1, **{**QUICK, "width": 256}), initial=tmp_path / "first.safetensors")


def test_samples_follow_the_pairs(folder, tmp_path):
    source = FeatureSource("precomputed:sim", "none", folder, tmp_path, "cpu")
    samples = PairSamples(open_dataset(folder), source, "trn", ("chair",), True, 42)
    assert len(samples) == 6
    names = [samples.names[i] for i in torch.randperm(6, generator=torch.Generator().manual_seed(42)).tolist()]
    pair = open_dataset(folder).pair("trn", names[2])
    sample = samples.at(2)
    assert sample.features.shape == (4, 16, 12, 12) and sample.permutation.tolist() == [1, 0, 2, 3, 4]
    stored = load_file(folder / "Features/sim/chair" / f"{pair.source.name}.flip.safetensors")["features"].float()
    expected = torch.nn.functional.normalize(stored, dim=0) * 4  # mean square 1
    torch.testing.assert_close(sample.features[2].float(), expected, atol=5e-3, rtol=0)
    assert sample.keypoints.shape == (2, 5, 3)
    assert sorted({samples.at(6 + i).keypoints.sum().item() for i in range(6)}) == sorted(
        {samples.at(i).keypoints.sum().item() for i in range(6)}
    )  # another order of the same pairs
    with pytest.raises(InputError, match="no pairs of bottle"):
        PairSamples(open_dataset(folder), source, "trn", ("bottle",), True, 42)


def test_keypoints_and_boxes_in_the_frame_of_the_cells():
    keypoints = torch.tensor([[0.0, 0.0], [99.0, 49.0], [float("nan"), 1.0], [150.0, 10.0]]).numpy()
    record = ImageRecord("car", "a", Path("a.jpg"), 50, 100, keypoints, torch.tensor([10.0, 10.0, 60.0, 40.0]).numpy())
    grid = SquareGrid(50, 100, 10)
    found = keypoints_on_canvas(record, grid)
    assert found[:, 2].tolist() == [1, 1, 0, 0]  # the last one lies beyond the square
    assert found[0, :2].tolist() == pytest.approx([4.2, 4.2]) and found[1, :2].tolist() == pytest.approx([835.8, 415.8])
    assert box_in_cells(record, grid, "bbox") == 5 and box_in_cells(record, grid, "image") == 10
    centred = keypoints_on_canvas(record, SquareGrid(50, 100, 60, "canvas"))
    assert centred[0].tolist() == [0, 210, 1]  # as published


def test_recipes_follow_the_data_set(folder):
    config = resolved(GeoAwareTraining(), open_dataset(folder))
    assert (config.epochs, config.schedule, config.pose_variants, config.validation_pairs) == (2, "one_cycle", True, 0)
    assert resolved(GeoAwareTraining(epochs=3, pose_variants=False), open_dataset(folder)).epochs == 3
    with pytest.raises(InputError, match="multiple of 128"):
        resolved(GeoAwareTraining(width=100), open_dataset(folder))


def test_grid_of_the_published_code_moves_and_is_not_kept(folder, tmp_path):
    network = run(folder, tmp_path, GeoAwareTraining(steps=3, moving_grid=True, schedule="constant", **QUICK))
    assert "grid" not in network.state_dict()
    grid = load_file(tmp_path / "checkpoint.safetensors")["module.pair.grid"]
    assert not torch.equal(grid, torch.linspace(-1, 1, 12).repeat(2, 1))


@pytest.mark.slow
def test_two_processes_train_one_network(folder, tmp_path):
    """torchrun with two processes: both take pairs of their own, one network comes out."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "semalign3d_core.cli.main"]
    command += ["train", "geoaware", "--dataset", str(folder), "--backbone", "precomputed:sim", "--output", str(tmp_path / "n.safetensors")]
    command += ["--work", str(tmp_path / "work"), "--config.steps", "3", "--config.width", "128", "--config.validation-pairs", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(losses(tmp_path / "work")) == 3
    assert load_network(tmp_path / "n.safetensors").width == 128


def test_losses_can_be_left_out(folder, tmp_path):
    run(folder, tmp_path, GeoAwareTraining(steps=1, losses=LossConfig(dense=False, variants=False), **QUICK))
    assert set(losses(tmp_path)[0]) == {"step", "loss", "sparse"}


@pytest.mark.parametrize("kind", ["ap10k", "pf_pascal", "spair"])
def test_the_chain_of_the_published_runs_on_their_own_formats(kind, tmp_path):
    """Pre-training on AP-10K, training on SPair-71k, fine-tuning on PF-PASCAL read the data sets as they are published."""
    root = tmp_path / "SPair-71k" if kind == "spair" else tmp_path / kind
    {"ap10k": write_ap10k_prepared, "pf_pascal": write_pf_pascal, "spair": write_spair}[kind](root)
    if kind == "ap10k":  # the hand-made lists have no pairs for training, or none with common keypoints
        shutil.copytree(root / "PairAnnotation" / "test", root / "PairAnnotation" / "trn")
        shutil.copytree(root / "PairAnnotation" / "test_cross_species", root / "PairAnnotation" / "val_cross_species")
    if kind == "spair":
        shutil.copytree(root / "PairAnnotation" / "val", root / "PairAnnotation" / "trn", dirs_exist_ok=True)
        shutil.copy(root / "Layout" / "large" / "val.txt", root / "Layout" / "large" / "trn.txt")
    _write_features(open_dataset(root), root)
    config = GeoAwareTraining(steps=2, width=128, validate_every=2, checkpoint_every=1)
    split = {"ap10k": "val_cross_species"}.get(kind, "val")
    run(root, tmp_path / "work", config, split)
    (first, second) = losses(tmp_path / "work")
    assert ("self" in first) == (kind != "pf_pascal")


def _write_features(dataset, root):
    """Random features of all images."""
    (root / "Features" / "sim").mkdir(parents=True)
    (root / "Features" / "sim" / "grid.json").write_text('{"padding": "canvas"}')
    records = {record.path: record for split in dataset.splits() for pair in dataset.pairs(split) for record in (pair.source, pair.target)}
    for path, record in records.items():
        if not path.is_file():
            write_image(path, record.width, record.height)
        for end in ("", ".flip"):
            target = root / "Features" / "sim" / record.category / f"{record.name}{end}.safetensors"
            target.parent.mkdir(exist_ok=True)
            save_file({"features": torch.randn(16, 12, 12).half()}, target)
