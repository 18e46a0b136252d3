"""The command line as a whole."""

import subprocess
import sys


def test_a_reader_that_goes_away_ends_a_command_without_a_traceback():
    command = [sys.executable, "-m", "semalign3d_core.cli.main", "align", "--help"]
    environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(120) == 141
