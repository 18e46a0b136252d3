"""What counts as the code of a result: the class's module, what it imports, a plug-in's package; not comments, not what lies elsewhere."""

import importlib
import sys

import pytest

from semalign3d_core.category.storage import find_model, load_model
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.runtime import code_hash
from semalign3d_core.runtime.code_hash import code_of

PLUGIN = """
from semalign3d_core.matchers.matcher import Matcher
from plugged.helper import scaled

class Plugged(Matcher):
    name = "plugged"

    def match(self, source, target, points):
        return scaled(points)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    folder = tmp_path / "plugged"
    folder.mkdir()
    for name, text in (("__init__", ""), ("matcher", PLUGIN), ("helper", "def scaled(points):\n    return 2 * points\n")):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder, importlib.import_module("plugged.matcher").Plugged()
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "edit", "changes"),
    [
        ("matcher", lambda text: text.replace("scaled(points)", "scaled(-points)"), True),
        ("helper", lambda text: text.replace("2 *", "3 *"), True),
        ("helper", lambda text: text + "\n\nOTHER = 1\n", True),
        ("matcher", lambda text: text.replace("name =", "# a remark\n    name ="), False),
        ("helper", lambda text: text.replace("    return", '    """What it does."""\n\n    return'), False),
    ],
)
def test_code_of_a_plugin(plugin, file, edit, changes):
    folder, matcher = plugin
    before, path = code_of(matcher), folder / f"{file}.py"
    path.write_text(edit(path.read_text()))
    assert (code_of(matcher) != before) == changes


def test_a_class_without_a_file_is_known_by_its_compiled_code():
    def made(text):
        space = {"__name__": "nowhere"}
        exec(f"class M:\n    def match(self, x):\n        return {text}", space)
        return space["M"]

    assert code_of(made("x.argmax()")) != code_of(made("x.argmin()")) and code_of(made("x + 1")) == code_of(made("x + 1"))


def files_of(thing):
    kinds = code_hash._kinds(thing, code_hash.DEPTH, set())
    return {str(f.relative_to(code_hash.PACKAGE)) for kind in kinds for f in code_hash._needed(code_hash._source(kind.__module__))}


def test_a_method_depends_on_what_it_uses_and_on_nothing_else():
    nearest, full = files_of(MATCHERS["nearest_neighbour"]()), files_of(MATCHERS["semalign3d"](model=load_model(find_model("mug"))))
    assert {"matchers/soft_argmax.py", "geometry/readouts.py"} <= nearest
    assert not any(name.startswith(("alignment/", "evaluation/", "learned/", "cli/")) for name in nearest)
    assert {"alignment/gauss_newton/solver.py", "transfer/lift.py", "category/surface/surface_map.py"} <= full
    assert not any(name.startswith(("evaluation/", "learned/", "matchers/sfnet", "calibration/")) for name in full)
