"""The core works without ROS, and without the heavy optional packages until they are asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROS = ("rclpy", "sensor_msgs", "std_msgs", "geometry_msgs", "diagnostic_msgs", "visualization_msgs", "ament_index_python", "semalign3d_ros")
OPTIONAL = ("transformers", "diffusers", "matplotlib", "ray", "trimesh", "embreex", "rosbags")

SCRIPT = """
import importlib, json, pkgutil, sys

forbidden = set(json.loads(sys.argv[1]))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
import semalign3d_core
names = [m.name for m in pkgutil.walk_packages(semalign3d_core.__path__, "semalign3d_core.")]
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""


def import_everything(forbidden):
    command = [sys.executable, "-c", SCRIPT, json.dumps(forbidden)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_module_of_the_core_imports_without_ros_and_without_optional_packages():
    names = import_everything([*ROS, *OPTIONAL])
    assert {"semalign3d_core.geometry.camera", "semalign3d_core.cli.main", "semalign3d_core.alignment.result"} <= set(names)


def test_the_blocker_blocks():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("import semalign3d_core\n", "import rclpy\n"), json.dumps(ROS)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0 and "blocked: rclpy" in done.stderr
