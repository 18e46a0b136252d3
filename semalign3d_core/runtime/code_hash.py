"""Hashes of the code that a result depends on: what was computed by other code is not taken from the cache.

The code of an object is the module that defines its class, the modules of this package that this one imports, directly or through
others, and all modules of a plug-in's own package. Comments, docstrings and layout do not count. A package's ``__init__`` is a list of
what there is; what it makes on demand is an object whose own code is asked for.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

PACKAGE = Path(__file__).parents[1]
DEPTH = 6  # of objects within objects: a matcher's aligner, a backbone's own backbone


def code_of(*things: Any) -> str:
    """Hexadecimal SHA-256 of the code of objects, classes and functions, and of the objects that they hold."""
    kinds: dict[Any, None] = {}
    for thing in things:
        kinds |= dict.fromkeys(_kinds(thing, DEPTH, set()))
    files: set[Path] = set()
    loose = []
    for kind in kinds:
        path = _source(kind.__module__)
        if path is None:
            loose.append(_compiled_hash(kind))
        else:
            files |= _needed(path)
    digest = hashlib.sha256()
    for part in sorted({*loose, *(f"{path.name} {_code_hash(path, path.stat().st_mtime_ns)}" for path in files)}):
        digest.update(part.encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Hash of all sources of this package, for the record of a result's versions; no key of a cache."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _kinds(thing: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """The classes and functions whose code makes up a thing: itself or its class, and those of what it holds, as far as they are ours."""
    if thing is None or id(thing) in seen or depth < 0:
        return
    seen.add(id(thing))
    if isinstance(thing, list | tuple | dict):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from _kinds(part, depth - 1, seen)
        return
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    bases = getattr(kind, "__mro__", (kind,))
    if depth < DEPTH and not any(_top(base) == PACKAGE.name for base in bases):
        return  # of a library
    yield from (base for base in bases if _top(base) in (PACKAGE.name, _top(kind)))
    if kind is not thing:
        for part in getattr(thing, "__dict__", {}).values():
            yield from _kinds(part, depth - 1, seen)


def _top(kind: Any) -> str:
    return str(kind.__module__).partition(".")[0]


def _source(module: str) -> Path | None:
    """The Python file of a loaded module; None where there is none (an interactive session)."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).resolve() if file and file.endswith(".py") and Path(file).is_file() else None


def _needed(path: Path) -> frozenset[Path]:
    """A source file with all files of ours that it needs."""
    found, waiting = set(), [path]
    if not path.is_relative_to(PACKAGE):
        waiting += _own_package(path)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += _imports(one, one.stat().st_mtime_ns)
    return frozenset(found)


def _own_package(path: Path) -> Iterable[Path]:
    """All sources of the package that a plug-in's file belongs to; nothing for a file that stands alone."""
    top = path.parent
    if not (top / "__init__.py").is_file():
        return []
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    return sorted(top.rglob("*.py"))


@lru_cache(maxsize=4096)
def _imports(path: Path, changed: int) -> tuple[Path, ...]:
    """The files of ours that a source file imports, also inside functions; of a package's list only what it imports at once."""
    tree = ast.parse(path.read_bytes())
    listing = path.name == "__init__.py" and path.is_relative_to(PACKAGE)
    found: list[Path] = []
    for node in tree.body if listing else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [file for name in names if (file := _file_of(name, path)) is not None]
    return tuple(found)


def _file_of(name: str, importer: Path) -> Path | None:
    """The file of a module of this package, or of one beside a plug-in's file."""
    parts = name.split(".")
    base = (PACKAGE.parent if parts[0] == PACKAGE.name else importer.parent).joinpath(*parts)
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


@lru_cache(maxsize=4096)
def _code_hash(path: Path, changed: int) -> str:
    """Hash of a source file without comments, docstrings and layout."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _compiled_hash(kind: Any) -> str:
    """Hash of the compiled code of a class or function without a source file."""
    functions = [kind, *vars(kind).values()] if isinstance(kind, type) else [kind]
    codes = [code for function in functions if isinstance(code := getattr(function, "__code__", None), CodeType)]
    return hashlib.sha256("".join([kind.__qualname__, *map(_compiled, codes)]).encode()).hexdigest()


def _compiled(code: CodeType) -> str:
    parts = [_compiled(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return code.co_code.hex() + ",".join([*code.co_names, *parts])
