"""Packages of the Python part; metadata is in pyproject.toml.

The presets live in config/presets (ROS convention) and are installed as the package semalign3d_core.presets.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["semalign3d_core*", "semalign3d_ros*"]), "semalign3d_core.presets"],
    package_dir={"semalign3d_core.presets": "config/presets"},
    package_data={"semalign3d_core.presets": ["*.yaml"], "semalign3d_core": ["assets/**/*", "alignment/gauss_newton/*.c", "py.typed"]},
)
