"""The command line as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import semalign3d_core
from semalign3d_core.cli.main import COMMANDS, main


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_a_command_without_a_traceback():
    command = [sys.executable, "-m", "semalign3d_core.cli.main", "align", "--help"]
    environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(120) == 141


@pytest.mark.slow
@pytest.mark.parametrize("script", ["eval_spair", "semalign3d"])
def test_installed_scripts_find_their_command(script):
    path = Path(__file__).parents[2] / "scripts" / script
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, path, "--help"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_the_overview_names_every_command_and_plugins(capsys):
    assert main(["--help"]) == 0 and main([]) == 2
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS) and "--plugin MODULE" in said


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"semalign3d {semalign3d_core.__version__}\n"


def test_a_misspelt_command_is_guessed(capsys):
    assert main(["allign"]) == 2
    assert "unknown command 'allign'; did you mean align?" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", [True, False])
def test_no_color_is_respected_on_a_terminal(monkeypatch, capsys, wanted):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "" if wanted else "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        main(["config", "--help"])
    assert ("\x1b[" in capsys.readouterr().out) == wanted


@pytest.mark.parametrize("then", ["time.sleep(30)", "raise MissingDependencyError('openvino is needed here (initialization failed)')"])
def test_an_interrupt_that_a_library_swallows_is_one(tmp_path, then):
    """As trimesh does while it looks for optional packages, and OpenVINO while it loads."""
    (tmp_path / "greedy.py").write_text(
        "import os, signal, time\n"
        "from semalign3d_core.cli import command, config\n"
        "from semalign3d_core.runtime.errors import MissingDependencyError\n"
        "command.AGAIN = 0.5\n"
        "def run(options):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(1)\n"
        "    except BaseException:\n"
        "        pass\n"
        f"    {then}\n"
        "config.run = run\n"
        "MATCHERS = {'greedy': None}\n"
    )
    program = "import sys; sys.argv[0] = 'semalign3d'; from semalign3d_core.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "config", "--plugin", str(tmp_path / "greedy.py")], capture_output=True, text=True
    )
    assert done.returncode == 130 and done.stderr.count("interrupted") == 1 and "Traceback" not in done.stderr, done.stderr
