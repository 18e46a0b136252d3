"""Vectors of SFNet: metrics in one module, the method in the other."""

from sfnet_metrics import CHECKS as METRIC_CHECKS
from sfnet_model import CHECKS as MODEL_CHECKS

CHECKS = METRIC_CHECKS | MODEL_CHECKS
