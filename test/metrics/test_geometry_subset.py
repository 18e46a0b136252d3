import numpy as np
from published.metrics import mirror_aware, renumbered_groups

from semalign3d_core.metrics.geometry_subset import geometry_aware

LEGS = ((4, 5, 6, 7),)


def visible(*labels):
    return np.isin(np.arange(8), labels)


def test_a_keypoint_belongs_when_the_target_shows_a_counterpart():
    source = visible(4)
    assert geometry_aware(LEGS, source, visible(4, 6))[4]
    assert not geometry_aware(LEGS, source, visible(4)).any(), "nothing to be confused with"
    assert not geometry_aware(LEGS, source, visible(5, 6)).any(), "the keypoint itself must be visible in both images"
    assert not geometry_aware(LEGS, visible(4, 5, 0, 1), visible(4, 0, 1)).any(), "siblings count in the target only, and in groups only"


def test_pairs_are_handled_together():
    rng = np.random.default_rng(0)
    source, target = rng.random((2, 30, 8)) < 0.5
    together = geometry_aware(LEGS, source, target)
    assert (together == [geometry_aware(LEGS, s, t) for s, t in zip(source, target, strict=True)]).all()
    assert together.any() and not (together & ~(source & target)).any()


def test_mirror_subset_asks_for_the_partner_in_the_source():
    flip = [0, 2, 1]
    assert mirror_aware(flip, [1, 1, 1], [1, 1, 0]).tolist() == [False, True, False]
    assert mirror_aware(flip, [1, 1, 0], [1, 1, 1]).tolist() == [False, False, False]


def test_published_renumbering_is_wrong_where_the_table_does_not_ascend():
    ascending, crossed = ((0, 1), (2, 3)), ((0, 2), (1, 3))
    assert renumbered_groups(ascending, range(4)) == [[0, 1], [2, 3]]
    assert renumbered_groups(crossed, range(4)) == [[0, 1], [2, 3]]
    assert renumbered_groups(((2, 3),), [0, 2, 3]) == [[1, 2]]
