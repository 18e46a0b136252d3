"""Vectors of SphericalMaps: metrics in one module, the method in the other."""

import importlib.util

from spherical_maps_metrics import CHECKS as METRIC_CHECKS

CHECKS = dict(METRIC_CHECKS)
if importlib.util.find_spec("spherical_maps_model") is not None:
    from spherical_maps_model import CHECKS as MODEL_CHECKS

    CHECKS |= MODEL_CHECKS
