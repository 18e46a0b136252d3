"""SFNet's losses: zero where they should be, and growing where a match gets worse."""

import pytest
import torch

from semalign3d_core.learned.sfnet.losses import LossWeights, directions, loss_terms, smoothness
from semalign3d_core.learned.sfnet.network import Matching, positions


def matching(forward, backward, size=(6, 8)):
    """A :class:`Matching` of two grids (h, w, 2)."""
    grids = forward[None], backward[None]
    return Matching((None, None), grids, tuple((grid - positions(size, grid)).movedim(3, 1) for grid in grids))


def mask(columns, size=(6, 8)):
    values = torch.zeros(1, 1, *size)
    values[..., columns] = 1
    return values


def test_a_perfect_match_costs_nothing():
    """The object is shifted by two cells: the grids say so, there and back meet, and inside the object nothing changes."""
    own = positions((6, 8), torch.zeros(1))
    step = torch.tensor([2 * 2 / 7, 0.0])
    both = directions(matching(own + step, own - step), mask(slice(1, 4)), mask(slice(3, 6)))
    terms = loss_terms(both, LossWeights())
    assert terms["mask"] < 1e-10 and terms["flow"] < 1e-10
    wrong = loss_terms(directions(matching(own, own - step), mask(slice(1, 4)), mask(slice(3, 6))), LossWeights())
    assert wrong["mask"] > 0.1 and wrong["flow"] > 0.1


def test_flow_off_the_object_does_not_count():
    own = positions((6, 8), torch.zeros(1))
    moved = own.clone()
    moved[:, 6:] += 0.3
    terms = loss_terms(directions(matching(moved, own), mask(slice(1, 4)), mask(slice(1, 4))), LossWeights())
    assert terms["flow"] < 1e-10


@pytest.mark.slow
def test_the_published_smoothness_lets_opposite_changes_cancel():
    """The two channels are added before differences are taken; the paper's norm of the full gradient keeps both."""
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 6, 8)
    inner = torch.zeros(1, 1, 6, 8)
    inner[..., 1:-1, 1:-1] = 1
    opposite = torch.cat([ramp, -ramp], 1)
    assert smoothness(opposite, inner).abs().max() < 1e-6
    full = smoothness(opposite, inner, published=False)
    torch.testing.assert_close(full[:, :1] * inner, 2 * inner * 2 / 7)
    torch.testing.assert_close(smoothness(torch.cat([ramp, 0 * ramp], 1), inner), smoothness(torch.cat([ramp, 0 * ramp], 1), inner, False))


def test_weights_scale_their_terms():
    own = positions((6, 8), torch.zeros(1))
    both = directions(matching(0.5 * own, own), mask(slice(1, 4)), mask(slice(2, 6)))
    single, weighted = loss_terms(both, LossWeights(1, 1, 1)), loss_terms(both, LossWeights(3, 16, 0.5))
    for name, factor in (("mask", 3), ("flow", 16), ("smooth", 0.5)):
        assert float(weighted[name]) == pytest.approx(factor * float(single[name]), rel=1e-5)


def test_an_empty_mask_gives_finite_losses():
    own = positions((6, 8), torch.zeros(1))
    terms = loss_terms(directions(matching(own, own), mask(slice(0, 0)), mask(slice(1, 3))), LossWeights())
    assert all(torch.isfinite(value) for value in terms.values())
