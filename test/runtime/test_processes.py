"""Work on several processes: results in order, a killed worker is an error and not a wait without end, Ctrl-C stops it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_core.runtime.processes import in_processes

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = """
import pathlib, signal, sys, time
from semalign3d_core.runtime.processes import in_processes

def work(seconds):
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(seconds)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started from may ignore it
    try:
        list(in_processes(work, [300] * 6, 2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def facts(item):
    return item * item, os.getpid(), torch.get_num_threads()


def dies(item):
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def refuses(item):
    raise InputError(f"{item} is bad")


def test_results_are_in_order_and_every_process_has_one_thread():
    found = list(in_processes(facts, list(range(12)), 3))
    assert [value for value, *_ in found] == [n * n for n in range(12)]
    assert os.getpid() not in {pid for _, pid, _ in found} and {threads for *_, threads in found} == {1}


def test_one_worker_is_this_process():
    assert {pid for _, pid, _ in in_processes(facts, [1, 2], 1)} == {os.getpid()}
    assert list(in_processes(facts, [], 4)) == []


def test_a_killed_worker_is_an_error():
    with pytest.raises(SemAlign3DError, match=r"killed.*fewer workers"):
        list(in_processes(dies, list(range(6)), 2))


def test_what_the_function_raises_is_raised():
    with pytest.raises(InputError, match="7 is bad"):
        list(in_processes(refuses, [7, 8], 2))


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are signalled, which this system lacks")
def test_an_interrupt_does_not_wait_for_the_items_under_way(tmp_path):
    program = tmp_path / "sleeper.py"
    program.write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = tmp_path / "started"
    process = subprocess.Popen([sys.executable, program, started], env=environment, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not started.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the work did not begin"
        time.sleep(0.05)
    time.sleep(1)  # so that both workers are at work
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130, message
