"""The commands in docs/own_category.md exist and take the options that are shown."""

import importlib
import re
import shlex
from pathlib import Path

import tyro

from semalign3d_core.cli.main import COMMANDS

DOC = Path(__file__).parents[2] / "docs" / "own_category.md"


def test_commands_of_the_document_parse():
    lines = [line for block in re.findall(r"```bash\n(.*?)```", DOC.read_text(), re.S) for line in block.splitlines()]
    seen = set()
    for line in lines:
        program, command, *arguments = shlex.split(line)
        if program == "eval_spair":
            command, arguments = "evaluate", [command, *arguments]
        module = importlib.import_module(f"semalign3d_core.cli.{COMMANDS[command][0]}")
        tyro.cli(module.Options, args=arguments)
        seen.add(command)
    assert seen >= {"import", "build", "inspect", "align", "match"}


def test_options_named_in_the_rules_exist():
    from semalign3d_core.cli.import_annotations import Options

    for option in re.findall(r"`--([a-z-]+)", DOC.read_text().split("## 4.")[0]):
        assert option.replace("-", "_") in Options.__dataclass_fields__
