"""Fixtures of all tests. The ROS settings come first: they must be in the environment before rclpy is initialised."""

import os
import random

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))  # a domain of its own for each test run
