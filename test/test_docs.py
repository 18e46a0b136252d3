"""README and documentation: every link leads somewhere, every code block runs or is taken by the command that it calls, the site builds."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
import yaml
from markdown_blocks import blocks, command_lines

from semalign3d_core import load_model, load_pipeline
from semalign3d_core.category.storage import find_model
from semalign3d_core.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
IN_OTHER_TESTS = ("docs/plugins.md", "docs/tutorials.md")  # test_plugins.py and test_examples.py run these
COFFEE, CUP = "examples/photographs/coffee.jpg", (172, 18, 408, 308)


def commands(text):
    """Our commands in blocks of a shell or without a language, as words."""
    for block in blocks(text, "bash", "sh", ""):
        for words in command_lines(block):
            if words[0] in ("semalign3d", "eval_spair"):
                yield words


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the examples, in which code may write."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].split()) < 700


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if blocks(text, "python") and name not in IN_OTHER_TESTS])
def test_python_blocks_run(name, workplace):
    pipeline = load_pipeline("mug", device="cpu")
    evidence = pipeline.process(COFFEE, box=CUP).evidence
    namespace = {"model": pipeline.model, "evidence": evidence, "frames": [evidence, evidence]}
    for block in blocks(TEXTS[name], "python"):
        exec(compile(block, name, "exec"), namespace)


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if any(commands(text))])
def test_commands_take_what_is_written(name):
    for program, *arguments in commands(TEXTS[name]):
        command = "evaluate" if program == "eval_spair" else arguments.pop(0)
        assert command in COMMANDS, (name, command)
        if command == "train":
            module = importlib.import_module(f"semalign3d_core.cli.train.{arguments.pop(0)}")
        else:
            module = importlib.import_module(f"semalign3d_core.cli.{COMMANDS[command][0]}")
        try:
            tyro.cli(module.Options, args=[a for a in arguments if a], console_outputs=False)
        except SystemExit as error:
            assert error.code == 0, f"{name}: {program} {command} {' '.join(arguments)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/start.md"])
def test_the_first_commands_give_what_is_promised(name, workplace, capsys):
    ran = [words[1:] for words in commands(TEXTS[name]) if COFFEE in words]
    assert ran
    for arguments in ran:
        assert main([*arguments, "--device", "cpu"]) == 0
    assert {path.name for path in (workplace / "out").iterdir()} >= {"coffee.align.png", "coffee.align.json", "why.html"}


def test_yaml_blocks_are_yaml():
    for text in TEXTS.values():
        for block in blocks(text, "yaml"):
            assert yaml.safe_load(block)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", re.sub(r"```.*?```", "", TEXTS[name], flags=re.S)):
        path, _, anchor = target.partition("#")
        linked = (ROOT / name).parent / path if path else ROOT / name
        assert linked.exists(), f"{name}: {target}"
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}, (
                f"{name}: {target}"
            )


def test_model_cards_name_the_keypoints_that_the_models_have():
    for category, keypoints in re.findall(r"^\| (\w+) \| (`\w+`(?:, `\w+`)+) \|$", TEXTS["docs/model_cards.md"], re.M):
        assert tuple(keypoints.replace("`", "").split(", ")) == load_model(find_model(category)).keypoint_names


def test_torch_hub_finds_the_pipeline():
    import torch

    assert torch.hub.load(str(ROOT), "semalign3d", source="local", category="mug", device="cpu").model.category == "mug"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed (extra docs)")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert "load_pipeline" in pages["api.html"] and "--8&lt;--" not in pages["tutorials.html"]
    for text in pages.values():  # a page loads nothing from elsewhere
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text)
