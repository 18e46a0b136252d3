"""Matchers: ``name``, and ``match(source, target, points) -> Matches`` for whatever finds corresponding points.

``source`` and ``target`` are :class:`~semalign3d_core.evidence.ImageEvidence`; ``points`` is (Q, 2) float32 pixels of the
source. A matcher that first does work per image (an alignment) also has ``prepare(evidence) -> object``, whose result
it accepts in place of the evidence, so that one image is prepared once whatever the number of its pairs.
"""

from semalign3d_core.matches import Matches

__all__ = ["MATCHERS", "Matches"]


def _similarity(readout):
    def create(**options):
        from semalign3d_core.matchers.soft_argmax import SimilarityMatcher

        return SimilarityMatcher(readout, **options)

    return create


def _adaptive_pose(**options):
    from semalign3d_core.matchers.adaptive_pose import AdaptivePoseMatcher

    return AdaptivePoseMatcher(**options)


def _semalign3d(**options):
    from semalign3d_core.matchers.semalign3d import SemAlign3DMatcher

    return SemAlign3DMatcher(**options)


# name -> factory(**options) -> Matcher
MATCHERS = {
    "nearest_neighbour": _similarity("nearest_neighbour"),
    "soft_argmax": _similarity("soft_argmax"),
    "window_soft_argmax": _similarity("window_soft_argmax"),
    "kernel_soft_argmax": _similarity("kernel_soft_argmax"),
    "adaptive_pose": _adaptive_pose,
    "semalign3d": _semalign3d,
}
