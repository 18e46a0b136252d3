"""Kills commands at random moments and runs them again: the results must be those of an undisturbed run, and nothing may be left.

    python bench/kill.py [--kills 1000] [--seed 0] [--commands import synth build evaluate]

Every command is run once undisturbed. Then it is started and killed (SIGKILL, with its workers) after a random part of that time, one to
three times in a folder, and run to its end there: all files must be equal, byte by byte (times in reports left out). Most runs are forked
from a process that has the modules loaded, so that a kill takes as long as the work before it. In each twentieth folder all runs are
processes of their own: the loading of modules is killed, too, and their workers with them.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semalign3d_core.cli.main import COMMANDS

PROGRAM = "import sys; open(sys.argv.pop(1), 'w').close(); sys.argv[0] = '{}'; from semalign3d_core.cli.{} import main; sys.exit(main())"
SECONDS = re.compile(r'("(?:[a-z_]*seconds|created|date|time|host)[a-z_]*": )(\{[^}]*\}|[^,\n}]*)|\d+\.\d+ s\b')
NAMES = ["cap", "neck", "left_base", "right_base"]
FRESH = 20  # of so many attempts one consists of processes of their own
MODULES = [
    *(f"semalign3d_core.cli.{module}" for module, _ in COMMANDS.values()),
    *(
        "tyro",
        "semalign3d_core.datasets.import_coco",
        "semalign3d_core.evaluation.run.runner",
        "semalign3d_core.visualization.inspect_report",
    ),
]


def inputs(folder: Path) -> dict[str, list[str]]:
    """Writes what the commands read below ``folder``; returns {command: arguments}, with ``OUT`` for the folder that it writes."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bottle", "keypoints": NAMES}]}
    for n in range(30):
        Image.fromarray(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)).save(photos / f"{n}.png")
        content["images"].append({"id": n, "file_name": f"{n}.png", "width": 160, "height": 120})
        keypoints = [80, 20, 2, 80, 50, 2, 60, 100, 2, 100, 100, 2]
        outline = [[50, 10, 110, 10, 110, 110, 50, 110]]
        content["annotations"].append({"image_id": n, "category_id": 1, "keypoints": keypoints, "segmentation": outline})
    (folder / "labels.json").write_text(json.dumps(content))
    (folder / "fast.yaml").write_text("calibrate: false\nem:\n  rounds: 8\ndense:\n  points: 40\n")
    synth = ["synth", "--categories", "mug", "--features", "sim", "--size", "64"]
    data = folder / "data"
    assert run([*synth, "--output", "OUT", "--train", "14", "--test", "4", "--pairs", "6"], data) == 0
    providers = ["--backbone", "precomputed:sim", "--depth", "precomputed", "--masks", "precomputed"]
    return {
        "import": ["import", str(folder / "labels.json"), "--images", str(photos), "--output", "OUT"],
        "synth": [*synth, "--output", "OUT", "--train", "4", "--test", "2", "--pairs", "4"],
        "build": [
            *("build", "--dataset", str(data), "--category", "mug", *providers),
            *("--preset", str(folder / "fast.yaml"), "--output", "OUT"),
        ],
        "evaluate": [
            *("evaluate", "--dataset", str(data), "--method", "nearest_neighbour", *providers, "--split", "test"),
            *("--cache", "OUT/cache", "--output", "OUT/results"),
        ],
    }  # fmt: skip


class Running:
    """A command that runs, in a session of its own. ``OUT`` in its arguments is where it writes; a context manager.

    fresh: in a process that loads its modules, else forked from one that has them; there synth has no workers beside it
    """

    def __init__(self, arguments: list[str], output: Path, fresh: bool = True) -> None:
        arguments = [part.replace("OUT", str(output)) for part in arguments]
        program, module = ("eval_spair", arguments.pop(0)) if arguments[0] == "eval_spair" else ("semalign3d", "main")
        self._folder = tempfile.TemporaryDirectory()
        self._errors, started = Path(self._folder.name) / "errors", Path(self._folder.name) / "started"
        self._process: Any
        if fresh:
            command = [sys.executable, "-c", PROGRAM.format(program, module), str(started), *arguments]
            with open(self._errors, "wb") as errors:
                self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(MODULES)  # of no effect where another user of it has started the server
            self._process = context.Process(target=_forked, args=(program, module, arguments, self._errors, started))
            self._process.start()
        while not started.exists() and self.ended(0) is None:
            time.sleep(0.001)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        self.ended()
        self._folder.cleanup()

    def ended(self, seconds: float | None = None) -> int | None:
        """The exit code, waited for so long; None if it still runs then."""
        if not isinstance(self._process, subprocess.Popen):
            self._process.join(seconds)
            return self._process.exitcode
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> bool:
        """Sends a signal to the command and all its processes; False if none is left."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def error(self) -> str:
        """What it has written to stderr."""
        return self._errors.read_text(errors="replace")


def _forked(program, module, arguments, errors, started):
    os.setsid()
    for number, name in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv[0] = program
    importlib.reload(importlib.import_module("semalign3d_core.starting"))  # which looks who imports it
    started.touch()
    main = importlib.import_module(f"semalign3d_core.cli.{module}").main
    sys.exit(main([*arguments, "--workers", "1"] if arguments[0] == "synth" else arguments))


def run(arguments: list[str], output: Path, seconds: float | None = None, fresh: bool = True) -> int | None:
    """Runs a command; with ``seconds`` it is killed after so many, and its workers with it (None), unless it has ended."""
    with Running(arguments, output, fresh) as running:
        code = running.ended(seconds)
        if code:
            print(running.error()[-2000:], file=sys.stderr)
        return code


def content(folder: Path) -> dict[str, bytes]:
    """{relative path: bytes} of all files, hidden ones included, without times, and without the folder's own name.

    Measured times stand in the cache's entries and in the report of an evaluation: of these only the names count.
    """
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        timed = path.name == "report.html" or "cache" in path.relative_to(folder).parts
        data = b"" if timed else path.read_bytes()
        if path.name == "results.json":
            data = json.dumps({k: v for k, v in json.loads(data).items() if k not in ("latency", "memory", "cache")}, indent=1).encode()
        if path.suffix in (".json", ".html", ".yaml", ".csv", ".txt", ".md"):
            data = SECONDS.sub(r"\1", data.decode().replace(str(folder), "OUT")).encode()
        found[str(path.relative_to(folder))] = data
    return found


def attack(name: str, arguments: list[str], kills: int, rng: random.Random, folder: Path) -> list[str]:
    """What went wrong with ``kills`` kills of a command; [] if nothing did."""
    expected: dict[str, bytes] = {}
    took: dict[bool, float] = {}
    problems, done, attempts, output = [], 0, 0, folder / f"{name}_out"
    while done < kills:
        fresh = attempts % FRESH == FRESH - 1
        if fresh not in took:
            took[fresh], code = timed(arguments, output, fresh)
            if code:
                return ["the undisturbed run failed"]
            expected = expected or content(output)
            problems += [f"undisturbed, it writes something else: {text}" for text in differences(expected, content(output))]
            shutil.rmtree(output)
        for _ in range(min(rng.randint(1, 3), kills - done)):
            code = run(arguments, output, rng.random() * took[fresh], fresh)
            done += code is None
            if code:
                problems.append(f"kill {done}: a run after a kill failed with code {code}")
        if any(output.rglob(".*")):
            time.sleep(1.1)  # younger temporary files are left to their writers
        seconds, code = timed(arguments, output, fresh)
        took[fresh] = max(0.9 * took[fresh], seconds)  # the machine may have become slower, or quicker
        if code:
            problems.append(f"kill {done}: the last run failed with code {code}")
        problems += [f"kill {done}: {text}" for text in differences(expected, content(output))]
        shutil.rmtree(output, ignore_errors=True)
        attempts += 1
        if attempts % 20 == 0:
            print(f"  {name}: {done} kills, {len(problems)} problems", flush=True)
    return problems


def timed(arguments: list[str], output: Path, fresh: bool) -> tuple[float, int | None]:
    """(seconds, exit code) of a command that is left alone."""
    began = time.monotonic()
    code = run(arguments, output, fresh=fresh)
    return time.monotonic() - began, code


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """[] if both are the same, else one text that names the first files."""
    names = [path for path in sorted({*expected, *found}) if expected.get(path) != found.get(path)]
    return [f"{', '.join(names[:4])} differ or are left over"] if names else []


def main() -> int:
    """Prints what went wrong, by command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=["import", "synth", "build", "evaluate"])
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        commands = inputs(Path(name) / "inputs")
        for command in options.commands:
            kills = options.kills // len(options.commands)
            problems = attack(command, commands[command], kills, random.Random(options.seed), Path(name))
            print(f"{command:9s} {kills:5d} kills, {len(problems)} problems", flush=True)
            print("".join(f"  {text}\n" for text in problems[:10]), end="", flush=True)
            failed += len(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
