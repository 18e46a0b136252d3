"""Ctrl-C at random moments: one line, exit code 130, no process left, and the same command afterwards goes on.

    python bench/interrupt.py [--times 100] [--seed 0] [--commands import synth build evaluate align train_compact train_sfnet]

The signal reaches all processes of the command, as in a terminal, at a random moment from its first line of Python on.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill import PROGRAM, inputs, run

PATIENCE = 60.0  # seconds after which a command that was interrupted counts as hanging
ENDING = 10.0  # seconds that the helpers of a command may take to end after it
STARTED = "import os; os.write(1, b'+'); "  # before that nothing of ours runs


def commands(folder: Path) -> dict[str, list[str]]:
    """{name: arguments} of what is interrupted, ``OUT`` for the folder that it writes; writes the inputs below ``folder``."""
    found = inputs(folder)
    photographs = Path(__file__).resolve().parents[1] / "examples" / "photographs"
    small = ["--config.images", "12", "--config.steps", "40", "--config.checkpoint-every", "2"]
    return found | {
        "align": ["align", str(photographs), "--category", "mug", "--output", "OUT"],
        "train_compact": ["train", "compact", "--output", "OUT/n.safetensors", "--work", "OUT/work", *small],
        "train_sfnet": ["train", "sfnet", "--dataset", str(folder / "data"), "--output", "OUT/n.safetensors", "--work", "OUT/work"],
    }


def interrupt(arguments: list[str], output: Path, seconds: float) -> str:
    """What went wrong when a command was interrupted after so many seconds; "" if nothing did, "ended" if it had ended before."""
    command = [sys.executable, "-c", STARTED + PROGRAM, *(part.replace("OUT", str(output)) for part in arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.read(1)
    time.sleep(seconds)
    if process.poll() is not None:
        return "ended"
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, error = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"it hangs after an interrupt at {seconds:.2f} s"
    text = error.decode(errors="replace")
    if process.returncode == 0 or process.returncode == -signal.SIGINT and "semalign3d_core" not in text:
        return "ended"  # or nothing of ours had begun
    if process.returncode != 130 or "Traceback" in text or text.count("interrupted") != 1:
        return f"exit code {process.returncode} after {seconds:.2f} s: {text[-1500:]}"
    end = time.monotonic() + ENDING
    while _alive(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    return f"processes are left after an interrupt at {seconds:.2f} s" if _alive(process.pid) else ""


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    """Prints what went wrong, by command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=20.0, help="seconds after which a command is interrupted at the latest")
    parser.add_argument("--commands", nargs="*")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells tell jobs in the background to ignore it, and they their children
    rng, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        known = commands(Path(name) / "inputs")
        chosen = options.commands or list(known)
        for command in chosen:
            times = max(options.times // len(chosen), 1)
            found = [interrupt(known[command], Path(name) / command, options.longest * rng.random() ** 2) for _ in range(times)]
            problems = [text for text in found if text not in ("", "ended")]
            print(f"{command:14s} {times - found.count('ended'):4d} interrupts, {len(problems)} problems", flush=True)
            print("".join(f"  {text}\n" for text in problems[:5]), end="", flush=True)
            failed += len(problems)
            if command in ("import", "synth", "build", "evaluate") and run(known[command], Path(name) / command):
                print(f"{command}: the same command does not go on")
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
