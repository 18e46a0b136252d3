"""The training of the embedded backbone: its loss means what it says, and an interrupted run is the uninterrupted run."""

from dataclasses import replace

import pytest
import torch

from semalign3d_core.learned.compact import train as compact
from semalign3d_core.learned.compact.samples import SampleSet, chunk_jobs
from semalign3d_core.learned.compact.train import (
    CompactTraining,
    SurfaceEmbedding,
    contrastive_loss,
    draw_points,
    place_loss,
    save_network,
    train_compact,
)
from semalign3d_core.learned.loop import is_started
from semalign3d_core.perception.backbones.compact import load_network
from semalign3d_core.runtime.errors import InputError, MissingFileError


def points(count=20, seed=0):
    """Places of one category and two background points, and unit keys that differ."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.cat([torch.rand(count, 3, generator=generator), torch.zeros(2, 3)]).double()
    categories = torch.tensor([0] * count + [-1, -1])
    keys = torch.nn.functional.normalize(torch.randn(count + 2, 32, generator=generator).double(), dim=1)
    keys[-1] = keys[-2]
    return coordinates, categories, keys


def loss_of(descriptors, keys, coordinates, categories, temperature, tolerance):
    return contrastive_loss(descriptors, keys, coordinates, categories, torch.ones(len(keys)).double(), temperature, tolerance)


def test_loss_is_least_where_features_are_the_embeddings_of_their_places():
    coordinates, categories, keys = points()
    right = loss_of(keys, keys, coordinates, categories, 0.05, 0.01)
    swapped = loss_of(keys[[*range(19, -1, -1), 20, 21]], keys, coordinates, categories, 0.05, 0.01)
    assert right < 0.5  # background has two equal keys: log 2 for 2 of 22 points remains
    assert swapped > 5 * right


def test_near_places_share_the_target_and_other_categories_do_not():
    _, _, keys = points(2)
    near = torch.tensor([[0.0, 0, 0], [0.01, 0, 0], [9, 9, 9], [9, 9, 9]]).double()
    both = loss_of(keys[[0, 0, 2, 2]], keys[[0, 0, 2, 2]], near, torch.tensor([0, 0, -1, -1]), 0.05, 0.1)
    apart = loss_of(keys[[0, 0, 2, 2]], keys[[0, 1, 2, 2]], near, torch.tensor([0, 1, -1, -1]), 0.05, 0.1)
    assert both < 0.9  # log 2: either of the two near places may be meant
    assert apart > 2  # the second is another category at the same place: its feature must not be that of the first


def test_loss_gradient():
    coordinates, categories, keys = points(4)
    descriptors = keys.flip(0).contiguous().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, k: loss_of(d, k, coordinates, categories, 0.5, 0.1), (descriptors, keys.clone().requires_grad_())
    )


def test_points_without_weight_do_not_count():
    coordinates, categories, keys = points(6)
    weights = torch.ones(8).double()
    weights[2] = 0
    kept = [0, 1, 3, 4, 5, 6, 7]
    some = contrastive_loss(keys, keys, coordinates, categories, weights, 0.1, 0.1)
    alone = contrastive_loss(keys[kept], keys[kept], coordinates[kept], categories[kept], weights[kept], 0.1, 0.1)
    torch.testing.assert_close(some, alone)


def test_place_loss_asks_for_places_on_the_object_only():
    canonical = torch.full((1, 3, 4, 4), torch.nan)
    canonical[:, :, :2] = 0.25
    perfect = torch.zeros(1, 3, 4, 4)
    perfect[:, :, :2] = 0.25
    assert place_loss(perfect, canonical) < 1e-6
    wrong_place, ignored = perfect.clone(), perfect.clone()
    wrong_place[:, 0, 0] = 0.5
    ignored[:, 0, 3] = 0.5
    assert place_loss(wrong_place, canonical) > 0.1
    assert place_loss(ignored, canonical) < 1e-6


def test_surface_embedding_tells_places_and_categories_apart():
    torch.manual_seed(0)
    surface = SurfaceEmbedding(2, 16)
    coordinates = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.4, 0.2, 0.3], [0.1, 0.2, 0.3]])
    keys = surface(coordinates, torch.tensor([0, 1, 0, -1, -1]))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(5))
    assert (keys[0] - keys[1]).norm() > 1e-2 and (keys[0] - keys[2]).norm() > 1e-2
    torch.testing.assert_close(keys[3], keys[4])  # the background has no places


def test_draw_points_takes_object_and_background_cells():
    labels = torch.full((2, 6, 6), -1)
    labels[0, 2:4, 2:4], labels[1, 2, 2] = 4, 2
    canonical = torch.where(labels[:, None] >= 0, 0.5, torch.nan).expand(-1, 3, -1, -1)
    features = torch.arange(2 * 36.0).reshape(2, 1, 6, 6)
    config = CompactTraining(points=3, background_points=5)
    descriptors, coordinates, categories, weights = draw_points(features, canonical, labels, config, torch.Generator().manual_seed(0))
    assert weights.tolist() == [1.0] * 8 + [1.0, 0.0, 0.0] + [1.0] * 5  # the second view shows one object cell only
    real = weights > 0
    assert categories[real].tolist() == [4] * 3 + [-1] * 5 + [2] + [-1] * 5
    assert (descriptors[:8] < 36).all() and (descriptors[8:] >= 36).all()
    assert (coordinates[real & (categories >= 0)] == 0.5).all() and (coordinates[categories < 0] == 0).all()
    assert (labels.flatten()[descriptors[real, 0].long()] == categories[real]).all()


def test_even_draws_do_not_forget_what_is_thin():
    """Of an object that shows one place in 380 cells and nine others in one cell each, an even draw of ten takes most of the others."""
    labels, canonical = torch.zeros(1, 20, 20, dtype=torch.long), torch.zeros(1, 3, 20, 20)
    labels[0, 19] = -1
    canonical[0, 0, 0, :9] = 0.2 + 0.1 * torch.arange(9)
    thin = []
    for evenness in (0.0, 1.0):
        config, generator = CompactTraining(points=10, background_points=2, evenness=evenness), torch.Generator().manual_seed(0)
        drawn = [draw_points(torch.zeros(1, 1, 20, 20), canonical, labels, config, generator) for _ in range(50)]
        assert all((categories[:10] == 0).all() and (categories[10:] == -1).all() for _, _, categories, _ in drawn)
        thin.append(sum(float((coordinates[:10, 0] > 0.1).sum()) for _, coordinates, _, _ in drawn) / 50)
    assert thin[0] < 1 and 6 < thin[1] < 9  # 9 of 380, against nine places of ten


@pytest.fixture
def samples(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 255, (8, 3, 288, 288), dtype=torch.uint8, generator=generator)
    canonical = torch.full((8, 3, 144, 144), torch.nan, dtype=torch.float16)
    canonical[:, :, 48:96, 48:96] = torch.rand(8, 3, 48, 48, generator=generator).half() * 0.6 - 0.3
    stored = SampleSet(pictures, canonical, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    monkeypatch.setattr(compact.SampleSet, "render", lambda *_, **__: stored)
    return stored


@pytest.mark.slow
def test_interrupted_training_equals_uninterrupted(samples, tmp_path, monkeypatch):
    config = CompactTraining(categories=("a", "b"), steps=4, checkpoint_every=2, points=20, background_points=5, per_category=1)
    whole = train_compact(config, tmp_path, tmp_path / "whole", quiet=True)

    stopped, step = 2, compact.training_step

    def interrupted(*arguments):
        if arguments[-1] == stopped + 1:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(compact, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_compact(config, tmp_path, tmp_path / "part", quiet=True)
    assert is_started(tmp_path / "part")
    monkeypatch.setattr(compact, "training_step", step)
    resumed = train_compact(config, tmp_path, tmp_path / "part", quiet=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    with pytest.raises(InputError, match=r"other settings.*points"):
        train_compact(replace(config, points=21), tmp_path, tmp_path / "part", quiet=True)


@pytest.mark.slow
def test_a_finished_network_is_trained_on(samples, tmp_path, monkeypatch):
    """It begins as its file says, with heads that fit it, and keeps its batch statistics."""
    monkeypatch.setattr(compact, "HEAD_STEPS", 60)
    monkeypatch.setattr(compact, "HEAD_BATCHES", 2)
    config = CompactTraining(categories=("a", "b"), steps=2, points=20, background_points=5, per_category=1, fixed_statistics=True)
    torch.manual_seed(3)
    save_network(compact.CompactNet(config.channels, 3).eval(), tmp_path / "net.safetensors", "net", config)
    finished, losses, real = load_network(tmp_path / "net.safetensors")[0].state_dict(), [], compact.matching_loss

    def told(*arguments):
        losses.append(float(real(*arguments).detach()))
        return real(*arguments)

    monkeypatch.setattr(compact, "matching_loss", told)
    model = compact.TrainedModel(config)
    compact.begin_with(tmp_path / "net.safetensors", model, samples, config, quiet=True)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, finished[name]), name
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    trained = train_compact(config, tmp_path, tmp_path / "on", initial=tmp_path / "net.safetensors", quiet=True).state_dict()
    assert not torch.equal(trained["head.weight"], finished["head.weight"])
    assert all(torch.equal(value, finished[name]) for name, value in trained.items() if "running" in name)


def test_what_is_neither_checkpoint_nor_network_is_named(samples, tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.safetensors"):
        train_compact(CompactTraining(categories=("a", "b")), tmp_path, tmp_path / "c", initial=tmp_path / "none.safetensors")


def test_every_category_is_drawn_as_often_as_asked(samples):
    index = samples.draw([3, 2], torch.Generator().manual_seed(1))
    assert samples.labels[index].tolist() == [0] * 3 + [1] * 2 and len(set(index.tolist())) == 5


def test_emphasis_gives_a_category_more_pictures_and_views(tmp_path):
    config = CompactTraining(categories=("a", "b", "c"), emphasis=(0.1, 1.0, 1.9))
    assert config.of_categories(4) == [1, 4, 8] and CompactTraining(categories=("a", "b")).of_categories(3) == [3, 3]
    jobs, rendered = chunk_jobs(tmp_path, config.categories, config.of_categories(60), 2), {}
    for path, category, seed, first, end, _ in jobs:
        assert seed == 2 and path.name == f"varied_{category}_2_{first}_{end}.npz" and first == rendered.get(category, 0)
        rendered[category] = end
    assert rendered == {"a": 6, "b": 60, "c": 114}
    for wrong in ((1.0, 2.0), (1.0, 1.0, 0.0)):
        with pytest.raises(InputError, match="a, b, c"):
            CompactTraining(categories=("a", "b", "c"), emphasis=wrong)
