"""The losses of the post-processor: values, gradients, and which terms a pair has. Parity is in test/conformance."""

from dataclasses import replace

import pytest
import torch
from published.pose_alignment import transfer_on_canvas

from semalign3d_core.learned.geoaware.losses import (
    LossConfig,
    TrainingImage,
    common_rows,
    contrastive_loss,
    dense_loss,
    displacement,
    mirrored_keypoints,
    pair_loss,
)
from semalign3d_core.learned.geoaware.schedule import one_cycle

SCALE = torch.tensor(2.0, dtype=torch.float64)


def image(keypoints, tokens=None, cells=6, threshold=4.0, seed=0):
    if tokens is None:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.nn.functional.normalize(torch.randn(cells * cells, 8, generator=generator, dtype=torch.float64), dim=1)
    return TrainingImage(tokens, torch.tensor(keypoints, dtype=torch.float32), threshold)


def draw(count):
    return torch.ones(count, 2)


def test_only_common_keypoints_count():
    a, b = image([[10, 10, 1], [200, 10, 0], [300, 300, 1]]), image([[10, 10, 1], [20, 20, 1], [0, 0, 0], [9, 9, 1]])
    assert common_rows(a, b).tolist() == [0]


def test_contrastive_loss_is_least_where_keypoints_look_like_themselves():
    points = [[70, 70, 1], [350, 350, 1], [630, 70, 1]]
    same = contrastive_loss(image(points), image(points), SCALE)
    other = contrastive_loss(image(points), image(points[1:] + points[:1]), SCALE)
    assert same < other


@pytest.mark.slow
def test_a_perfect_match_is_read_where_it_was_learned():
    """Features that match a cell exactly have displacement of that cell; the evaluation reads the cell's centre."""
    tokens = torch.eye(3600)
    source, target = image([[7.0, 7.0, 1]], tokens), image([[427.0, 287.0, 1]], tokens.roll(20 * 60 + 30, 0))
    found = displacement(source, target, source.indices(torch.tensor([0])))
    torch.testing.assert_close(found, torch.tensor([[30.0, 20.0]]))
    read = transfer_on_canvas(source.tokens, target.tokens, source.keypoints)
    torch.testing.assert_close(read, target.keypoints[:, :2])
    assert dense_loss(source, target, LossConfig(noise=0.0), draw) < 1e-4


def test_noise_is_a_share_of_half_the_target_box():
    tokens = torch.eye(3600)
    source, target = image([[7, 7, 1]], tokens), image([[7, 7, 1]], tokens, threshold=40.0)
    loss = dense_loss(source, target, LossConfig(noise=0.1), draw)
    torch.testing.assert_close(loss, torch.tensor(0.1 * 20 * 2**0.5))


@pytest.mark.slow
def test_gradients():
    points = [[70, 70, 1], [350, 350, 1], [630, 70, 1]]
    images = [image(points, seed=seed) for seed in range(4)]
    config, grid = LossConfig(), torch.linspace(-1, 1, 6).double().repeat(2, 1)

    def loss(*values):
        *tokens, scale, grid = values
        found = tuple(replace(i, tokens=t) for i, t in zip(images, tokens, strict=True))
        return pair_loss(found, torch.tensor([1, 0, 2]), config, scale, draw, grid)["loss"]

    inputs = [*(i.tokens.clone().requires_grad_() for i in images), SCALE.clone().requires_grad_(), grid.requires_grad_()]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-4)


def test_terms_of_a_pair_and_their_weights():
    points = [[70, 70, 1], [350, 350, 1], [630, 70, 1]]
    images, flip = [image(points, seed=seed) for seed in range(4)], torch.tensor([1, 0, 2])

    def terms(**changes):
        return pair_loss(tuple(images), flip, LossConfig(noise=0.0, **changes), SCALE, draw)

    every = terms()
    assert list(every) == ["loss", "sparse", "dense", "single", "double", "self"]
    expected = (every["sparse"] + every["dense"] + every["single"] + every["double"] + 0.25 * every["self"]) / 3.25
    torch.testing.assert_close(every["loss"], expected)
    assert list(terms(single=0.0)) == ["loss", "sparse", "dense", "double", "self"]
    assert list(terms(dense=False)) == ["loss", "sparse", "single", "double", "self"]
    torch.testing.assert_close(terms(variants=False)["loss"], every["sparse"] + every["dense"])
    unseen = [replace(i, keypoints=i.keypoints * torch.tensor([1.0, 1.0, 0.0])) for i in images[:1]] + images[1:]
    assert pair_loss(tuple(unseen), flip, LossConfig(), SCALE, draw) == {}


def test_a_mirrored_pair_is_a_pair_of_the_mirrored_keypoints():
    keypoints = torch.tensor([[70.0, 100, 1], [300, 100, 1], [500, 200, 0]])
    turned = mirrored_keypoints(keypoints, torch.tensor([1, 0, 2]))
    assert turned.tolist() == [[540, 100, 1], [770, 100, 1], [340, 200, 0]]
    torch.testing.assert_close(mirrored_keypoints(turned, torch.tensor([1, 0, 2])), keypoints)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_one_cycle_rises_and_falls(steps):
    rates = [one_cycle(step, steps, 1e-3) for step in range(steps)]
    assert all(0 < rate <= 1e-3 and 0.85 <= beta <= 0.95 for rate, beta in rates)
    if steps > 1:
        assert rates[0][0] < rates[steps // 3][0] > rates[-1][0]
        assert rates[-1][0] == pytest.approx(1e-3 / 25 / 1e4)
