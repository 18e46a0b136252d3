"""The training of the embedded backbone: its loss means what it says, and an interrupted run is the uninterrupted run."""

import numpy as np
import pytest
import torch

from semalign3d_core.errors import FileFormatError, InputError
from semalign3d_core.training import compact
from semalign3d_core.training.checkpoint import load_checkpoint
from semalign3d_core.training.compact import CompactTraining, contrastive_loss, draw_points, train_compact
from semalign3d_core.training.samples import SampleSet


def points(count=20, seed=0):
    """Two images of one category that show the same places, and one background point each."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 3, generator=generator)
    coordinates = torch.cat([places, places, torch.zeros(2, 3)])
    categories = torch.tensor([0] * 2 * count + [-1, -1])
    images = torch.tensor([0] * count + [1] * count + [0, 1])
    return places, coordinates, categories, images


def embed(coordinates, seed=1, channels=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.sin(coordinates @ (8 * torch.randn(3, channels, generator=generator))), dim=1)


def test_loss_prefers_features_that_follow_the_template():
    places, coordinates, categories, images = points()
    good = embed(coordinates)
    shuffled = torch.cat([good[:20], good[20:40].flip(0), good[40:]])
    low = contrastive_loss(good, coordinates, categories, images, 0.07, 0.02)
    high = contrastive_loss(shuffled, coordinates, categories, images, 0.07, 0.02)
    assert low < 0.7 * high


def test_loss_does_not_see_the_own_image_as_positive_or_negative():
    _, coordinates, categories, images = points()
    descriptors = embed(coordinates).double()
    changed = descriptors.clone()
    # The queries of image 0 against keys of image 0: only their own similarities change when the image alone is rotated.
    single = images == 0
    with pytest.raises(InputError, match="same part"):
        contrastive_loss(changed[single], coordinates[single], categories[single], images[single], 0.07, 0.02)


def test_missing_parts_are_left_out():
    _, coordinates, categories, images = points()
    far = coordinates.clone()
    far[0] += 10  # a part that the other image does not have
    loss = contrastive_loss(embed(coordinates), far, categories, images, 0.07, 0.02)
    assert torch.isfinite(loss)


def test_loss_gradient():
    _, coordinates, categories, images = points(4)
    descriptors = embed(coordinates, channels=6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda d: contrastive_loss(d, coordinates.double(), categories, images, 0.5, 0.1), descriptors)


def test_draw_points_takes_object_and_background_cells():
    canonical = torch.full((2, 6, 6, 3), torch.nan)
    canonical[:, 2:4, 2:4] = 0.5
    features = torch.arange(2 * 36.0).reshape(2, 1, 6, 6)
    config = CompactTraining(points=3, background_points=5)
    descriptors, coordinates, categories, images = draw_points(features, canonical, np.array([4, 2]), config, np.random.default_rng(0))
    assert categories.tolist() == [4] * 3 + [-1] * 5 + [2] * 3 + [-1] * 5
    assert images.tolist() == [0] * 8 + [1] * 8
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


def test_mirrored_samples_have_mirrored_templates(samples):
    samples.pictures[:] = 0
    samples.pictures[:, :, :120] = 200
    canonical = np.full((8, 60, 60, 3), np.nan, np.float16)
    canonical[:, :, :30] = np.array([0.25, 0.1, 0.2])
    samples.canonical = canonical
    images, places, _ = samples.batch(4, np.random.default_rng(3))
    mirrored = images[:, :, :, :120].mean((1, 2, 3)) < images[:, :, :, 120:].mean((1, 2, 3))
    assert mirrored.any() and not mirrored.all()
    for flipped, place in zip(mirrored, places, strict=True):
        half = place[:, 30:] if flipped else place[:, :30]
        expected = torch.tensor([-0.25 if flipped else 0.25, 0.1, 0.2])
        assert torch.allclose(half, expected.expand_as(half), atol=1e-3)
        assert torch.isnan(place[:, :30] if flipped else place[:, 30:]).all()


def test_broken_checkpoint_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a checkpoint")
    network = torch.nn.Linear(1, 1)
    with pytest.raises(FileFormatError, match="broken.safetensors"):
        load_checkpoint(path, network, torch.optim.AdamW(network.parameters()))
