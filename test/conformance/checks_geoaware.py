"""Vectors of GeoAware-SC: data and metrics in one module, features and inference in the other."""

import importlib.util

from geoaware_data import CHECKS as DATA_CHECKS

CHECKS = dict(DATA_CHECKS)
if importlib.util.find_spec("geoaware_features") is not None:
    from geoaware_features import CHECKS as FEATURE_CHECKS

    CHECKS |= FEATURE_CHECKS
