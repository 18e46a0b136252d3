"""A killed command leaves nothing behind that the next run does not put right; ``bench/kill.py`` kills a thousand times."""

import random

import pytest
from kill import attack, inputs


@pytest.mark.slow
def test_killed_imports_end_as_undisturbed_ones(tmp_path):
    """Twelve kills of one command; the fifty over all four commands take minutes and are for the script."""
    commands = inputs(tmp_path / "inputs")
    assert attack("import", commands["import"], 12, random.Random(1), tmp_path) == []
