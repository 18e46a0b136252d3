"""What the node consists of while it is configured: inputs, engine, outputs, requests, and the worker that carries frames through them."""

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header

from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_ros.clock import NodeClock
from semalign3d_ros.conversions import BadMessage, seconds
from semalign3d_ros.declared import LiveParameters, declare
from semalign3d_ros.diagnostics import Diagnostics
from semalign3d_ros.engine import Engine
from semalign3d_ros.inputs.decoder import FrameDecoder, SensorFrame
from semalign3d_ros.inputs.depth import DepthReader, transform_of
from semalign3d_ros.inputs.receiver import Receiver
from semalign3d_ros.inputs.synchroniser import Frame
from semalign3d_ros.inputs.transforms import NoTransform, TransformListener
from semalign3d_ros.memory import Found, InForce
from semalign3d_ros.outputs.frames import Place, read_grasps
from semalign3d_ros.outputs.publisher import ResultPublisher
from semalign3d_ros.parameters import AlignParameters
from semalign3d_ros.requests import Requests

ENTITIES = ("subscription", "publisher", "service", "timer", "guard_condition")


class Session:
    """Wires everything to a node; :meth:`close` takes it away again. ``enabled``: whether images are processed."""

    def __init__(self, node: Node, enabled: bool = True) -> None:
        self._node, self.enabled = node, enabled
        self._before = _entities(node)
        parameters = declare(node, AlignParameters)
        self._processed, self._latency, self._age, self._rate = 0, float("nan"), float("nan"), _Rate()
        self.frames_taken = 0
        self.last_frame: Frame | None = None  # for requests that wait for the next one
        self._last_seen: SensorFrame | None = None  # that was answered
        self.clock = NodeClock(node, self._restart)
        self.diagnostics = Diagnostics(node, self._values, self._conditions)
        self.engine = Engine(parameters, self.diagnostics.problem)
        self.receiver = Receiver(node, parameters, self.clock)
        self.transforms = TransformListener(node, self.diagnostics.problem)
        self.decoder = self._make_decoder(parameters)
        self.publisher = ResultPublisher(node, self.diagnostics.problem, read_grasps(parameters.grasps))
        self._recording = _recording(parameters.rerun)
        self.live = LiveParameters(node, parameters, self._prepare, self._install)
        self.requests = Requests(node, self)
        self._worker = threading.Thread(target=self._work, name="align")
        self._worker.start()
        node.get_logger().info(f"looking for: {parameters.category} in {self.receiver.topics['image']}")

    def close(self) -> None:
        """Ends the worker after the frame it is at, and takes all topics and services from the node."""
        self.receiver.slot.close()
        self._worker.join()
        if self._recording is not None:
            self._recording.close()
        self.clock.close()
        self.live.close()
        self.requests.close()
        for kind, entities in _entities(self._node).items():
            for entity in entities - self._before[kind]:
                getattr(self._node, f"destroy_{kind}")(entity)

    # What is in force

    def _make_decoder(self, parameters: AlignParameters) -> FrameDecoder:
        def lookup(target: str, source: str, time: float) -> np.ndarray:
            return self.transforms.lookup(target, source, time, parameters.patience)

        depth = DepthReader(parameters.depth_unit, transform_of(parameters.depth_extrinsics), parameters.depth_registered, lookup)
        return FrameDecoder(self.receiver.topics, depth, parameters.rectified, self.diagnostics.problem)

    def _prepare(self, parameters: AlignParameters) -> tuple[InForce, FrameDecoder]:
        return self.engine.prepare(parameters), self._make_decoder(parameters)

    def _install(self, prepared: tuple[InForce, FrameDecoder]) -> None:
        in_force, self.decoder = prepared
        self.receiver.slot.set_times(in_force.parameters.slop, in_force.parameters.patience)
        self.engine.install(in_force)

    def _restart(self) -> None:
        """The time has gone back: a recording begins again, or another clock counts."""
        self.receiver.slot.restart()
        self.transforms.forget()
        self.engine.reset()

    # Diagnostics, once per second

    def _conditions(self) -> dict[str, str]:
        self.receiver.adapt()
        self.receiver.report_losses(self.diagnostics.problem)
        return {**self.clock.condition(), **self.receiver.conditions()}

    def _values(self) -> dict[str, Any]:
        return {
            "category": ", ".join(pipeline.model.category for pipeline in self.engine.in_force.pipelines),
            "enabled": self.enabled,
            **self.receiver.values(),
            "clock": "simulated" if self.clock.simulated else "of the machine",
            "images processed": self._processed,
            "rate in Hz": self._rate.value(),
            "latency of the last image in ms": round(1000 * self._latency, 1),
            "latency since its stamp in ms": round(1000 * self._age, 1),
        }

    # Frames of TF

    def see(self, frame: Frame) -> SensorFrame:
        """What a frame of messages says; raises :class:`BadMessage` where its image cannot be used."""
        seen, name = self.decoder.decode(frame), self.live.values.up_frame
        turn = self._transform("up_frame", lambda camera: (camera, name), frame.image.header) if name else None
        return seen if turn is None else replace(seen, up=turn[:3, 2])

    def _place(self, found: list[Found], header: Header) -> Place | None:
        """Where results in metres are published; None where TF does not say it."""
        name = self.live.values.target_frame
        metric = any(one.result.alignment.found and one.result.alignment.scale_kind == "metric" for one in found)
        if not name or not metric or name == header.frame_id:
            return Place(header.frame_id)
        matrix = self._transform("target_frame", lambda camera: (name, camera), header)
        return None if matrix is None else Place(name, matrix)

    def _transform(self, parameter: str, frames: Callable[[str], tuple[str, str]], header: Header) -> np.ndarray | None:
        """(4, 4) from the second of ``frames(frame of the camera)`` to the first at an image's stamp, or None with a problem named."""
        try:
            return self.transforms.lookup(*frames(header.frame_id), seconds(header.stamp), self.live.values.patience)
        except NoTransform as error:
            self.diagnostics.problem(f"{parameter}: {error.kind}", error)
            return None

    # Worker thread

    def _work(self) -> None:
        while (frame := self.receiver.slot.take()) is not None:
            self.frames_taken, self.last_frame = self.frames_taken + 1, frame
            if not self.enabled:
                continue
            try:
                self._predict(frame)
                self._process(frame)
            except BadMessage as error:
                self.diagnostics.problem(f"image: {error.kind}", f"{self.receiver.topics['image']}: {error}")
            except SemAlign3DError as error:
                self.diagnostics.problem("alignment: not possible", error)
            except Exception as error:
                if not self._node.context.ok():  # shut down while publishing
                    return
                self.diagnostics.problem(f"internal error: {type(error).__name__}", traceback.format_exc())

    def _predict(self, frame: Frame) -> None:
        """Answers the images that came since the frame before and will not be looked at, as far as the motion of the objects tells them."""
        seen = self._last_seen
        if seen is None or not self.live.values.predict:
            return
        for header, arrival in frame.skipped:
            found = self.engine.predict(seconds(header.stamp))
            if found:
                self.engine.publish(found, partial(self.publisher.publish_predicted, found, seen, header, self.clock() - arrival))

    def _process(self, frame: Frame) -> None:
        seen = self.see(frame)
        for topic in frame.missing:
            self.diagnostics.problem(
                f"{topic}: none for the image",
                f"nothing on {self.receiver.topics[topic]} is within {self.live.values.slop} s of the image; going on without",
            )
        found = self.engine.process(seen, seconds(frame.image.header.stamp))
        header = frame.image.header
        place, latency = self._place(found, header), self.clock() - frame.arrival
        if self.engine.publish(found, lambda: self.publisher.publish(found, seen, header, latency, place)):
            self._processed, self._latency, self._last_seen = self._processed + 1, latency, seen
            self._age = self.clock.ros_time() - seconds(frame.image.header.stamp)
            self._rate.count()
            if self._recording is not None:
                self._recording.add(found[0].result.evidence, found[0].result.alignment, seconds(frame.image.header.stamp))


def _recording(path: str) -> Any:
    """A :class:`RerunLog` in a file, or None where no file is named."""
    from semalign3d_core.export.rerun import RerunLog

    return RerunLog(path) if path else None


class _Rate:
    """Events per second since the value was asked before."""

    def __init__(self) -> None:
        self._count, self._since = 0, time.monotonic()

    def count(self) -> None:
        self._count += 1

    def value(self) -> float:
        count, since, self._count, self._since = self._count, self._since, 0, time.monotonic()
        return round(count / max(self._since - since, 1e-3), 2)


def _entities(node: Node) -> dict[str, set[Any]]:
    lists = (node.subscriptions, node.publishers, node.services, node.timers, node.guards)
    return {kind: set(entities) for kind, entities in zip(ENTITIES, lists, strict=True)}
