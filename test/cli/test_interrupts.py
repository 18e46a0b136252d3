"""Ctrl-C is one line and exit code 130, in every command and at any moment; ``bench/interrupt.py`` tries more moments."""

import random

import pytest
from interrupt import attack, commands

from semalign3d_core.cli.main import COMMANDS
from semalign3d_core.cli.train import SYSTEMS

NAMES = ["eval_spair", *(name for name in COMMANDS if name != "train"), *(f"train {system}" for system in SYSTEMS)]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return commands(tmp_path_factory.mktemp("interrupts"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fresh", [True, False], ids=["while modules load", "while it works"])
def test_an_interrupt_is_one_line_and_code_130(known, name, fresh, tmp_path):
    """And no process is left."""
    assert attack(known[name], tmp_path / "out", 1.0, random.Random(name), fresh) == ""
