"""Ctrl-C at random moments: one line, exit code 130, no process left, and the same command afterwards goes on.

    python bench/interrupt.py [--times 200] [--seed 0] [--commands import synth ...]

The signal reaches all processes of the command, as in a terminal. Half of the interrupts come while modules load, from the first line of
Python on; the other half while the command works, in a process that is forked from one that has the modules loaded.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from kill import Running, inputs, run

from semalign3d_core.learned.spherical_maps.network import SphericalMaps
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps
from semalign3d_core.perception.backbones import create

PATIENCE = 60.0  # seconds after which a command that was interrupted counts as hanging
ENDING = 10.0  # seconds that the helpers of a command may take to end after it
ATTEMPTS = 6  # of interrupting a command that is soon done, each time earlier
PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "examples" / "photographs"


def commands(folder: Path) -> dict[str, list[str]]:
    """{name: arguments} of all commands, ``OUT`` for the folder that they write; writes the inputs below ``folder``."""
    found, data = inputs(folder), str(folder / "data")
    mug, screen = (str(path) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))[:2])
    backbone = create("compact")
    mapper = SphericalMaps(backbone.channels, 1)
    save_spherical_maps(mapper, folder / "mapper.safetensors", MapperFacts(backbone.name, False))
    with open(folder / "SPair-71k.tar.gz", "wb") as archive:
        archive.truncate(1 << 32)  # which takes a while to hash
    results = ["--backbone", "precomputed:sim", "--depth", "precomputed", "--masks", "precomputed"]
    for name in ("a", "b"):
        evaluation = ["evaluate", "--dataset", data, "--method", "nearest_neighbour", *results, "--output", "OUT"]
        assert run(evaluation, folder / name, fresh=False) == 0
    small = ["--config.images", "12", "--config.steps", "40", "--config.checkpoint-every", "2"]
    training = ["--output", "OUT/n.safetensors", "--work", "OUT/work"]
    features = ["--dataset", data, "--backbone", "precomputed:sim", "--masks", "precomputed"]
    return found | {
        "eval_spair": ["eval_spair", *found["evaluate"][1:]],
        "align": ["align", str(PHOTOGRAPHS), "--category", "mug", "--output", "OUT"],
        "match": ["match", mug, screen, "--category", "mug", "--points", "100,100", "--output", "OUT"],
        "pose": ["pose", str(PHOTOGRAPHS), "--category", "mug", "--output", "OUT"],
        "imd": ["imd", mug, screen, "--output", "OUT"],
        "sphere": ["sphere", str(folder / "mapper.safetensors"), str(PHOTOGRAPHS), "--output", "OUT/page.html"],
        "inspect": ["inspect", "mug", "--output", "OUT/page.html"],
        "data": ["data", "spair71k", "--source", str(folder / "SPair-71k.tar.gz"), "--output", "OUT"],
        "reproduce": ["reproduce", "spair71k", "--source", str(folder / "SPair-71k.tar.gz"), "--output", "OUT"],
        "compare": ["compare", f"a={folder / 'a'}", f"b={folder / 'b'}", "--dataset", data, "--output", "OUT"],
        "doctor": ["doctor"],
        "config": ["config", "--preset", "align_fast", "--output", "OUT/a.yaml"],
        "train compact": ["train", "compact", *training, *small],
        "train sfnet": ["train", "sfnet", "--dataset", data, *training],
        "train geoaware": ["train", "geoaware", *features, *training],
        "train spherical_maps": ["train", "spherical_maps", *features, *training],
    }


def interrupt(arguments: list[str], output: Path, seconds: float, fresh: bool) -> str | None:
    """What went wrong when a command was interrupted after so many seconds; "" if nothing did, None if it had not begun or had ended."""
    with Running(arguments, output, fresh) as running:
        if running.ended(seconds) is not None:
            return None
        running.signal(signal.SIGINT)
        code = running.ended(PATIENCE)
        if code is None:
            return f"it hangs after an interrupt at {seconds:.2f} s: {running.error()[-500:]}"
        if code == 0 or code == -signal.SIGINT and "semalign3d_core" not in running.error():  # nothing of ours had begun
            return None
        if code != 130 or "Traceback" in running.error() or running.error().count("interrupted") != 1:
            return f"exit code {code} after {seconds:.2f} s: {running.error()[-1500:]}"
        end = time.monotonic() + ENDING
        while running.signal(0):
            if time.monotonic() > end:
                return f"processes are left after an interrupt at {seconds:.2f} s"
            time.sleep(0.01)
    return ""


def attack(arguments: list[str], output: Path, longest: float, rng: random.Random, fresh: bool) -> str:
    """What went wrong when a command was interrupted at a random moment; where that was too late, it is tried again, and earlier."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells tell jobs in the background to ignore it, and they their children
    for _ in range(ATTEMPTS):
        problem = interrupt(arguments, output, longest * rng.random(), fresh)
        if problem is not None:
            return problem
        shutil.rmtree(output, ignore_errors=True)  # with its results there it would be done even earlier
        longest /= 2
    return f"it could not be interrupted, the last time after at most {2 * longest:.3f} s"


def main() -> int:
    """Prints what went wrong, by command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds after which a command is interrupted at the latest")
    parser.add_argument("--commands", nargs="*")
    options = parser.parse_args()
    rng, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        known = commands(Path(name) / "inputs")
        chosen = options.commands or list(known)
        for command in chosen:
            times, output = max(options.times // len(chosen), 2), Path(name) / "out"
            found = [attack(known[command], output, options.longest, rng, fresh=n % 2 == 0) for n in range(times)]
            problems = [text for text in found if text]
            print(f"{command:20s} {times:4d} interrupts, {len(problems)} problems", flush=True)
            print("".join(f"  {text}\n" for text in problems[:5]), end="", flush=True)
            failed += len(problems)
            if command in ("import", "synth", "build", "evaluate") and run(known[command], output):
                print(f"{command}: the same command does not go on")
                failed += 1
            shutil.rmtree(output, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
