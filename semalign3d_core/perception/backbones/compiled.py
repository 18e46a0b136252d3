"""Networks on the CPU through OpenVINO, where it is installed: two to three times as fast as PyTorch (docs/measurements/frame.md)."""

import ctypes
import inspect
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semalign3d_core.perception.providers import require
from semalign3d_core.runtime.cache import Cache, user_cache
from semalign3d_core.runtime.errors import OutputError, choice
from semalign3d_core.runtime.files import sha256_of_arrays

RUNTIMES = {"auto": None, "pytorch": False, "openvino": True}


def compiled(network: nn.Module, example: Tensor, runtime: str) -> Callable[[Tensor], Tensor]:
    """A network as a function of one tensor, through the faster runtime at hand.

    network: in evaluation mode, of one tensor to one tensor; it must not change any more
    example: an input (B, ...) float32; later ones may differ in B
    runtime: ``openvino``; ``pytorch``, the reference; ``auto``: OpenVINO where it is installed and the network is on the CPU
    Returns a function that several threads may call. OpenVINO computes in bfloat16 where the processor has it, with as many threads
    as PyTorch has at the first call.
    """
    wanted = choice("runtime", runtime, RUNTIMES)
    if wanted is None:
        wanted = example.device.type == "cpu" and find_spec("openvino") is not None
    return OpenVINONetwork(network, example) if wanted else network


class OpenVINONetwork:
    """See :func:`compiled`. The network is converted at the first call, and kept for the next process in ``~/.cache/semalign3d``."""

    def __init__(self, network: nn.Module, example: Tensor):
        # Without this package, which its other half sees as missing, OpenVINO does not report to its makers that it was imported.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        self._openvino = require("openvino", "fast")
        self._network: Any = network
        self._example = example
        self._model: Any = None
        self._lock = threading.Lock()
        self._idle: list[Any] = []  # requests; each holds what the network has between input and output

    def __call__(self, values: Tensor) -> Tensor:
        """What the network gives for an input."""
        with self._lock:
            if self._model is None:
                self._model = self._compile()
                self._network = None  # its weights are not needed a second time
                _give_back()
            request = self._idle.pop() if self._idle else self._model.create_infer_request()
        try:
            return torch.from_numpy(request.infer({0: values.contiguous().numpy()}, share_inputs=True)[0])
        finally:
            self._idle.append(request)

    def rest(self) -> None:
        """Gives back the memory of intermediate results, which the next call takes again. Nobody may be calling meanwhile."""
        if self._model is not None:
            self._model.release_memory()
            _give_back()

    def _compile(self) -> Any:
        structure, tensors = self._kept()
        core, threads = self._openvino.Core(), torch.get_num_threads()
        model = core.read_model(structure["network"].encode(), self._openvino.Tensor(tensors["weights"].numpy()))
        # Threads are not bound to processors: several processes would be bound to the same ones.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        return core.compile_model(model, "CPU", settings)

    def _kept(self) -> tuple[Any, dict[str, Tensor]]:
        weights = {name: value.numpy() for name, value in self._network.state_dict().items()}
        source = inspect.getsource(sys.modules[type(self._network).__module__])
        depends_on = [sha256_of_arrays(weights), source, repr(self._network), list(self._example.shape)]
        depends_on += [self._openvino.__version__, torch.__version__]
        try:
            return Cache(user_cache()).fetch("networks", depends_on, self._convert)
        except OutputError:  # a home that cannot be written
            return self._convert()

    def _convert(self) -> tuple[Any, dict[str, Tensor]]:
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        frontend = FrontEndManager().load_by_framework("pytorch")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of sizes, which are those of the example
            decoder = TorchScriptPythonDecoder(self._network, example_input=(self._example,))
            model = frontend.convert(frontend.load(decoder))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.xml"
            self._openvino.serialize(model, path)
            weights = torch.from_numpy(np.fromfile(path.with_suffix(".bin"), dtype=np.uint8))
            return {"network": path.read_text()}, {"weights": weights}


def _give_back() -> None:
    """Memory that is free goes back to the system, where the C library is glibc: it would keep what compiling needed."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
