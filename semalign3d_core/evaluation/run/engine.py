"""Engines: where lists of work items run. Every engine gives the same results.

An engine lives as long as a run: its processes start once, and what they have loaded serves every list. ``engine.run(function, items)``
yields ``(index, function(items[index]))`` as items finish, in any order. An item whose process crashes, or that raises anything but a
:class:`SemAlign3DError` (bad input does not get better), is tried again ``retries`` times. ``function`` and items must be picklable;
every process uses one CPU thread.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol
from urllib.parse import urlsplit

from semalign3d_core.runtime import plugins, processes
from semalign3d_core.runtime.errors import InputError, MissingDependencyError, SemAlign3DError
from semalign3d_core.runtime.threads import one_thread

log = logging.getLogger(__name__)
AGAIN = "%s failed and is tried again"
RAY_SECONDS = 15.0  # to find a Ray cluster; then it counts as not there


class Engine(Protocol):
    """See the module's docstring; a context manager that ends its processes."""

    def run(self, function: Callable, items: Sequence) -> Iterator[tuple[int, Any]]:
        """Yields (index, result) of every item."""
        ...

    def close(self) -> None:
        """Ends what the engine started."""
        ...

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class LocalEngine(Engine):
    """Items in this process (one worker) or in processes of this machine."""

    def __init__(self, workers: int = 1, retries: int = 2, device: str = "cpu") -> None:
        self.workers, self.retries = workers, retries
        self._executor: ProcessPoolExecutor | None = None

    def run(self, function: Callable, items: Sequence) -> Iterator[tuple[int, Any]]:
        """See :class:`Engine`."""
        if self.workers == 1:
            yield from _in_this_process(function, items, self.retries)
            return
        waiting, attempts = list(range(len(items)))[::-1], [0] * len(items)
        while waiting:
            self._executor = self._executor or processes.executor(self.workers)
            broken = True
            try:
                broken = yield from _drain(self._executor, function, items, waiting, attempts, self.workers, self.retries)
            finally:
                if broken:
                    self.close()

    def close(self) -> None:
        """Ends the processes; items not yet begun are dropped."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None


class RayEngine(Engine):
    """Every item as a Ray task.

    Connects to the cluster that ``RAY_ADDRESS`` names, else starts one of ``workers`` CPUs on this machine. With a CUDA
    device every task gets a GPU of its own. The data set and the cache must be reachable from all machines.
    Raises :class:`InputError` if the cluster does not answer.
    """

    def __init__(self, workers: int = 1, retries: int = 2, device: str = "cpu") -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError("--engine ray needs Ray: pip install 'semalign3d[ray]', or use --engine local") from error
        self._ray, self.workers, self.retries, self.device = ray, workers, retries, device
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, workers)

    def run(self, function: Callable, items: Sequence) -> Iterator[tuple[int, Any]]:
        """See :class:`Engine`."""
        return _ray_tasks(self._ray, function, items, self.workers, self.retries, self.device)

    def close(self) -> None:
        """Leaves the cluster, or ends the one that was started here."""
        if self._started:
            self._ray.shutdown()


ENGINES: dict[str, Callable[[int, int, str], Engine]] = {"local": LocalEngine, "ray": RayEngine}


def _connect(ray: Any, workers: int) -> None:
    """Connects to Ray; raises :class:`InputError` within RAY_SECONDS if the cluster that ``RAY_ADDRESS`` names is not there."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        # Ray's own default lets its workers wait for every other process of a busy machine.
        settings = {"worker_niceness": 0}
        ray.init("local", log_to_driver=False, configure_logging=False, num_cpus=workers, include_dashboard=False, _system_config=settings)
        return
    problem = _unreachable(address) or _no_cluster()
    if problem:
        raise InputError(
            f"there is no Ray cluster at RAY_ADDRESS={address} ({problem}); start it, correct the address, or use --engine local"
        )
    ray.init(log_to_driver=False, configure_logging=False)


def _no_cluster() -> str:
    """Why Ray cannot connect to ``RAY_ADDRESS``, or "".

    Tried in a process of its own: a thread in which Ray waits cannot be ended, and makes this process crash when it ends.
    """
    attempt = "import ray; ray.init(log_to_driver=False, configure_logging=False)"
    try:
        tried = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, errors="replace", timeout=RAY_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {RAY_SECONDS:g} s"
    return "" if tried.returncode == 0 else (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]


def _unreachable(address: str) -> str:
    """Why nothing listens at host:port of an address, or ""; "" too for an address without a port."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.port is None:
            return ""
        socket.create_connection((parts.hostname or "", parts.port), RAY_SECONDS).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _in_this_process(function, items, retries):
    with one_thread():
        for index, item in enumerate(items):
            yield index, _with_retries(function, item, retries)


def _with_retries(function, item, retries):
    for attempt in range(retries + 1):
        try:
            return function(item)
        except SemAlign3DError:
            raise
        except Exception:
            if attempt == retries:
                raise
            log.warning(AGAIN, item, exc_info=True)


def _drain(executor, function, items, waiting, attempts, workers, retries):
    """Works ``waiting`` off until it is empty or a process died, which it returns; items of a dead pool are put back."""
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < 2 * workers:  # few at a time: an error stops the rest early
            index = waiting.pop()
            try:
                running[executor.submit(processes.interruptible, function, items[index])] = index
            except BrokenProcessPool:
                waiting.append(index)
                break
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        broken = not done
        for future in done:
            index = running.pop(future)
            try:
                result = future.result()
            except SemAlign3DError:
                raise
            except Exception as error:
                _count_attempt(attempts, index, retries, items, error)
                waiting.append(index)
                broken |= isinstance(error, BrokenProcessPool)
            else:
                yield index, result
        if broken:
            waiting.extend(running.values())
            return True
    return False


def _count_attempt(attempts, index, retries, items, error):
    attempts[index] += 1
    if attempts[index] <= retries:
        log.warning(AGAIN, items[index], exc_info=error)
        return
    if isinstance(error, BrokenProcessPool):
        raise SemAlign3DError(
            f"the process that worked on {items[index]} was killed {attempts[index]} times; mostly memory ran out: use fewer workers"
        ) from error
    raise error


def _guarded(function, item):
    with one_thread():
        return function(item)


def _ray_tasks(ray, function, items, workers, retries, device):
    gpus = 1 if device.startswith("cuda") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=retries, retry_exceptions=True)(_outcome)
    shared, waiting = ray.put((function, plugins.loaded())), list(range(len(items)))[::-1]
    running: dict[Any, int] = {}
    window = 2 * max(workers, int(ray.cluster_resources().get("CPU", 1)))
    while waiting or running:
        while waiting and len(running) < window:
            index = waiting.pop()
            running[task.remote(shared, items[index])] = index
        done, _ = ray.wait(list(running))
        for reference in done:
            error, result = ray.get(reference)
            if error is not None:
                raise error
            yield running.pop(reference), result


def _outcome(work, item):
    """(error, None) for bad input, which Ray must not try again, else (None, result). work: (function, plug-ins that it may need)."""
    function, needed = work
    try:
        for plugin in needed:
            plugins.load(plugin)
        return None, _guarded(function, item)
    except SemAlign3DError as error:
        return error, None
