"""The node ``align``: camera images in; named keypoints, correspondences to a demonstration image and pose out.

This file only wires: inputs receive and decode, the engine holds what is in force and asks the core, outputs publish.
Callbacks only store messages; one worker thread takes the newest frame.
"""

import threading
import time
import traceback
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_ros.conversions import BadMessage
from semalign3d_ros.diagnostics import Diagnostics
from semalign3d_ros.engine import Engine, InForce
from semalign3d_ros.inputs.decoder import FrameDecoder
from semalign3d_ros.inputs.depth import DepthReader, transform_of
from semalign3d_ros.inputs.receiver import Receiver
from semalign3d_ros.outputs.publisher import ResultPublisher
from semalign3d_ros.parameters import AlignParameters, LiveParameters, declare
from semalign3d_ros.process import answered, spin
from semalign3d_ros.srv import SetCategory


class AlignNode(Node):
    """See the module; all topics are relative, in the namespace ``semalign3d`` unless remapped."""

    exit_code = 0

    def __init__(self, **options: Any) -> None:
        super().__init__("align", namespace="semalign3d", **options)
        parameters = declare(self, AlignParameters)
        self._processed, self._latency = 0, float("nan")
        self._diagnostics = Diagnostics(self, self._values, self._conditions)
        self._engine = Engine(parameters, self._diagnostics.problem)
        self._receiver = Receiver(self, parameters)
        self._decoder = self._make_decoder(parameters)
        self._publisher = ResultPublisher(self, self._diagnostics.problem)
        self._live = LiveParameters(self, parameters, self._prepare, self._install)
        self.create_service(SetCategory, "~/set_category", answered(self._on_set_category))
        self.create_service(Trigger, "~/reset", answered(self._on_reset))
        self._worker = threading.Thread(target=self._work, name="align")
        self._worker.start()
        self.get_logger().info(f"looking for: {parameters.category} in {self._receiver.topics['image']}")

    def close(self) -> None:
        """Ends the worker after the frame it is at, and the node."""
        self._receiver.slot.close()
        self._worker.join()
        self.destroy_node()

    # What is in force

    def _make_decoder(self, parameters: AlignParameters) -> FrameDecoder:
        depth = DepthReader(parameters.depth_unit, transform_of(parameters.depth_extrinsics), parameters.depth_registered)
        return FrameDecoder(self._receiver.topics, depth, parameters.rectified, self._diagnostics.problem)

    def _prepare(self, parameters: AlignParameters) -> tuple[InForce, FrameDecoder]:
        return self._engine.prepare(parameters), self._make_decoder(parameters)

    def _install(self, prepared: tuple[InForce, FrameDecoder]) -> None:
        in_force, self._decoder = prepared
        self._receiver.slot.set_times(in_force.parameters.slop, in_force.parameters.patience)
        self._engine.install(in_force)

    # Callbacks of the executor's thread

    def _on_set_category(self, request, response):
        try:
            self._live.change(category=request.category, demonstration="")
        except SemAlign3DError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, f"looking for: {self._live.values.category}; without demonstration"
        return response

    def _on_reset(self, request, response):
        self._engine.reset()
        response.success, response.message = True, "the next image is searched anew"
        return response

    def _conditions(self):
        """Once per second: publishers that came or went, and partners that are of no use."""
        self._receiver.adapt()
        self._receiver.report_losses(self._diagnostics.problem)
        return self._receiver.conditions()

    def _values(self):
        return {
            "category": self._engine.in_force.pipeline.model.category,
            **self._receiver.values(),
            "images processed": self._processed,
            "latency of the last image in ms": round(1000 * self._latency, 1),
        }

    # Worker thread

    def _work(self):
        while (frame := self._receiver.slot.take()) is not None:
            try:
                self._process(frame)
            except BadMessage as error:
                self._diagnostics.problem(f"image: {error.kind}", f"{self._receiver.topics['image']}: {error}")
            except SemAlign3DError as error:
                self._diagnostics.problem("alignment: not possible", error)
            except Exception as error:
                if not self.context.ok():  # shut down while publishing
                    return
                self._diagnostics.problem(f"internal error: {type(error).__name__}", traceback.format_exc())

    def _process(self, frame):
        seen = self._decoder.decode(frame)
        for topic in frame.missing:
            self._diagnostics.problem(
                f"{topic}: none for the image",
                f"nothing on {self._receiver.topics[topic]} is within {self._live.values.slop} s of the image; going on without",
            )
        found = self._engine.process(seen)
        latency = time.monotonic() - frame.arrival
        if self._engine.publish(found, lambda: self._publisher.publish(found, seen, frame.image.header, latency)):
            self._processed, self._latency = self._processed + 1, latency


def main(arguments: list[str] | None = None) -> int:
    """Runs the node; see :func:`semalign3d_ros.process.run_node`."""
    return spin(arguments, AlignNode)
