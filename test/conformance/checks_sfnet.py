"""Vectors of SFNet: metrics in one module, the method in the other."""

import importlib.util

from sfnet_metrics import CHECKS as METRIC_CHECKS

CHECKS = dict(METRIC_CHECKS)
if importlib.util.find_spec("sfnet_model") is not None:
    from sfnet_model import CHECKS as MODEL_CHECKS

    CHECKS |= MODEL_CHECKS
