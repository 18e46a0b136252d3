"""Kills commands at random moments and runs them again: the results must be those of an undisturbed run, and nothing may be left.

    python bench/kill.py [--kills 1000] [--seed 0] [--commands import synth build evaluate]

Every command is run once undisturbed. Then it is started and killed (SIGKILL, with its workers) after a random part of that time, one to
three times in a folder, and run to its end there: all files must be equal, byte by byte (times in reports left out).
"""

import argparse
import json
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

import numpy as np
from PIL import Image

PROGRAM = "import sys; sys.argv[0] = 'semalign3d'; from semalign3d_core.cli.main import main; sys.exit(main())"
SECONDS = re.compile(r'("(?:[a-z_]*seconds|created|date|time|host)[a-z_]*": )(\{[^}]*\}|[^,\n}]*)|\d+\.\d+ s\b')
NAMES = ["cap", "neck", "left_base", "right_base"]


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
    synth = ["synth", "--categories", "mug", "--features", "sim", "--size", "96", "--workers", "2"]
    data = folder / "data"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, *synth, "--output", str(data), "--train", "14", "--test", "4", "--pairs", "6"], check=True
    )
    providers = ["--backbone", "precomputed:sim", "--depth", "precomputed", "--masks", "precomputed"]
    return {
        "import": ["import", str(folder / "labels.json"), "--images", str(photos), "--output", "OUT"],
        "synth": [*synth, "--output", "OUT", "--train", "6", "--test", "2", "--pairs", "4"],
        "build": ["build", "--dataset", str(data), "--category", "mug", *providers, "--output", "OUT"],
        "evaluate": [
            *("evaluate", "--dataset", str(data), "--method", "nearest_neighbour", *providers, "--split", "test"),
            *("--cache", "OUT/cache", "--output", "OUT/results"),
        ],
    }  # fmt: skip


def run(arguments: list[str], output: Path, seconds: float | None = None) -> int | None:
    """Runs a command; with ``seconds`` it is killed after so many, and its workers with it (None), unless it has ended."""
    command = [sys.executable, "-c", PROGRAM, *(part.replace("OUT", str(output)) for part in arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        print(error.decode(errors="replace")[-2000:], file=sys.stderr)
    return process.returncode


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
    calm = folder / f"{name}_calm"
    began = time.monotonic()
    if run(arguments, calm):
        return ["the undisturbed run failed"]
    took, expected, problems = time.monotonic() - began, content(calm), []
    done = 0
    while done < kills:
        output = folder / f"{name}_killed"
        for _ in range(min(rng.randint(1, 3), kills - done)):
            code = run(arguments, output, rng.uniform(0.2, 1.0) * took)
            done += 1
            if code:
                problems.append(f"kill {done}: a run after a kill failed with code {code}")
        time.sleep(1.1)  # younger temporary files are left to their writers
        code = run(arguments, output)
        found = content(output)
        if code:
            problems.append(f"kill {done}: the last run failed with code {code}")
        differing = [path for path in sorted({*expected, *found}) if expected.get(path) != found.get(path)]
        if differing:
            problems.append(f"kill {done}: {', '.join(differing[:4])} differ or are left over")
        shutil.rmtree(output, ignore_errors=True)
    return problems


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
