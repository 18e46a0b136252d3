"""The command line as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_a_command_without_a_traceback():
    command = [sys.executable, "-m", "semalign3d_core.cli.main", "align", "--help"]
    environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(120) == 141


@pytest.mark.parametrize("script", ["eval_spair", "semalign3d"])
def test_installed_scripts_find_their_command(script):
    path = Path(__file__).parents[2] / "scripts" / script
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, path, "--help"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
