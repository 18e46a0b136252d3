"""From a data set folder to a mapper: samples, learning, going on after an interruption, the command."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from ball_world import CELLS, CHANNELS, write_balls
from PIL import Image

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.learned.spherical_maps.samples import SampleConfig, gather_samples, random_crop
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, load_mapper, read_facts, save_spherical_maps
from semalign3d_core.learned.spherical_maps.train import SphericalTraining, Trainer
from semalign3d_core.perception import backbones, masks
from semalign3d_core.runtime.errors import FileFormatError, InputError


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return write_balls(tmp_path_factory.mktemp("balls"), images=40)


def gather(root, folder, config=SampleConfig(), images=slice(None), backbone="precomputed:ball"):  # noqa: B008 (frozen)
    records = FolderDataset(root).images("car")[images]
    providers = backbones.create(backbone, root), masks.create("precomputed", root)
    return gather_samples(records, ("car",), *providers, folder, config, quiet=True)


def test_samples_hold_what_the_files_say(balls, tmp_path):
    samples = gather(balls, tmp_path, SampleConfig(viewpoints="degrees"))
    record = FolderDataset(balls).images("car")[3]
    stored = backbones.create("precomputed:ball", balls)
    features, cells = samples.take(torch.tensor([3]))
    assert (len(samples), samples.cells, samples.channels) == (40, CELLS, CHANNELS)
    assert float(samples.degrees[3]) == pytest.approx(record.attributes["azimuth_deg"])
    values = features[0].T.reshape(CHANNELS, CELLS, CELLS)
    torch.testing.assert_close(values.norm(dim=0), torch.full((CELLS, CELLS), CHANNELS**0.5), rtol=1e-2, atol=0)  # scaled unit features
    picture = np.array(Image.open(balls / "Segmentation" / "car" / f"{record.name}.png"))
    assert np.array_equal(cells[0, :, 0].reshape(CELLS, CELLS).numpy() > 0.5, picture[2::4, 2::4] > 0)
    assert stored.channels == CHANNELS
    some = torch.arange(5)[None]
    torch.testing.assert_close(samples.take(torch.tensor([3]), some)[0][0], features[0, :5])


def test_bins_are_used_by_their_middle_and_mirror_images_are_seen_from_the_other_side(balls, tmp_path):
    record = FolderDataset(balls).images("car")[0]
    samples = gather(balls, tmp_path)
    assert float(samples.degrees[0]) == record.attributes["azimuth_id"] * 45 + 22.5
    with pytest.raises(InputError, match="made in another way"):
        gather(balls, tmp_path, SampleConfig(viewpoints="degrees"))


def test_crops_of_a_real_backbone_and_published_masks(balls, tmp_path):
    config = SampleConfig(crops=2, side=96, masks="published", mirror_azimuth=90.0, viewpoints="degrees")
    samples = gather(balls, tmp_path, config, slice(0, 2), backbone="efficientnet_lite:0,side=96")
    assert len(samples) == 8  # two crops of two images, each with its mirror image
    _, cells = samples.take(torch.arange(8))
    values = cells.reshape(8, samples.cells, samples.cells)
    assert ((values > 0) & (values < 1)).any() or ((values < 0) | (values > 1)).any()  # bicubic borders stay fractions
    azimuth = float(samples.degrees[0])
    assert samples.degrees.tolist()[:4] == pytest.approx([azimuth, azimuth, 180 - azimuth, 180 - azimuth])
    with pytest.raises(InputError, match="whole images only"):
        gather(balls, tmp_path / "other", SampleConfig(crops=2))


def test_random_crops_stay_inside_and_have_the_published_shapes():
    rng = np.random.default_rng(0)
    crops = np.array([random_crop(100, 160, rng) for _ in range(300)])
    top, left, height, width = crops.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 100).all() and (left + width <= 160).all()
    assert ((height * width) / 16000 > 0.49).all() and (width / height < 1.4).all() and (width / height > 0.7).all()
    assert random_crop(10, 100, rng) == (0, 43, 10, 13)  # nothing fits: the middle, as wide as aspects allow


def test_missing_viewpoint_is_an_error(balls, tmp_path):
    record = FolderDataset(balls).images("car")[0]
    blank = dataclasses.replace(record, attributes={"azimuth_id": -1})
    with pytest.raises(FileFormatError, match="azimuth_id"):
        gather_samples([blank], ("car",), backbones.create("precomputed:ball", balls), masks.create("precomputed", balls), tmp_path)


@pytest.mark.slow
def test_sides_of_unseen_images_are_learned(balls, tmp_path):
    known = gather(balls, tmp_path / "known", SampleConfig(viewpoints="degrees"), slice(0, 30))
    unseen = gather(balls, tmp_path / "unseen", SampleConfig(viewpoints="degrees"), slice(30, None))
    trainer = Trainer(known, 1, SphericalTraining(cells=64, batch=12))
    before = trainer.validate(unseen)["median_azimuth_error"]
    for number in range(100):
        losses = trainer.step(number)
    assert losses["viewpoint"] < 0.15 and losses["orientation"] < 0.4
    assert trainer.validate(unseen)["median_azimuth_error"] < min(20, before)


def test_width_and_cosine_schedule(balls, tmp_path):
    samples = gather(balls, tmp_path)
    with pytest.raises(InputError, match="multiple of 64"):
        Trainer(samples, 1, SphericalTraining(width=100))
    trainer = Trainer(samples, 1, SphericalTraining(steps=4, batch=4, cells=32, width=128, schedule="cosine"))
    save_spherical_maps(trainer.model, tmp_path / "wide.safetensors", MapperFacts("precomputed", False, ("car",)))
    assert load_mapper(tmp_path / "wide.safetensors")[0].out_features == 128
    rates = []
    for number in range(4):
        trainer.step(number)
        rates.append(trainer.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 0.8536e-3, 0.5e-3, 0.1464e-3], rel=1e-3)


COMMAND = ["train", "spherical_maps", "--backbone", "precomputed:ball", "--split", "test", "--validation", "test"]


@pytest.mark.slow
def test_command_goes_on_where_it_was_stopped(balls, tmp_path, capsys):
    def run(name, steps):
        work, output = tmp_path / name, tmp_path / f"{name}.safetensors"
        options = ["--config.steps", str(steps), "--config.batch", "4", "--config.cells", "32", "--config.checkpoint-every", "3"]
        code = main([*COMMAND, "--dataset", str(balls), "--work", str(work), "--output", str(output), *options])
        assert code == 0, capsys.readouterr().err
        return output

    run("parts", 3)
    assert run("parts", 6).read_bytes() == run("whole", 6).read_bytes()
    assert read_facts(tmp_path / "whole.safetensors").categories == ("car",)
    page = (tmp_path / "whole" / "training.html").read_text()
    assert "viewpoint" in page and "data:image/jpeg" in page and "azimuth" in page
    scores = [json.loads(line) for line in (tmp_path / "whole" / "losses.jsonl").read_text().splitlines()]
    assert {"azimuth_within_half_a_bin", "median_azimuth_error"} == set(next(s["scores"] for s in scores if "scores" in s))
