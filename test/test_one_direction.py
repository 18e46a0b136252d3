"""Imports run in one direction: what stands in a line uses only what stands in lines above it, inside functions too."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "semalign3d_core"
LEVELS = (
    ("runtime",),
    ("geometry", "metrics", "pages"),
    ("perception",),
    ("datasets",),
    ("category", "learned"),
    ("alignment",),
    ("calibration", "transfer"),
    ("matchers", "visualization"),
    ("evaluation",),
    ("results", "export"),
    ("pipeline",),
    ("matching", "objects"),
    ("__init__", "cli"),
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imported(path):
    """The folders, and modules beside them, of the core that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("semalign3d_core."):
            yield node.module.split(".")[1]


@pytest.mark.slow
def test_every_import_runs_downwards():
    wrong = []
    for path in CORE.rglob("*.py"):
        own = path.relative_to(CORE).parts[0].removesuffix(".py")
        together = next(names for names in LEVELS if own in names) if own in ("results", "export") else (own,)
        wrong += [f"{path.relative_to(CORE)}: {other}" for other in imported(path) if other not in together and LEVEL[other] >= LEVEL[own]]
    assert not wrong
