"""Training SFNet on a few pictures: it learns, goes on where it stopped, and chooses by its validation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pyramid import TinyPyramid

from semalign3d_core.cli.train.sfnet import Options, training_pictures
from semalign3d_core.learned.sfnet import ablation, train
from semalign3d_core.learned.sfnet.network import SFNetConfig
from semalign3d_core.learned.sfnet.pictures import masked_pictures
from semalign3d_core.learned.sfnet.train import Batches, Lesson, SFNetTraining, new_network, train_sfnet
from semalign3d_core.runtime.errors import InputError

CONFIG = SFNetTraining(SFNetConfig(pyramid="colours", cells=8), epochs=2, batch=4, learning_rate=1e-3, drop_after=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for module in (train, ablation):
        monkeypatch.setattr(module, "create_pyramid", lambda spec: TinyPyramid().eval().requires_grad_(False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight pictures of smooth colours with their masks."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    mask = np.zeros((60, 80), np.uint8)
    mask[15:45, 20:60] = 255
    for number in range(8):
        colours = Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)
        colours.save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def states_agree(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_batches_depend_on_the_seed_and_the_step_alone(folder):
    pictures = masked_pictures(folder)
    in_order, later = Batches(pictures, CONFIG), Batches(pictures, CONFIG)
    first = [in_order(step) for step in range(3)]
    torch.testing.assert_close(later(2), first[2], rtol=0, atol=0)
    assert not torch.equal(first[0][0][0], first[2][0][0])  # another epoch draws other views
    assert first[0][0][0].shape == (4, 3, 128, 128) and set(first[0][1][0].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.slow
def test_an_interrupted_training_ends_as_an_uninterrupted_one(folder, tmp_path):
    pictures = masked_pictures(folder)
    whole = train_sfnet(pictures, CONFIG, tmp_path / "whole", quiet=True)

    def interrupt(network):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sfnet(pictures, CONFIG, tmp_path / "parts", validate=interrupt, quiet=True)
    states_agree(train_sfnet(pictures, CONFIG, tmp_path / "parts", quiet=True), whole)
    assert not whole.training


@pytest.mark.slow
def test_the_statistics_are_updated_by_source_and_target(folder, tmp_path):
    network = train_sfnet(masked_pictures(folder), CONFIG, tmp_path, quiet=True)
    steps = CONFIG.epochs * 2
    assert network.adap_layer_feat3.conv1[1].num_batches_tracked == 2 * steps


def test_the_best_epoch_is_kept(folder, tmp_path):
    """A validation that likes the first epoch best gets that network."""
    kept, scores = [], iter([60.0, 50.0])

    def validate(network):
        kept.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(scores)

    network = train_sfnet(masked_pictures(folder), CONFIG, tmp_path, validate, quiet=True)
    torch.testing.assert_close(network.state_dict(), kept[0], rtol=0, atol=0)


@pytest.mark.slow
def test_repeating_a_batch_lowers_its_losses(folder):
    config = SFNetTraining(CONFIG.network, batch=4, learning_rate=1e-2)
    batches = Batches(masked_pictures(folder), config)
    first = batches(0)

    class Same:
        per_epoch = 1000

        def __call__(self, step):
            return first

    lesson = Lesson({"one": (new_network(config.network, TinyPyramid(), 0), config.losses)}, Same(), config)
    totals = [float(sum(lesson.step(number).values())) for number in range(60)]
    assert totals[-1] < 0.8 * totals[0]


@pytest.mark.slow
def test_all_variants_are_trained_and_named(folder, tmp_path):
    """Every row of the tables has a network, the full one is what a training alone gives, and left out losses have no part in theirs."""
    networks = ablation.train_variants(masked_pictures(folder), CONFIG, tmp_path / "all", quiet=True)
    assert {name for _, name, *_ in ablation.ROWS if name} == set(networks) == set(ablation.TRAINED)
    states_agree(networks["full"], train_sfnet(masked_pictures(folder), CONFIG, tmp_path / "full", quiet=True))
    assert set(networks["level 3"].state_dict()) < set(networks["full"].state_dict())


def test_pictures_are_chosen_by_the_seed(folder):
    options = Options(dataset=(folder, folder), pictures=5, config=CONFIG)
    chosen = training_pictures(options)
    assert len(chosen) == 5 and chosen == training_pictures(options)
    (folder / "list.csv").write_text("source,target\nJPEGImages/3.jpg,JPEGImages/5.jpg\n")
    left = training_pictures(Options(dataset=(folder,), left_out=folder / "list.csv", config=CONFIG))
    assert {Path(picture.picture).stem for picture in left} == {"0", "1", "2", "4", "6", "7"}
    with pytest.raises(InputError, match="one batch of 16"):
        Batches(left, SFNetTraining())
