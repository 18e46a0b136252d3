"""Capturing the work on an image in a CUDA graph: one launch instead of a thousand, whose shapes and addresses stay the same."""

from dataclasses import dataclass

import torch

WARM_UP = 3  # calls before the capture, in which libraries set themselves up
MOST_GRAPHS = 16  # layouts that are remembered; the oldest is forgotten


@dataclass(frozen=True)
class Capture:
    """A captured call: the graph, the image and state whose tensors it reads, and what it writes."""

    graph: object
    image: object
    state: torch.Tensor | None
    outcome: dict


class GraphedCalls:
    """Calls ``function(image, state)``; if ``enabled``, through graphs, one for every layout and shape.

    function: maps an :class:`ImageTensors` and a state tensor or None to {name: tensor}, reads nothing back, and depends on the image's
    tensors and layout alone. Results of a graph are overwritten by its next call.
    """

    def __init__(self, function, enabled):
        self.function, self.enabled, self.captures = function, enabled, {}

    def __call__(self, image, state=None):
        if not self.enabled:
            return self.function(image, state)
        key = image.layout, *(tuple(value.shape) for value in image.tensors().values()), state is None
        if key not in self.captures:
            if len(self.captures) >= MOST_GRAPHS:
                self.captures.pop(next(iter(self.captures)))
            self.captures[key] = self._capture(image, state)
        capture = self.captures[key]
        for name, value in image.tensors().items():
            getattr(capture.image, name).copy_(value, non_blocking=True)
        if state is not None:
            capture.state.copy_(state, non_blocking=True)
        capture.graph.replay()
        return capture.outcome

    def _capture(self, image, state):
        image = image.with_tensors({name: value.clone() for name, value in image.tensors().items()})
        state = None if state is None else state.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.function(image, state)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outcome = self.function(image, state)
        return Capture(graph, image, state, outcome)
