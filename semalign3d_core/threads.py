"""How many CPU threads small computations get."""

import contextlib


@contextlib.contextmanager
def one_thread():
    """PyTorch computes with one thread inside; a context manager and a decorator.

    Alignment and shape building are thousands of operations on small tensors: a second thread gains nothing, and on a machine whose
    cores are busy every operation waits for a core (measured: up to 50 times slower). Work on many images belongs in many processes.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
