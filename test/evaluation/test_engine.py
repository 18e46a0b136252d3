"""Engines: the same results from every engine, crashes are tried again, bad input is not."""

import contextlib
import functools
import importlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from semalign3d_core.evaluation.run import engine as engines
from semalign3d_core.evaluation.run.engine import LocalEngine, RayEngine
from semalign3d_core.runtime.errors import InputError, SemAlign3DError


def run_local(function, items, workers=1, retries=2):
    with LocalEngine(workers, retries) as engine:
        yield from engine.run(function, items)


def square(item):
    return item * item


def dies_once(folder, item):
    marker = folder / f"{item}"
    if item == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item + 1


def always_dies(item):
    os._exit(9)


def raises_until(folder, times, item):
    tries = len(list(folder.iterdir()))
    (folder / f"{tries}").touch()
    if tries < times:
        raise OSError("disk went away")
    return item


def bad_input(folder, item):
    (folder / f"{len(list(folder.iterdir()))}").touch()
    raise InputError("item is bad")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_once(workers):
    assert sorted(run_local(square, list(range(9)), workers)) == [(i, i * i) for i in range(9)]


def test_no_items():
    assert list(run_local(square, [], 2)) == []


def test_killed_process_is_replaced(tmp_path):
    assert sorted(run_local(functools.partial(dies_once, tmp_path), list(range(6)), 2)) == [(i, i + 1) for i in range(6)]


def descendants(pid):
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found[1:]


def wait_until(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc, which this system lacks")
def test_workers_do_not_outlive_a_killed_run(tmp_path):
    program = "import time; from semalign3d_core.evaluation.run.engine import LocalEngine; list(LocalEngine(2).run(time.sleep, [300] * 4))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    wait_until(lambda: len(descendants(parent.pid)) >= 4)  # the server of forks, its resource tracker, two workers
    workers = descendants(parent.pid)
    time.sleep(1)  # so that the workers are at work
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(running(pid) for pid in workers))


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_item_that_always_kills_is_given_up():
    with pytest.raises(SemAlign3DError, match="fewer workers"):
        list(run_local(always_dies, ["car/img1"], 2, retries=1))


@pytest.mark.parametrize("workers", [1, 2])
def test_crash_is_tried_again_and_finally_raised(tmp_path, workers, caplog):
    assert list(run_local(functools.partial(raises_until, tmp_path, 2), [7], workers)) == [(0, 7)]
    assert [(r.getMessage(), "disk went away" in str(r.exc_info[1])) for r in caplog.records] == 2 * [("7 failed and is tried again", True)]
    with pytest.raises(OSError, match="disk went away"):
        list(run_local(functools.partial(raises_until, tmp_path, 99), [7], workers))
    assert len(list(tmp_path.iterdir())) == 3 + 3


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_is_not_tried_again(tmp_path, workers):
    with pytest.raises(InputError, match="item is bad"):
        list(run_local(functools.partial(bad_input, tmp_path), [7], workers))
    assert len(list(tmp_path.iterdir())) == 1


def own_process(item):
    return os.getpid()


def test_processes_start_once_and_serve_every_list():
    with LocalEngine(2) as engine:
        first, second = ({pid for _, pid in engine.run(own_process, list(range(12)))} for _ in range(2))
        assert len(first | second) == 2 and os.getpid() not in first | second
        with pytest.raises(InputError):
            list(engine.run(fails, [1]))
        assert len({pid for _, pid in engine.run(own_process, [1, 2])}) <= 2


def fails(item):
    raise InputError("no")


NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'ray')")


def process_and_niceness(item):
    return os.getpid(), os.nice(0)


@NEEDS_RAY
@pytest.mark.slow
def test_ray_starts_its_processes_once_and_lets_them_work(monkeypatch):
    """With Ray's own niceness of 15 the first result took minutes on a busy machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(sys.modules[__name__])  # Ray's processes cannot import tests
    with RayEngine(2) as engine:
        first, second = ({found for _, found in engine.run(process_and_niceness, list(range(12)))} for _ in range(2))
        assert len(first | second) == 2 and os.getpid() not in {pid for pid, _ in first}
        assert {niceness for _, niceness in first} == {os.nice(0)}
        with pytest.raises(InputError, match="no"):
            list(engine.run(fails, [1]))


@NEEDS_RAY
def test_a_port_that_does_not_answer_is_no_cluster(monkeypatch):
    before = {thread.name for thread in threading.enumerate()}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(engines, "RAY_SECONDS", 2.0)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(InputError, match=r"no answer within 2 s.*--engine local"):
            RayEngine()
    assert not importlib.import_module("ray").is_initialized()
    assert not {thread.name for thread in threading.enumerate()} - before  # one that waits for Ray crashes the process at its end


@NEEDS_RAY
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_ray_cluster_that_is_not_there_is_said(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"no Ray cluster at RAY_ADDRESS={address} .*refused.*--engine local"):
        RayEngine()
