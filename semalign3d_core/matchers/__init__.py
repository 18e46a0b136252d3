"""Matchers: one module per method that answers "where is this point in that image?"; the contract is :class:`Matcher`."""

from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.plugins import Registry
from semalign3d_core.transfer.matches import Matches

__all__ = ["MATCHERS", "Matcher", "Matches"]


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


def _semalign3d_keypoints(**options):
    from semalign3d_core.matchers.semalign3d import SemAlign3DKeypointsMatcher

    return SemAlign3DKeypointsMatcher(**options)


def _nearest_neighbour_keypoints(**options):
    from semalign3d_core.matchers.keypoint_candidates import KeypointCandidatesMatcher

    return KeypointCandidatesMatcher(**options)


def _spherical_maps(preset="", **options):
    from semalign3d_core.matchers.spherical_maps import SphericalMapsMatcher
    from semalign3d_core.runtime.config import load_preset

    return load_preset(SphericalMapsMatcher, "spherical_maps", preset) if preset else SphericalMapsMatcher(**options)


def _sfnet(network="", **options):
    from semalign3d_core.matchers.sfnet import SFNetMatcher

    if not network:
        raise InputError("sfnet needs a trained network (network=FILE, on the command line --network FILE): semalign3d train sfnet")
    return SFNetMatcher(network, **options)


# name -> factory(**options) -> Matcher
MATCHERS = Registry(
    "matchers",
    {
        "nearest_neighbour": _similarity("nearest_neighbour"),
        "soft_argmax": _similarity("soft_argmax"),
        "window_soft_argmax": _similarity("window_soft_argmax"),
        "kernel_soft_argmax": _similarity("kernel_soft_argmax"),
        "adaptive_pose": _adaptive_pose,
        "template_pose": _template_pose,
        "spherical_maps": _spherical_maps,
        "sfnet": _sfnet,
        "semalign3d": _semalign3d,
        "semalign3d_keypoints": _semalign3d_keypoints,
        "nearest_neighbour_keypoints": _nearest_neighbour_keypoints,
    },
)
