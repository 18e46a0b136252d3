"""Simulated categories and their aligners, made once for all tests."""

import pytest
import torch
from simulated_category import SimulatedCategory

from semalign3d_core.alignment.aligner import Aligner


@pytest.fixture(scope="session")
def chair():
    """A simulated category with an aligner of the fast preset."""
    torch.set_num_threads(1)
    category = SimulatedCategory("chair")
    return category, Aligner(category.model())


@pytest.fixture(scope="session")
def monitor():
    """A flat simulated category that is always seen from the front."""
    category = SimulatedCategory("monitor")
    return category, Aligner(category.model())
