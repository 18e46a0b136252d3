"""Would the tests notice? Breaks the sources in one place at a time and runs the fast tests of that folder.

    nice python bench/mutants.py [--sample 200] [--folders alignment transfer category metrics] [--seed 0]

A mutant is one changed operator, comparison, condition, number or truth value, drawn at random from all that the folders have. It is
killed by the first failing test among the fast ones (`--slow`: all) of ``test/FOLDER`` that run the changed line (or, for a line outside of
functions, among all of them); if none fails it has survived, and is printed. A mutant is put into the loaded functions of a fork of a
process that has collected the tests; one outside of functions into the sources, of which a fork loads a copy. mutmut cannot draw a
sample, and cosmic-ray starts a new interpreter for each mutant, which alone takes longer than most tests.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, so that it can be forked
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading them takes longer than most tests

import ast
import contextlib
import gc
import importlib
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import tyro
from mutations import ROOT, Mutant, mutants_of, mutated
from tqdm import tqdm

PRELOADED = (
    "numpy",
    "torch",
    "torch._dynamo",
    "torch._decomp.decompositions_for_jvp",
    "scipy.optimize",
    "scipy.ndimage",
    "scipy.special",
    "cv2",
    "PIL.Image",
    "safetensors.torch",
    "yaml",
    "trimesh",
)
FASTER_THAN = 5.0  # CPU seconds: slower tests judge no mutant, whether marked slow or not
KILLED, SURVIVED, UNTESTED = "killed", "survived", "run by no test"


@dataclass
class Options:
    """Options of the mutation run."""

    sample: int = 200
    """Number of mutants; 0: all."""
    folders: tuple[str, ...] = ("alignment", "transfer", "category", "metrics")
    """Folders of semalign3d_core, each with the folder of tests of the same name."""
    slow: bool = False
    """Tests marked slow judge, too."""
    tests: str = ""
    """Only tests that this expression of ``pytest -k`` chooses judge."""
    again: bool = False
    """Of mutants that are known already those that were not noticed are judged again."""
    seed: int = 0
    """Seed of the draw."""
    output: Path | None = None
    """File of JSON lines: one result each; an interrupted run goes on from it."""


@dataclass(eq=False)
class Recorder:
    """A pytest plugin: CPU seconds and lines of every test; those of shared fixtures count for all tests that use them."""

    coverage: Any
    seconds: dict[str, float] = field(default_factory=dict)
    fixtures: dict[str, list[str]] = field(default_factory=dict)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.fixtures[item.nodeid] = [f"fixture {name}" for name in getattr(item, "fixturenames", ())]
        self.coverage.switch_context(item.nodeid)
        self.current, begin = item.nodeid, time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - begin

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope != "function":
            self.coverage.switch_context(f"fixture {fixturedef.argname}")
        yield
        self.coverage.switch_context(self.current)


@dataclass
class Tests:
    """Tests of a folder, the quickest files first, with the lines {file: {line}} that each runs."""

    lines: dict[str, dict[str, set[int]]]

    def of(self, mutant: Mutant) -> list[str]:
        """Names of the tests that run the mutant; all for what is computed while its module is loaded."""
        if not mutant.in_function:
            return list(self.lines)
        return [name for name, lines in self.lines.items() if mutant.statement in lines.get(mutant.file, ())]


def record(sandbox: Path, folder: str, options: Options) -> Tests:
    """Runs the tests of a folder once, in a child."""
    found = in_child(lambda: _record(sandbox, _chosen(folder, options)), seconds=3600)
    if isinstance(found, str):
        raise RuntimeError(f"the tests of {folder} fail on the unchanged sources:\n{found}")
    return Tests({name: {file: set(lines) for file, lines in files.items()} for name, files in found.items()})


def _chosen(folder: str, options: Options) -> list[str]:
    """Arguments of pytest that choose the tests of a folder."""
    return ["-m", "not ros" if options.slow else "not slow and not ros", "-k", options.tests, f"test/{folder}"]


def _record(sandbox: Path, arguments: list[str]) -> Any:
    import coverage

    package = sandbox / "semalign3d_core"
    measured = coverage.Coverage(data_file=None, source=[str(package)], config_file=False)
    recorder = Recorder(measured)
    measured.start()
    code, output = run_tests(sandbox, arguments, [recorder])
    measured.stop()
    if code:
        return output
    data, lines = measured.get_data(), defaultdict(lambda: defaultdict(set))
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for context in contexts:
                lines[context][str(Path(file).resolve().relative_to(package.resolve()))].add(line)
    result: dict[str, dict[str, list[int]]] = {}
    by_file: dict[str, float] = defaultdict(float)
    for name, seconds in recorder.seconds.items():
        by_file[name.split("::")[0]] += seconds
    # Those of a file together, for they share fixtures.
    for name, seconds in sorted(recorder.seconds.items(), key=lambda entry: (by_file[entry[0].split("::")[0]], entry[1])):
        if seconds < FASTER_THAN:
            parts = [lines[context] for context in (name, *recorder.fixtures[name]) if context in lines]
            files = {file for part in parts for file in part}
            result[name] = {file: sorted(set().union(*(part[file] for part in parts if file in part))) for file in files}
    return result


def run_tests(sandbox: Path, arguments: list[str], plugins: list[Any]) -> tuple[int, str]:
    """Exit code and output of the tests that are named."""
    os.chdir(sandbox)
    sys.path[:0] = [str(sandbox)]
    sys.dont_write_bytecode = True
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments], plugins=plugins)
    return int(code), output.getvalue()


def in_child(work: Any, seconds: float) -> Any:
    """What ``work()`` returns (JSON) in a fork of this process that may take so many CPU seconds; None if it did not end by itself."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        process = os.fork()
        if process == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
            code = 1
            try:
                answer.write_text(json.dumps(work()))
                code = 0
            finally:
                os._exit(code)
        os.waitpid(process, 0)
        return json.loads(answer.read_text()) if answer.exists() else None


@dataclass(eq=False)
class Judge:
    """A pytest plugin: judges mutants of functions instead of running the tests that were collected.

    Each gets a fork in which everything is loaded.
    sandbox: the sources;  mutants, tests: of one folder;  note: called with every mutant and its outcome
    """

    sandbox: Path
    mutants: list[Mutant]
    tests: Tests
    note: Callable[[Mutant, str], None]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for mutant in self.mutants:
            with changed(self.sandbox, mutant) as (path, tree):
                chosen, code = [items[name] for name in self.tests.of(mutant)], compile(tree, str(path), "exec")
                passed = in_child(lambda c=chosen, p=path, k=code: _passes(session, c, p, k), seconds=30)
            self.note(mutant, SURVIVED if passed else KILLED)
        return True


@contextlib.contextmanager
def changed(sandbox: Path, mutant: Mutant) -> Iterator[tuple[Path, ast.Module]]:
    """The file of a mutant, which holds it meanwhile, and its content."""
    path = sandbox / "semalign3d_core" / mutant.file
    source = path.read_text()
    tree = mutated(source, mutant)
    try:
        path.write_text(ast.unparse(tree))
        yield path, tree
    finally:
        path.write_text(source)


def judge_loaded(sandbox: Path, mutant: Mutant, tests: Tests) -> str:
    """Outcome of a mutant of what is computed while its module is loaded: a fork in which no module is loaded yet loads it."""
    with changed(sandbox, mutant):
        code = in_child(lambda: run_tests(sandbox, tests.of(mutant), [])[0], seconds=60)
    return SURVIVED if code == 0 else KILLED


def _passes(session: pytest.Session, chosen: list[pytest.Item], path: Path, code: CodeType) -> bool:
    """Whether the chosen tests pass with the code of a mutant, which is put into the functions that are loaded."""
    _replace_code(path, code)
    for item, following in zip(chosen, [*chosen[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed or session.shouldfail:
            return False
    return True


def _replace_code(path: Path, module: CodeType) -> None:
    """Gives all functions of a file that are loaded the code that they have in a compiled module."""
    new: dict[tuple[str, int], CodeType] = {}
    waiting = [module]
    while waiting:
        code = waiting.pop()
        inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        new |= {(each.co_qualname, each.co_firstlineno): each for each in inner}
        waiting += inner
    for value in gc.get_objects():
        if isinstance(value, FunctionType) and value.__code__.co_filename == str(path):
            code = new.get((value.__code__.co_qualname, value.__code__.co_firstlineno))
            if code is not None and len(code.co_freevars) == len(value.__code__.co_freevars):
                value.__code__ = code


def make_sandbox(folder: Path) -> Path:
    """A copy of what the tests need, in which sources can be changed."""
    for name in ("semalign3d_core", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    (folder / "semalign3d_core" / "assets").symlink_to(ROOT / "semalign3d_core" / "assets")
    for name in ("test", "bench", "docs", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def judge_all(sandbox: Path, drawn: list[Mutant], known: dict[str, str], options: Options) -> dict[str, str]:
    """Judges the mutants folder by folder, prints what was not noticed, and returns {mutant: outcome}."""
    with tempfile.TemporaryDirectory() as temporary:
        output = options.output or Path(temporary) / "outcomes"
        for folder in options.folders:
            mutants = [mutant for mutant in drawn if mutant.file.startswith(f"{folder}/")]
            tests = record(sandbox, folder, options) if any(mutant.name not in known for mutant in mutants) else Tests({})
            progress = tqdm(mutants, desc=folder, unit="mutant", file=sys.stderr, mininterval=10)

            def note(mutant: Mutant, outcome: str, progress: tqdm = progress) -> None:
                with open(output, "a") as file:
                    file.write(json.dumps({"mutant": mutant.name, "outcome": outcome}) + "\n")
                progress.update()

            new = [mutant for mutant in mutants if mutant.name not in known]
            tested = [mutant for mutant in new if tests.of(mutant)]
            for mutant in new:
                if mutant not in tested:
                    note(mutant, UNTESTED)
            called = [mutant for mutant in tested if mutant.in_function]
            if called:
                plugin = Judge(sandbox, called, tests, note)
                in_child(lambda p=plugin, f=folder: run_tests(sandbox, _chosen(f, options), [p])[1], seconds=36000)
            for mutant in tested:
                if not mutant.in_function:
                    note(mutant, judge_loaded(sandbox, mutant, tests))
        known = known | outcomes_in(output)
    for mutant in drawn:
        if known.get(mutant.name) != KILLED:
            print(f"{known.get(mutant.name, 'not judged')}: {mutant.name}")
    return known


def outcomes_in(path: Path) -> dict[str, str]:
    """{mutant: outcome} of a file of JSON lines, the last one of each counts."""
    if not path.exists():
        return {}
    return {entry["mutant"]: entry["outcome"] for entry in map(json.loads, path.read_text().splitlines())}


def main(options: Options) -> int:
    """Prints the survivors, then the rates."""
    for name in PRELOADED:
        importlib.import_module(name)
    every = [
        m for folder in options.folders for path in sorted((ROOT / "semalign3d_core" / folder).rglob("*.py")) for m in mutants_of(path)
    ]
    drawn = every if not options.sample else random.Random(options.seed).sample(every, min(options.sample, len(every)))
    known = {} if options.output is None else outcomes_in(options.output)
    if options.again:
        known = {name: outcome for name, outcome in known.items() if outcome == KILLED}
    print(f"{len(drawn)} of {len(every)} mutants, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        known = judge_all(make_sandbox(Path(temporary).resolve()), drawn, known, options)
    counts: dict[str, Counter] = defaultdict(Counter)
    for mutant in drawn:
        counts[mutant.file.split("/")[0]][known[mutant.name]] += 1
    total = sum(counts.values(), Counter())
    for folder, found in [*counts.items(), ("all", total)]:
        alive = found[SURVIVED] + found[UNTESTED]
        print(f"{folder:12s} {found.total():4d} mutants, {found[SURVIVED]:3d} survived, {found[UNTESTED]:3d} run by no test: "
              f"{100 * alive / found.total():.0f} % not noticed")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
