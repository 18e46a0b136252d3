import numpy as np
import pytest

from semalign3d_core.metrics.aggregate import PckAccumulator, alpha_key, weighted_mean
from semalign3d_core.runtime.errors import InputError


def column(*values):
    return np.array(values, bool)[:, None]


@pytest.fixture
def filled():
    accumulator = PckAccumulator([0.1])
    accumulator.add("cat", column(1, 1, 1, 1))
    accumulator.add("cat", column(0))
    accumulator.add("dog", column(1, 0))
    return accumulator


def test_both_aggregations_are_there_and_named(filled):
    summary = filled.summary()
    assert summary["per_category"]["cat"]["pck"]["0.1"] == {"per_image": 50.0, "per_point": 80.0}
    over_all = summary["all"]["pck"]["0.1"]
    assert over_all["mean_of_categories"] == pytest.approx((50 + 50) / 2)
    assert over_all["pair_weighted"] == pytest.approx((100 + 0 + 50) / 3)
    assert over_all["per_point"] == pytest.approx(100 * 5 / 7)
    assert over_all["mean_of_categories_per_point"] == pytest.approx((80 + 50) / 2)


def test_pairs_without_common_keypoints_are_counted_and_change_no_mean(filled):
    before = filled.summary()
    assert filled.add("cat", np.zeros((0, 1), bool)) is None
    assert filled.add("sheep", np.zeros((0, 1), bool)) is None
    after = filled.summary()
    assert after["all"]["pck"] == before["all"]["pck"]
    assert (before["all"]["skipped"], after["all"]["skipped"]) == (0, 2)
    assert after["per_category"]["sheep"] == {"pck": {"0.1": {"per_image": None, "per_point": None}}, "pairs": 0, "points": 0, "skipped": 1}


def test_counts_add_up_and_order_does_not_matter():
    rng = np.random.default_rng(0)
    pairs = [("ab"[i % 2], rng.random((rng.integers(0, 5), 2)) < 0.5) for i in range(40)]
    forward, backward = PckAccumulator([0.1, 0.05]), PckAccumulator([0.1, 0.05])
    for pair in pairs:
        forward.add(*pair)
    for pair in reversed(pairs):
        backward.add(*pair)
    assert forward.summary()["all"]["points"] == sum(len(c) for _, c in pairs)
    assert forward.summary()["all"]["pairs"] + forward.summary()["all"]["skipped"] == 40
    for name, value in forward.summary()["all"]["pck"]["0.05"].items():
        assert value == pytest.approx(backward.summary()["all"]["pck"]["0.05"][name])


def test_the_published_overall_number_is_the_pair_weighted_mean():
    """GeoAware-SC (AP-10K pre-trained): 85.6 over all, from its category row and the test pairs of SPair-71k."""
    row = [92.0, 76.1, 97.2, 70.4, 70.5, 91.4, 89.7, 92.7, 73.4, 95.0, 90.5, 87.7, 81.8, 91.6, 82.3, 83.4, 96.5, 85.3]
    pairs = [690, 650, 702, 702, 870, 644, 564, 600, 646, 640, 600, 600, 702, 650, 862, 664, 756, 692]
    assert round(weighted_mean([[v] for v in row], pairs)[0], 1) == 85.6
    assert round(float(np.mean(row)), 1) == 86.0


def test_wrong_shapes_are_refused_and_nothing_is_fine():
    accumulator = PckAccumulator([0.1, 0.01])
    with pytest.raises(InputError, match="2 alphas"):
        accumulator.add("cat", np.ones((3, 1), bool))
    empty = accumulator.summary()
    assert empty["per_category"] == {} and empty["all"]["pck"]["0.01"]["pair_weighted"] is None
    assert alpha_key(0.10) == "0.1"
