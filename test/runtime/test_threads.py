"""CPU threads: of PyTorch inside and outside, and work in several: order, exceptions, what is dropped."""

import threading
import time

import pytest
import torch

from semalign3d_core.runtime.threads import in_parallel, one_thread


def test_one_thread_inside_and_as_many_as_before_outside():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            one_thread()(lambda: 1 / 0)()
        assert torch.get_num_threads() == 2
        assert one_thread()(torch.get_num_threads)() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers):
    def late(item):  # the first are done last
        time.sleep(0.02 if item < 3 else 0)
        return item * item

    assert list(in_parallel(late, range(12), workers)) == [n * n for n in range(12)]


def test_several_are_worked_on_at_a_time():
    both = threading.Barrier(2, timeout=20)
    assert len(set(in_parallel(lambda _: (both.wait(), threading.get_ident())[1], range(2), 2))) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_an_exception_comes_in_its_place_and_the_rest_is_dropped(workers):
    begun = []

    def failing(item):
        begun.append(item)
        if item == 4:
            raise ValueError("the fifth")
        return item

    results = in_parallel(failing, range(1000), workers)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="the fifth"):
        next(results)
    assert len(begun) < 20


def test_who_stops_listening_stops_the_work():
    begun = []
    results = in_parallel(begun.append, range(1000), 2)
    next(results)
    results.close()
    time.sleep(0.05)  # for those under way
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count < 20


def test_closing_does_not_wait_for_the_items_under_way():
    """The garbage collector may close it in any thread, also in one that works on it or holds what an item waits for."""
    go_on = threading.Event()
    results = in_parallel(lambda item: item == 0 or go_on.wait(30), range(3), 2)
    next(results)
    started = time.monotonic()
    results.close()
    waited = time.monotonic() - started
    go_on.set()
    assert waited < 20


@pytest.mark.parametrize("workers", [1, 2])
def test_pytorch_has_one_thread_in_each_and_its_own_number_afterwards(workers):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert set(in_parallel(lambda _: torch.get_num_threads(), range(6), workers)) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
