"""Scores of random pairs, recorded; see ``recorded.py``. What the numbers should be is tested beside it, on pairs made by hand."""

import numpy as np
import pytest
import torch
from recorded import check
from values import check_values

from semalign3d_core.metrics.aggregate import PckAccumulator, weighted_mean
from semalign3d_core.metrics.grid_transfer import inner_grid, pair_pck, transfer_points
from semalign3d_core.metrics.kap import KAP_VARIANTS, KapAccumulator, KapPair, kap_samples
from semalign3d_core.metrics.mask_transfer import MaskTransferAccumulator, lattice, sampling_grid, warp_mask
from semalign3d_core.metrics.pck import pck_correct, pck_correct_inclusive, pck_dagger_correct, pck_dagger_correct_inclusive


def test_values_do_not_change():
    check_values("semalign3d_core.metrics")


def kap_pairs(seed):
    """Pairs of 0 to 5 keypoints on 7 x 7 cells, some of them hidden in either image."""
    rng = np.random.default_rng(seed)
    for keypoints in (3, 5, 4, 1, 2):
        seen = rng.random((2, keypoints)) < 0.7
        yield KapPair(rng.normal(size=(keypoints, 49)), rng.uniform(0, 97, (keypoints, 2)), seen[0], seen[1], 61.0, 98.0)


@pytest.mark.parametrize("variant", KAP_VARIANTS)
def test_kap(variant):
    accumulator, samples = KapAccumulator([0.1, 0.3], variant), []
    for n, pair in enumerate((*kap_pairs(0), *kap_pairs(1))):
        accumulator.add(("cat", "dog")[n % 2], pair)
        samples.append(kap_samples(pair, 0.2, variant))
    check(f"metrics_kap_{variant}", 1e-9, summary=accumulator.summary(), samples=samples)
    assert KapAccumulator([0.1], variant).summary()["all"]["kap"]["0.1"]["pooled_point_weighted"] is None


def test_pck():
    rng = np.random.default_rng(2)
    truth, common = rng.integers(0, 20, (6, 8, 2)), rng.random((6, 8)) < 0.7
    pred = truth + rng.integers(-3, 4, (6, 8, 2))
    limits, alphas = np.array([10, 20, 30, 15, 25, 5]), [0.05, 0.1, 0.2]
    counted = PckAccumulator(alphas)
    for n, right in enumerate(pck_correct(pred, truth, limits, alphas)):
        counted.add("abc"[n % 3], right[common[n]])
    check(
        "metrics_pck",
        1e-9,
        strict=pck_correct(pred, truth, limits, alphas).astype(float),
        inclusive=pck_correct_inclusive(pred, truth, limits, alphas).astype(float),
        dagger=pck_dagger_correct(pred, truth, common, limits, alphas).astype(float),
        dagger_inclusive=pck_dagger_correct_inclusive(pred, truth, common, limits, alphas).astype(float),
        summary=counted.summary(),
        weighted=weighted_mean([[1.0, 2.0], [3.0, 5.0]], [1, 3]),
    )


def test_grids_and_masks():
    generator = torch.Generator().manual_seed(0)
    grid = 1.2 * (2 * torch.rand(8, 10, 2, generator=generator, dtype=torch.float64) - 1)
    points = torch.rand(30, 2, generator=generator) * torch.tensor([31.0, 23.0])
    points[3] = -1.0
    points[4, 0] = -1.0
    mask = torch.rand(12, 16, generator=generator) > 0.4
    carried = torch.rand(25, 2, generator=generator) * 12
    carried[7] = torch.nan
    sampled = sampling_grid(carried, (9, 11), (12, 16))
    warped, means = warp_mask(mask, sampled), MaskTransferAccumulator()
    means.add(warped, (torch.rand(9, 11, generator=generator) > 0.5).numpy())
    means.add_scores(0.25, float("nan"))
    inner = inner_grid(grid, 24, 32)
    check(
        "metrics_grids",
        1e-5,
        inner=inner,
        carried=transfer_points(inner, points, (40, 50)),
        lattice=lattice(9, 14, 5),
        sampled=sampled,
        warped=warped,
        plain=warp_mask(mask, sampled, align_corners=False),
        means=means.summary(),
    )
    truth = np.array([[1.0, 2], [3, 4], [5, -1], [6, 7]])
    assert pair_pck(truth + [[3, 4], [3, 4.1], [0, 0], [0, 0]], truth, 50, 0.1) == pytest.approx(2 / 3)
