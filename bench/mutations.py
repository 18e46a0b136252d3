"""Mutants of Python sources: where they lie, and the changed code."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, so that it can be forked
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading them takes longer than most tests

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """A change of one place.

    file: below the package;  line: of the place;  statement: first line of the statement around it, which is what coverage counts;
    in_function: whether it is run by a call, not while the module is loaded
    node: number in the walk over the file;  change: which of the node's;  words: what is changed
    """

    file: str
    line: int
    statement: int
    in_function: bool
    node: int
    change: int
    words: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line} {self.words} ({self.node}.{self.change})"


# What can be changed


SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(words, changed node) of every change of a node."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPPED:
        yield _swapped(node.op), _with(node, op=SWAPPED[type(node.op)]())
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        yield _swapped(node.ops[0]), _with(node, ops=[SWAPPED[type(node.ops[0])]()])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield f"without {type(node.op).__name__}", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} -> {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield f"{node.value} -> {node.value + 1}", ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp) or (isinstance(node, ast.If) and not any(isinstance(each, ast.Raise) for each in node.body)):
        yield "condition negated", _with(node, test=ast.UnaryOp(ast.Not(), node.test))


def _swapped(operator: ast.AST) -> str:
    return f"{type(operator).__name__} -> {SWAPPED[type(operator)].__name__}"


def _with(node: ast.AST, **values: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


def _ignored(tree: ast.AST) -> set[int]:
    """Nodes that no behaviour depends on: annotations, and the texts of errors."""
    found = set()
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        parts += [node] if isinstance(node, (ast.Raise, ast.JoinedStr)) else []
        found |= {id(inner) for part in parts if isinstance(part, ast.AST) for inner in ast.walk(part)}
    return found


def mutants_of(path: Path) -> list[Mutant]:
    """All :class:`Mutant` of a file."""
    tree, found = ast.parse(path.read_text()), []
    functions = [(f.body[0].lineno, f.end_lineno or 0) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    ignored, statements, name = _ignored(tree), _statements(tree), str(path.relative_to(ROOT / "semalign3d_core"))
    for number, node in enumerate(ast.walk(tree)):
        if id(node) not in ignored:
            line = getattr(node, "lineno", 0)
            statement = statements.get(id(node), 0)
            inside = any(first <= statement <= last for first, last in functions)
            found += [Mutant(name, line, statement, inside, number, c, words) for c, (words, _) in enumerate(changes(node))]
    return found


def _statements(tree: ast.AST) -> dict[int, int]:
    """{node: first line of the innermost statement around it}."""
    found: dict[int, int] = {}
    for statement in ast.walk(tree):  # from the outermost on
        if isinstance(statement, ast.stmt):
            found |= {id(node): statement.lineno for node in ast.walk(statement)}
    return found


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The source with the change; line numbers stay."""
    tree = ast.parse(source)
    target = next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.node)
    replacement = list(changes(target))[mutant.change][1]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return replacement if node is target else self.generic_visit(node)

    for node in ast.walk(replacement):
        ast.copy_location(node, target)
    return ast.fix_missing_locations(Replace().visit(tree))


# Which tests run which lines
