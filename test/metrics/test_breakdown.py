import numpy as np

from semalign3d_core.metrics.breakdown import BREAKDOWNS, BreakdownAccumulator


def test_pairs_are_sorted_by_the_published_levels():
    accumulator = BreakdownAccumulator([0.1])
    right, wrong = np.ones((2, 1), bool), np.zeros((2, 1), bool)
    accumulator.add("cat", right, {"viewpoint_variation": 0, "scale_variation": 2, "truncation": 0, "occlusion": 3})
    accumulator.add("dog", wrong, {"viewpoint_variation": 2, "scale_variation": 2, "truncation": 1, "occlusion": 3})
    accumulator.add("dog", right, {})
    summary = accumulator.summary()
    assert set(summary) == set(BREAKDOWNS) == {"viewpoint_variation", "scale_variation", "truncation", "occlusion"}
    view = summary["viewpoint_variation"]
    assert view["easy"]["pck"]["0.1"]["pair_weighted"] == 100 and view["hard"]["pck"]["0.1"]["pair_weighted"] == 0
    assert view["medium"]["pairs"] == 0 and view["medium"]["pck"]["0.1"]["pair_weighted"] is None
    assert summary["scale_variation"]["hard"]["pck"]["0.1"] == summary["occlusion"]["both"]["pck"]["0.1"]
    assert summary["truncation"]["source"]["pairs"] == 1 and summary["truncation"]["unlabelled"] == 1


def test_an_unknown_level_is_counted_and_not_guessed():
    accumulator = BreakdownAccumulator([0.1])
    accumulator.add("cat", np.ones((1, 1), bool), {"viewpoint_variation": 9})
    assert accumulator.summary()["viewpoint_variation"]["unlabelled"] == 1
