"""Matchers: ``name``, and ``match(source, target, points) -> Matches`` for whatever finds corresponding points.

``source`` and ``target`` are :class:`~semalign3d_core.perception.evidence.ImageEvidence`; ``points`` is (Q, 2) float32 pixels of the
source. A matcher that first does work per image (an alignment) also has ``prepare(evidence) -> object``, whose result
it accepts in place of the evidence, so that one image is prepared once whatever the number of its pairs. That object may
refer to the evidence or its parts, but not to copies of the features' values, which would be stored once more.

What a matcher resolved from presets is in its ``settings`` (JSON), unless it is a dataclass of nothing but settings.

A matcher that can separate what depends on the source alone also has ``lift(source, points) -> object`` and
``place(lifted, rows, target) -> Matches`` for the points ``rows`` (N,) int64 of the lifted ones; ``match`` is one after the other.
It may have ``score_maps(lifted, target)``, too, (Q, cells * cells): how likely each point is at each cell of the target, which
KAP then judges in place of the features.

A matcher that looks at the mirror image of the source, too, has the attribute ``uses_mirror = True`` and is called as
``match(source, target, points, mirrored, permutation, visible)``: ``mirrored`` is the evidence of the source's mirror image,
``permutation`` (Q,) the point that each point becomes there, ``visible`` (Q,) bool whether that one is among the points
(where it is not, ``permutation`` is the point itself). An evaluation then extracts mirrored features once per image and
caches them like the others.
"""

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.matches import Matches

__all__ = ["MATCHERS", "Matches"]


def _similarity(readout):
    def create(**options):
        from semalign3d_core.matchers.soft_argmax import SimilarityMatcher

        return SimilarityMatcher(readout, **options)

    return create


def _adaptive_pose(**options):
    from semalign3d_core.matchers.adaptive_pose import AdaptivePoseMatcher

    return AdaptivePoseMatcher(**options)


def _template_pose(templates=None, backbone=None, **options):
    from semalign3d_core.matchers.pose_prediction import TemplatePoseMatcher

    if templates is None or backbone is None:
        raise InputError("template_pose needs a folder of template pictures and the backbone of the features (templates=..., backbone=...)")
    return TemplatePoseMatcher(templates, backbone, **options)


def _semalign3d(**options):
    from semalign3d_core.matchers.semalign3d import SemAlign3DMatcher

    return SemAlign3DMatcher(**options)


def _spherical_maps(preset="", **options):
    from semalign3d_core.matchers.spherical_maps import SphericalMapsMatcher
    from semalign3d_core.runtime.config import load_preset

    return load_preset(SphericalMapsMatcher, "spherical_maps", preset) if preset else SphericalMapsMatcher(**options)


# name -> factory(**options) -> Matcher
MATCHERS = {
    "nearest_neighbour": _similarity("nearest_neighbour"),
    "soft_argmax": _similarity("soft_argmax"),
    "window_soft_argmax": _similarity("window_soft_argmax"),
    "kernel_soft_argmax": _similarity("kernel_soft_argmax"),
    "adaptive_pose": _adaptive_pose,
    "template_pose": _template_pose,
    "spherical_maps": _spherical_maps,
    "semalign3d": _semalign3d,
}
