"""The names that users import, frozen: a change here is a change of the interface and belongs into the changelog."""

import doctest
import importlib
import inspect
import typing
from pathlib import Path

import pytest

import semalign3d_core

NAMES = [
    "Alignment",
    "CategoryModel",
    "DepthMap",
    "DepthSource",
    "FeatureBackbone",
    "FeatureMap",
    "FrameResult",
    "ImageEvidence",
    "ImageInput",
    "MaskSource",
    "MatchResult",
    "Matcher",
    "Matches",
    "PinholeCamera",
    "Pipeline",
    "PipelineConfig",
    "SemAlign3DError",
    "SquareGrid",
    "__version__",
    "build_model",
    "load_model",
    "load_pipeline",
    "match",
    "read_image",
]
METHODS = {
    "FrameResult": "draw load save show to_dict to_glb to_ply",
    "MatchResult": "draw load save show to_dict",
    "Pipeline": "each process process_batch with_demonstration",
}
DOCTESTS = (
    "semalign3d_core",
    "semalign3d_core.pipeline",
    "semalign3d_core.matching",
    "semalign3d_core.results",
    "semalign3d_core.geometry.camera",
)


def test_the_names_are_frozen_and_few():
    assert sorted(semalign3d_core.__all__) == sorted(NAMES) and len(NAMES) <= 25
    assert all(hasattr(semalign3d_core, name) for name in NAMES)


@pytest.mark.parametrize("name", METHODS)
def test_so_are_the_methods_of_what_they_return(name):
    kind = getattr(semalign3d_core, name)
    public = [key for key, value in inspect.getmembers(kind) if not key.startswith("_") and callable(value)]
    assert public == METHODS[name].split()


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("_")])
def test_each_has_a_docstring_and_types(name):
    value = getattr(semalign3d_core, name)
    assert inspect.getdoc(value)
    functions = (
        [value] if inspect.isfunction(value) else [f for key, f in vars(value).items() if inspect.isfunction(f) and not key.startswith("_")]
    )
    for function in functions:
        hints = typing.get_type_hints(function)
        assert "return" in hints and set(inspect.signature(function).parameters) - {"self", "cls"} <= set(hints), function


@pytest.mark.slow
@pytest.mark.parametrize("module", DOCTESTS)
def test_examples_in_docstrings_run(module, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    failed, _ = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_examples():
    found = [test for module in DOCTESTS for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples]
    assert len({test.name for test in found}) >= 4


def test_type_checkers_may_use_the_types():
    assert (Path(semalign3d_core.__file__).parent / "py.typed").is_file()
