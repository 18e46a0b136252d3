"""Plug-ins: the package of docs/plugins.md, installed beside this one, and files given with --plugin."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from semalign3d_core.perception import backbones
from semalign3d_core.runtime import plugins
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.plugins import Registry

ROOT = Path(__file__).parents[1]
COFFEE = ROOT / "examples" / "photographs" / "coffee.jpg"
FILES = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', (ROOT / "docs" / "plugins.md").read_text(), re.S))


def run(arguments, folder):
    path = os.pathsep.join(map(str, (folder / "site", ROOT)))
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder whose ``site`` holds the package of the document."""
    folder = tmp_path_factory.mktemp("plugin")
    for name, text in FILES.items():
        (folder / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "package" / name).write_text(text)
    (folder / "package" / "semalign3d_colour" / "__init__.py").touch()
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target"]
    done = run([*pip, str(folder / "site"), str(folder / "package")], folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_examples_are_short():
    assert len(FILES) == 6
    for name, text in FILES.items():
        if name.endswith(".py"):
            assert len(text.split("class ")[1].splitlines()) <= 20, name


@pytest.mark.slow
def test_an_installed_package_brings_all_five(installed):
    script = """
from semalign3d_core import load_pipeline, match, read_image
from semalign3d_core.datasets import DATASETS
from semalign3d_core.perception import backbones, depth, masks
image = read_image(IMAGE)
assert backbones.create("colour:24").extract(image).values.shape == (3, 24, 24)
assert depth.create("floor").estimate(image).values.shape == (400, 600)
assert 0 < masks.create("bright:1.5").segment(image).float().mean() < 0.5
found = match(IMAGE, IMAGE, [[300, 20], [221, 303]], matcher="most_similar", backbone="colour")
assert found.method == "most_similar", found
assert DATASETS["every_pair"].__name__ == "EveryPair"
from semalign3d_core.runtime.plugins import installed
assert len(installed()) == 5
"""
    (installed / "site" / "uses_plugins.py").write_text(script.replace("IMAGE", repr(str(COFFEE))))
    done = run(["uses_plugins"], installed)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_evaluation_takes_them(installed, tmp_path):
    from tiny_dataset import make_dataset

    make_dataset(tmp_path / "data")
    options = ["--kind", "every_pair", "--backbone", "colour", "--method", "most_similar", "--workers", "2"]
    done = run(
        ["semalign3d_core.cli.eval_spair", "--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *options], installed
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["method"] == "most_similar"


def test_a_file_is_given_on_the_command_line(tmp_path, capsys):
    from semalign3d_core.cli.main import main

    file = tmp_path / "mine.py"
    file.write_text(FILES["semalign3d_colour/backbone.py"] + '\n\nBACKBONES = {"colour_of_a_file": ColourBackbone}\n')
    points = ["--points", "300,20", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["match", str(COFFEE), str(COFFEE), "--plugin", str(file), "--backbone", "colour_of_a_file:24", *points]) == 0
    assert str(file) in plugins.loaded()
    plugins.load(str(file))  # once more changes nothing
    assert main(["match", "--plugin"]) == 2 and "--plugin needs the name" in capsys.readouterr().err
    del backbones.BACKBONES["colour_of_a_file"], plugins._LOADED[str(file)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("BACKBONE = {}", "defines none of BACKBONES, DEPTHS, MASKS, MATCHERS, DATASETS"),
        ("import nothing_of_this_name", r"cannot be imported \(ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("BACKBONES = {'compact': print}", "calls one of its backbones 'compact'"),
    ],
)
def test_files_that_are_no_plugin(tmp_path, text, problem):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=problem):
        plugins.load(str(tmp_path / "mine.py"))
    assert str(tmp_path / "mine.py") not in plugins.loaded()


def test_modules_and_files_that_are_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.py does not exist"):
        plugins.load(str(tmp_path / "nowhere.py"))
    with pytest.raises(InputError, match="nothing_of_this_name"):
        plugins.load("nothing_of_this_name")


def test_a_registry_imports_what_is_asked_for(monkeypatch):
    registry = Registry("backbones", {"path": "pathlib:Path", "broken": "no_such_module:x"})
    monkeypatch.setitem(plugins._REGISTRIES, "backbones", backbones.BACKBONES)
    assert registry["path"] is Path and registry.get("nothing") is None and "broken" in registry
    with pytest.raises(InputError, match="update or remove that plug-in"):
        registry["broken"]
