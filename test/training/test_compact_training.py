"""The training of the embedded backbone: its loss means what it says, and an interrupted run is the uninterrupted run."""

import numpy as np
import pytest
import torch

from semalign3d_core.errors import FileFormatError
from semalign3d_core.training import compact
from semalign3d_core.training.checkpoint import load_checkpoint
from semalign3d_core.training.compact import (
    CompactTraining,
    SurfaceEmbedding,
    contrastive_loss,
    draw_points,
    place_loss,
    train_compact,
)
from semalign3d_core.training.samples import SampleSet


def points(count=20, seed=0):
    """Places of one category and two background points, and unit keys that differ."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.cat([torch.rand(count, 3, generator=generator), torch.zeros(2, 3)]).double()
    categories = torch.tensor([0] * count + [-1, -1])
    keys = torch.nn.functional.normalize(torch.randn(count + 2, 32, generator=generator).double(), dim=1)
    keys[-1] = keys[-2]
    return coordinates, categories, keys


def test_loss_is_least_where_features_are_the_embeddings_of_their_places():
    coordinates, categories, keys = points()
    right = contrastive_loss(keys, keys, coordinates, categories, 0.05, 0.01)
    swapped = contrastive_loss(keys[[*range(19, -1, -1), 20, 21]], keys, coordinates, categories, 0.05, 0.01)
    assert right < 0.5  # background has two equal keys: log 2 for 2 of 22 points remains
    assert swapped > 5 * right


def test_near_places_share_the_target_and_other_categories_do_not():
    _, _, keys = points(2)
    near = torch.tensor([[0.0, 0, 0], [0.01, 0, 0], [9, 9, 9], [9, 9, 9]]).double()
    both = contrastive_loss(keys[[0, 0, 2, 2]], keys[[0, 0, 2, 2]], near, torch.tensor([0, 0, -1, -1]), 0.05, 0.1)
    apart = contrastive_loss(keys[[0, 0, 2, 2]], keys[[0, 1, 2, 2]], near, torch.tensor([0, 1, -1, -1]), 0.05, 0.1)
    assert both < 0.9  # log 2: either of the two near places may be meant
    assert apart > 2  # the second is another category at the same place: its feature must not be that of the first


def test_loss_gradient():
    coordinates, categories, keys = points(4)
    descriptors = keys.flip(0).contiguous().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, k: contrastive_loss(d, k, coordinates, categories, 0.5, 0.1), (descriptors, keys.clone().requires_grad_())
    )


def test_place_loss_asks_for_places_on_the_object_only():
    canonical = torch.full((1, 4, 4, 3), torch.nan)
    canonical[0, :2] = 0.25
    labels = torch.tensor([1])
    perfect = torch.zeros(1, 3 + 3, 4, 4)
    perfect[:, :3] = 0.25
    perfect[:, 3, 2:] = perfect[:, 5, :2] = 30.0  # background below, category 1 above
    assert place_loss(perfect, canonical, labels) < 1e-6
    wrong_place, ignored = perfect.clone(), perfect.clone()
    wrong_place[:, 0, 0] = 0.5
    ignored[:, 0, 3] = 0.5
    assert place_loss(wrong_place, canonical, labels) > 0.1
    assert place_loss(ignored, canonical, labels) < 1e-6


def test_surface_embedding_tells_places_and_categories_apart():
    torch.manual_seed(0)
    surface = SurfaceEmbedding(2, 16)
    coordinates = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.4, 0.2, 0.3], [0.1, 0.2, 0.3]])
    keys = surface(coordinates, torch.tensor([0, 1, 0, -1, -1]))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(5))
    assert (keys[0] - keys[1]).norm() > 1e-2 and (keys[0] - keys[2]).norm() > 1e-2
    torch.testing.assert_close(keys[3], keys[4])  # the background has no places


def test_draw_points_takes_object_and_background_cells():
    canonical = torch.full((2, 6, 6, 3), torch.nan)
    canonical[:, 2:4, 2:4] = 0.5
    features = torch.arange(2 * 36.0).reshape(2, 1, 6, 6)
    config = CompactTraining(points=3, background_points=5)
    descriptors, coordinates, categories = draw_points(features, canonical, np.array([4, 2]), config, np.random.default_rng(0))
    assert categories.tolist() == [4] * 3 + [-1] * 5 + [2] * 3 + [-1] * 5
    assert (descriptors[:8] < 36).all() and (descriptors[8:] >= 36).all()
    assert (coordinates[categories >= 0] == 0.5).all()
    inside = canonical[..., 0].reshape(-1) == 0.5
    assert (inside[descriptors[:, 0].long()] == (categories >= 0)).all()


@pytest.fixture
def samples(monkeypatch):
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (8, 240, 240, 3), dtype=np.uint8)
    canonical = np.full((8, 60, 60, 3), np.nan, np.float16)
    canonical[:, 20:40, 20:40] = generator.uniform(-0.3, 0.3, (20, 20, 3))
    stored = SampleSet(pictures, canonical, np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    monkeypatch.setattr(compact.SampleSet, "render", lambda *_, **__: stored)
    return stored


def test_interrupted_training_equals_uninterrupted(samples, tmp_path, monkeypatch):
    config = CompactTraining(categories=("a", "b"), steps=4, checkpoint_every=2, points=20, background_points=5)
    whole = train_compact(config, tmp_path, tmp_path / "whole.safetensors", quiet=True)

    real, calls = compact.training_step, []

    def interrupted(*arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(compact, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_compact(config, tmp_path, tmp_path / "part.safetensors", quiet=True)
    monkeypatch.setattr(compact, "training_step", real)
    resumed = train_compact(config, tmp_path, tmp_path / "part.safetensors", quiet=True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_batches_keep_pictures_and_places_together(samples):
    """A patch that is bright in the picture and lies at one template place stays both, cropped, resized and mirrored."""
    samples.pictures[:] = 0
    samples.pictures[:, 80:160, 40:120] = 255
    samples.canonical = np.full((8, 60, 60, 3), np.nan, np.float16)
    samples.canonical[:, 20:40, 10:30] = np.array([0.25, 0.1, 0.2])
    signs = set()
    for side in (80, 160):
        for seed in range(4):
            images, places, labels = samples.batch(4, np.random.default_rng(seed), side)
            assert images.shape == (8, 3, side, side) and labels.tolist() == [0] * 4 + [1] * 4
            bright = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)[:, 0]
            known = ~torch.isnan(places[..., 0])
            for picture, marked, place in zip(bright, known, places, strict=True):
                lit = picture > 0.75 * picture.max() + 0.25 * picture.min()  # borders are grey
                assert torch.allclose(lit.nonzero().float().mean(0), marked.nonzero().float().mean(0), atol=0.7)
                values = place[marked]
                assert torch.allclose(values.abs(), torch.tensor([0.25, 0.1, 0.2]).expand_as(values), atol=1e-3)
                signs.add(float(values[0, 0].sign()))
    assert signs == {-1.0, 1.0}  # mirrored pictures show the mirrored place


def test_broken_checkpoint_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a checkpoint")
    network = torch.nn.Linear(1, 1)
    with pytest.raises(FileFormatError, match="broken.safetensors"):
        load_checkpoint(path, network, torch.optim.AdamW(network.parameters()))
