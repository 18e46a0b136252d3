"""Vectors of SphericalMaps: metrics in one module, the method in the other."""

from spherical_maps_metrics import CHECKS as METRIC_CHECKS
from spherical_maps_model import CHECKS as MODEL_CHECKS

CHECKS = {**METRIC_CHECKS, **MODEL_CHECKS}
