"""Fixtures of all tests. The ROS settings come first: they must be in the environment before rclpy is initialised."""

import os
import random
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))  # a domain of its own for each test run

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

ROS_TESTS = Path(__file__).parent / "ros"


@pytest.fixture(autouse=True)
def seeded():
    """A test that draws from the global generators draws the same every time."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def chair():
    """A simulated category with an aligner of the fast preset."""
    from simulated_category import SimulatedCategory

    from semalign3d_core.alignment.aligner import Aligner

    torch.set_num_threads(1)
    category = SimulatedCategory("chair")
    return category, Aligner(category.model())


@pytest.fixture(scope="session")
def category():
    """A simulated category with noisy features."""
    from simulated_category import SimulatedCategory

    return SimulatedCategory("chair", noise=0.3)


@pytest.fixture(scope="session")
def model(category):
    """The model of it."""
    return category.model()


@pytest.fixture(scope="session")
def monitor():
    """A flat simulated category that is always seen from the front."""
    from simulated_category import SimulatedCategory

    from semalign3d_core.alignment.aligner import Aligner

    category = SimulatedCategory("monitor")
    return category, Aligner(category.model())


def pytest_collection_modifyitems(items):
    """Tests in test/ros carry the marker ``ros``."""
    for item in items:
        if item.path.is_relative_to(ROS_TESTS):
            item.add_marker(pytest.mark.ros)
