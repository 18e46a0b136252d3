"""Engines: where a list of work items runs. Every engine gives the same results.

``run(function, items, workers, retries, device)`` yields ``(index, function(items[index]))`` as items finish, in any order. An item
whose process crashes, or that raises anything but a :class:`SemAlign3DError` (bad input does not get better), is tried
again ``retries`` times. ``function`` and items must be picklable; every process uses one CPU thread.
"""

import logging
import os
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from semalign3d_core.runtime import processes
from semalign3d_core.runtime.errors import MissingDependencyError, SemAlign3DError
from semalign3d_core.runtime.threads import one_thread

log = logging.getLogger(__name__)
AGAIN = "%s failed and is tried again"


def run_local(function, items, workers=1, retries=2, device="cpu"):
    """Runs the items in this process (one worker) or in processes of this machine; see the module's docstring."""
    if workers == 1:
        return _in_this_process(function, items, retries)
    return _in_processes(function, items, workers, retries)


def run_ray(function, items, workers=1, retries=2, device="cpu"):
    """Runs every item as a Ray task; see the module's docstring.

    Connects to the cluster that ``RAY_ADDRESS`` names, else starts one of ``workers`` CPUs on this machine. With a CUDA
    device every task gets a GPU of its own. The data set and the cache must be reachable from all machines.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("--engine ray needs Ray: pip install 'semalign3d[ray]', or use --engine local") from error
    started = not ray.is_initialized()
    if started:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, configure_logging=False, **local)
    try:
        yield from _ray_tasks(ray, function, items, workers, retries, device)
    finally:
        if started:
            ray.shutdown()


ENGINES = {"local": run_local, "ray": run_ray}


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


def _in_processes(function, items, workers, retries):
    waiting, attempts = list(range(len(items)))[::-1], [0] * len(items)
    while waiting:
        executor = processes.executor(workers)
        try:
            yield from _drain(executor, function, items, waiting, attempts, workers, retries)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _drain(executor, function, items, waiting, attempts, workers, retries):
    """Works ``waiting`` off until it is empty or a process died; items of a dead pool are put back."""
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
            return


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
    shared, waiting = ray.put(function), list(range(len(items)))[::-1]
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


def _outcome(function, item):
    """(error, None) for bad input, which Ray must not try again, else (None, result)."""
    try:
        return None, _guarded(function, item)
    except SemAlign3DError as error:
        return error, None
