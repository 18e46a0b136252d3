"""Vectors of GeoAware-SC: data and metrics, features and inference, training."""

from geoaware_data import CHECKS as DATA_CHECKS
from geoaware_features import CHECKS as FEATURE_CHECKS
from geoaware_training import CHECKS as TRAINING_CHECKS

CHECKS = {**DATA_CHECKS, **FEATURE_CHECKS, **TRAINING_CHECKS}
