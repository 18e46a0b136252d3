"""A killed command leaves nothing behind that the next run does not put right; ``bench/kill.py`` kills a thousand times."""

import random

import pytest
from kill import attack, inputs


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return inputs(tmp_path_factory.mktemp("kill"))


@pytest.mark.slow
@pytest.mark.parametrize("name, kills", [("import", 20), ("synth", 10), ("build", 10), ("evaluate", 10)])
def test_killed_commands_end_as_undisturbed_ones(commands, name, kills, tmp_path):
    assert attack(name, commands[name], kills, random.Random(1), tmp_path) == []
