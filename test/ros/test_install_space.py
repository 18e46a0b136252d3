"""What colcon installed works by itself, without the sources."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSTALLED = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if (Path(p) / "share" / "semalign3d_ros").is_dir()]
pytestmark = pytest.mark.skipif(not INSTALLED, reason="needs the built package: make setup, . scripts/env.sh")

SCRIPT = """
import semalign3d_core, semalign3d_ros.msg, semalign3d_ros.srv, semalign3d_ros.align_node
from semalign3d_core.category.storage import shipped_models
from semalign3d_core.runtime.config import preset_folder
print(semalign3d_core.__file__, semalign3d_ros.align_node.__file__, preset_folder(), shipped_models(), sep="\\n")
"""


def run(command, tmp_path):
    site = next((INSTALLED[0] / "lib").glob("python*/site-packages"))
    environment = dict(os.environ, PYTHONPATH=str(site))
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)


def test_installed_modules_messages_presets_and_assets_are_used(tmp_path):
    done = run([sys.executable, "-c", SCRIPT], tmp_path)
    assert done.returncode == 0, done.stderr
    paths = done.stdout.split()
    assert all(path.startswith(str(INSTALLED[0])) for path in paths), paths
    assert Path(paths[2]).name == "presets" and (Path(paths[2]) / "align_fast.yaml").is_file()


@pytest.mark.parametrize("command", ["semalign3d_core/eval_spair", "semalign3d_core/semalign3d"])
def test_installed_commands_start(tmp_path, command):
    done = run([sys.executable, INSTALLED[0] / "lib" / command, "--help"], tmp_path)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr


def test_both_packages_and_their_files_can_be_found():
    index = INSTALLED[0] / "share" / "ament_index" / "resource_index" / "packages"
    assert (index / "semalign3d_ros").exists() and (index / "semalign3d_core").exists()
    share = INSTALLED[0] / "share" / "semalign3d_ros"
    for name in ("launch/align.launch.py", "config/align.yaml", "config/align.rviz", "config/demonstration_example.yaml", "package.xml"):
        assert (share / name).is_file(), name
    assert (INSTALLED[0] / "share" / "semalign3d_core" / "package.xml").read_text().count("<name>semalign3d_core</name>") == 1
