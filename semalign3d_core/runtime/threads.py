"""How many CPU threads computations get: one for each stream of small operations, and as many streams as there are processors."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_WORKERS = 8  # more wait for the interpreter, and each holds the images that it works on


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread inside; a context manager and a decorator.

    Alignment and shape building are thousands of operations on small tensors: a second thread gains nothing, and on a machine whose
    cores are busy every operation waits for a core (measured: up to 50 times slower). Independent work is given to
    :func:`in_parallel`, that on many images to many processes.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers() -> int:
    """How many threads work at a time: one for each processor, as far as that makes sense."""
    return min(processors(), MOST_WORKERS)


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Generator[Result, None, None]:
    """Yields ``function(item)`` of all items in their order, computed by ``workers`` threads (default: one for each processor, at most 8).

    PyTorch has one thread in each of them and lets go of the interpreter while it computes. ``function`` must be safe to call from
    several threads and must not depend on which items were done before, so that results do not depend on the number of workers.
    What it raises for an item is raised in that item's place; items not yet begun are then dropped, as on an interrupt. Whoever may
    stop before the end closes the generator (``contextlib.closing``), so that the number of threads is as before at once.
    """
    import torch

    workers = workers or usual_workers()
    with one_thread():
        if workers == 1:
            yield from map(function, items)
            return
        executor, wait = ThreadPoolExecutor(workers, "semalign3d", initializer=torch.set_num_threads, initargs=(1,)), True
        try:
            waiting: deque[Future] = deque()
            for item in items:
                waiting.append(executor.submit(function, item))
                if len(waiting) > workers:  # few ahead of the consumer, so that an error stops the rest early
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except GeneratorExit:
            wait = False  # maybe only the garbage collector closes this, in any thread, even in one of these: it must not wait for them
            raise
        finally:
            executor.shutdown(wait=wait, cancel_futures=True)
