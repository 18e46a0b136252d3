"""Work on several processes of this machine; the one place that starts them."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

from semalign3d_core.runtime import plugins
from semalign3d_core.runtime.errors import SemAlign3DError

_on_interrupt: Any = signal.SIG_IGN  # in a worker: what Ctrl-C did before it was told to leave it to its parent
Item = TypeVar("Item")
Result = TypeVar("Result")
PRELOADED = ["semalign3d_core.evaluation.run.worker", "semalign3d_core.datasets.synthetic.writer"]


def executor(workers: int) -> ProcessPoolExecutor:
    """A ``ProcessPoolExecutor`` whose workers have one CPU thread each and end with this process, however it ends.

    Workers are forked from a server that imported the package once and has touched neither threads nor a GPU: a process forked
    from one with threads can wait for ever for a lock that a thread held. A worker that dies breaks the pool, which is an error
    (``multiprocessing.Pool`` would wait for its result for ever).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # which the server would start, and thereby unblock the signal
    with _interrupts_held():  # while the server loads modules Ctrl-C is for this process alone; workers let it through when they begin
        forkserver.ensure_running()
    return ProcessPoolExecutor(workers, context, _start_worker, (plugins.loaded(),))


def in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yields ``function(item)`` of all items in their order, computed by ``workers`` processes; with one worker in this process.

    ``function``, items and results must be picklable. On an error or an interrupt items not yet begun are dropped.
    SemAlign3DError: a worker was killed.
    """
    if workers <= 1 or len(items) < 2:
        yield from map(function, items)
        return
    pool = executor(min(workers, len(items)))
    try:
        with _interrupts_held():  # a worker that is being started would miss its parent
            results = pool.map(functools.partial(interruptible, function), items)
        yield from results
    except BrokenProcessPool as error:
        raise SemAlign3DError(
            "a process that worked on this was killed (what is finished is kept); mostly memory ran out: use fewer workers. "
            "A script of your own must start this below: if __name__ == '__main__'"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C counts only after the block; a process that is started in it does not hear it until it wants to."""
    came: list[bool] = []
    alone = threading.current_thread() is not threading.main_thread()  # handlers belong to the main thread
    previous = None if alone else signal.signal(signal.SIGINT, lambda *_: came.append(True))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if not alone:
            signal.signal(signal.SIGINT, previous)
    if came:
        raise KeyboardInterrupt


def interruptible(function: Callable[[Item], Result], item: Item) -> Result:
    """``function(item)`` in a worker, which Ctrl-C interrupts there too: nobody waits for the end of a long item."""
    signal.signal(signal.SIGINT, _on_interrupt)
    try:
        return function(item)
    except KeyboardInterrupt:
        os._exit(130)  # the pool would hand this worker the next item
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start_worker(loaded: Any) -> None:
    import cv2
    import torch

    global _on_interrupt
    # Ctrl-C reaches all processes of a terminal; idle workers leave it to their parent.
    _on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for plugin in loaded:
        plugins.load(plugin)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
