"""Requests besides the stream of images: other categories and demonstrations, one image on demand, pause and reset."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from semalign3d_core.category.storage import SUFFIX
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.pipeline import Demonstration
from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_core.runtime.files import inside, shown
from semalign3d_ros.action import AlignNow
from semalign3d_ros.conversions import compressed_to_rgb, image_to_rgb
from semalign3d_ros.inputs.synchroniser import Frame
from semalign3d_ros.outputs import messages
from semalign3d_ros.outputs.publisher import as_received
from semalign3d_ros.process import answered
from semalign3d_ros.srv import SetCategory, SetDemonstration

LOOK = 0.05  # seconds between looks at whether a request was cancelled


def is_name(category: str) -> bool:
    """Whether a category is named, so that its model is one of the folder of models or a shipped one; a path names any file."""
    return category.isprintable() and not {"/", "\\"} & set(category) and SUFFIX not in category


class Cancelled(Exception):
    """The client no longer wants the answer."""


class Requests:
    """The services and the action of the node; ``session`` is what they act on (:class:`semalign3d_ros.session.Session`)."""

    def __init__(self, node: Node, session: Any) -> None:
        self._node, self._session, self._active = node, session, False
        self._closing = threading.Event()
        values = session.live.values  # as the node was started: later values may be those of a request
        self._folders = [Path(values.models)] if values.models else []
        self._folders += [Path(values.demonstration).parent] if values.demonstration else []
        for kind, name, callback in (
            (SetCategory, "set_category", self._on_set_category),
            (SetDemonstration, "set_demonstration", self._on_set_demonstration),
            (Trigger, "reset", self._on_reset),
            (SetBool, "enable", self._on_enable),
        ):
            node.create_service(kind, f"~/{name}", answered(callback))
        self._server = ActionServer(
            node, AlignNow, "~/align_now", self._align_now, callback_group=ReentrantCallbackGroup(),
            goal_callback=self._on_goal, cancel_callback=lambda _: CancelResponse.ACCEPT,
        )  # fmt: skip

    def close(self) -> None:
        """Ends the action server, and a request that waits."""
        self._closing.set()
        self._server.destroy()

    def _on_set_category(self, request, response):
        self._check_category(request.category)
        return self._changed(response, "without demonstration", category=request.category, demonstration="")

    def _on_set_demonstration(self, request, response):
        if request.file:
            file = self._allowed_file(request.file)
            return self._changed(response, f"demonstration: {file}", demonstration=file)
        given = demonstration_of(request.image, request.compressed, request.labels, request.points)
        name = "" if given is None else self._session.engine.add_demonstration(given)
        return self._changed(response, f"demonstration: {name or 'none'}", demonstration=name)

    def _check_category(self, category: str) -> None:
        if not self._session.live.values.allow_model_paths and not is_name(category):
            text = "a category is named, not a file: put its model into the folder of the parameter models, or set allow_model_paths"
            raise InputError(f"{shown(category)!r}: {text}")

    def _allowed_file(self, name: str) -> str:
        """A file in the folder of the models or of the demonstration that the node was started with; any file if paths are allowed."""
        if self._session.live.values.allow_model_paths:
            return name
        for folder in self._folders:
            path = inside(folder.resolve(), name)
            if path is not None and path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return str(path)
        folders = " or ".join(map(str, self._folders)) or "a folder that the parameters models or demonstration name"
        raise InputError(f"{shown(name)!r} is no file in {folders}; put it there, send the image itself, or set allow_model_paths")

    def _changed(self, response, more, **values):
        try:
            self._session.live.change(**values)
        except SemAlign3DError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, f"looking for: {self._session.live.values.category}; {more}"
        return response

    def _on_reset(self, _, response):
        self._session.engine.reset()
        response.success, response.message = True, "the next image is searched anew"
        return response

    def _on_enable(self, request, response):
        self._session.enabled = request.data
        response.success, response.message = True, "images are processed" if request.data else "images are ignored"
        return response

    # The action; it runs in a thread of its own, for it waits for images

    def _on_goal(self, _):
        if self._active:
            self._node.get_logger().warning("a request of align_now is refused: one at a time, and the one before is not yet answered")
            return GoalResponse.REJECT
        self._active = True
        return GoalResponse.ACCEPT

    async def _align_now(self, handle: Any) -> Any:
        answer = Future(executor=self._node.executor)

        def work():
            try:
                answer.set_result(self._answered(handle))
            except Exception as error:  # the node has ended meanwhile
                answer.set_exception(error)

        threading.Thread(target=work, name="request").start()
        return await answer

    def _answered(self, handle: Any) -> Any:
        result = AlignNow.Result()
        try:
            self._answer(handle, result)
        except Cancelled:
            result.message = "cancelled"
            handle.canceled()
        except Exception as error:  # whatever a request makes fail must not end the node
            result.message = str(error) if isinstance(error, SemAlign3DError) else f"{type(error).__name__}: {error}"
            handle.abort()
        else:
            result.success = True
            handle.succeed()
        finally:
            self._active = False
        return result

    def _answer(self, handle, result):
        goal, engine = handle.request, self._session.engine

        def stage(text):
            if handle.is_cancel_requested:
                raise Cancelled
            handle.publish_feedback(AlignNow.Feedback(stage=text))

        stage("reading the request")
        if not goal.timeout >= 0:
            raise InputError(f"the timeout is {goal.timeout} s; give seconds, or 0 to wait for ever")
        self._check_category(goal.category)
        by = engine.apart(goal.category, demonstration_of(goal.demonstration, CompressedImage(), goal.labels, goal.points))
        begin = time.monotonic()
        frame = frame_of(goal)
        if frame is None:
            stage("waiting for the next image")
            frame = self._next_frame(handle, goal.timeout)
        stage("aligning")
        seen = self._session.see(frame)
        found = engine.process(seen, 0.0, by)
        header, latency = frame.image.header, time.monotonic() - begin
        best = as_received(found[0].result, seen)
        pipeline = found[0].pipeline
        if best.matches is not None and pipeline.demonstration is not None:
            result.correspondences = messages.correspondences_message(pipeline.demonstration, best, header, latency)
        objects = [
            messages.keypoints_message(as_received(one.result, seen).alignment, header, latency, one.number, one.uncertainty)
            for one in found
            if one.result.alignment.found
        ]
        result.found = messages.objects_message(objects, header)
        result.message = f"found {len(objects)}: {', '.join(f'{one.category} ({one.confidence:.2f})' for one in objects) or 'nothing'}"

    def _next_frame(self, handle, timeout):
        end = time.monotonic() + timeout if timeout > 0 else float("inf")
        number = self._session.frames_taken
        while self._session.frames_taken == number:
            if handle.is_cancel_requested:
                raise Cancelled
            if self._closing.wait(LOOK):
                raise InputError("the node was stopped before an image came")
            if time.monotonic() > end:
                raise InputError(f"no image came within {timeout:g} s; is the camera running, and is its topic remapped to image?")
        return self._session.last_frame


def frame_of(goal: Any) -> Frame | None:
    """The frame that a request holds; None if it holds no image."""
    image = goal.image if len(goal.image.data) else goal.compressed
    if not len(image.data):
        return None
    partners = {name: value for name, value in (("depth", goal.depth), ("mask", goal.mask)) if len(value.data)}
    if any(goal.camera_info.k):
        partners["camera_info"] = goal.camera_info
    return Frame(image, time.monotonic(), partners)


def demonstration_of(image: Image, compressed: CompressedImage, labels: list[str], points: list[Any]) -> Demonstration | None:
    """The demonstration that a request holds, None if it holds no image; raises :class:`InputError` for one that cannot be used."""
    if not len(image.data) and not len(compressed.data):
        if points or labels:
            raise InputError(f"there are {len(labels)} labels and {len(points)} points of a demonstration, but no image that they are in")
        return None
    rgb = image_to_rgb(image) if len(image.data) else compressed_to_rgb(compressed)
    if not points or len(labels) != len(points):
        raise InputError(f"the demonstration has {len(labels)} labels and {len(points)} points; give one label for every point")
    places = np.array([[point.x, point.y] for point in points], dtype=np.float32)
    if not ((places >= 0) & (places <= [rgb.shape[1] - 1, rgb.shape[0] - 1])).all():
        raise InputError(f"points of the demonstration lie outside of its {rgb.shape[1]} x {rgb.shape[0]} pixels")
    return Demonstration(ImageInput(rgb, "demonstration of a request"), tuple(labels), places)
