"""Every threat that SECURITY.md names has a test against it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
THREATS = re.findall(r"^\| (?!threat )([^|-][^|]*) \|[^|]*\| (.*) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("threat, tests", THREATS, ids=[threat[:30] for threat, _ in THREATS])
def test_a_threat_names_tests_that_exist(threat, tests):
    named = [name.partition("::") for name in re.findall(r"`([^`]+)`", tests)]
    assert any(test for _, _, test in named), "no test stands against it"
    for path, _, test in named:
        tree = ast.parse((ROOT / path).read_text())
        assert not test or test in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}, f"{path} has no {test}"


def test_the_table_is_read():
    assert len(THREATS) > 15
