"""``semalign3d train``: one subcommand per trained system."""

import importlib

import pytest

from semalign3d_core.cli.main import main
from semalign3d_core.cli.train import SYSTEMS


def test_overview_names_every_system(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in SYSTEMS)
    assert main(["train"]) == 2


def test_unknown_system(capsys):
    assert main(["train", "nothing"]) == 2
    assert "unknown system 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_explains_its_options(name, capsys):
    module = importlib.import_module(SYSTEMS[name][0])
    assert callable(module.run)
    with pytest.raises(SystemExit) as stopped:
        main(["train", name, "--help"])
    assert stopped.value.code == 0
    assert "--output" in capsys.readouterr().out
