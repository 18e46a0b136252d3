"""What is in force: pipelines, parameters and what was found in the frame before, changed and used by different threads.

Every change makes a new :class:`InForce`; a frame is processed with one of them from beginning to end, and leaves its alignments as the
start of the next frame only if that one is still in force.
"""

import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.alignment.motion import predicted
from semalign3d_core.alignment.visibility import depth_agreement
from semalign3d_core.objects.categories import create_pipelines
from semalign3d_core.objects.proposals import Proposal, proposals_of_labels, proposals_of_source
from semalign3d_core.pipeline import Demonstration, FrameResult, Pipeline, PipelineConfig
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import shown
from semalign3d_core.runtime.threads import processors
from semalign3d_ros.inputs.decoder import Problem, SensorFrame
from semalign3d_ros.memory import Found, InForce, Memory, keep_motion, previous_of, remember
from semalign3d_ros.parameters import AlignParameters

PIPELINE_FIELDS = {item.name for item in fields(PipelineConfig)}
LEAST_AGREEMENT = 0.35  # share of the depth readings on the object that must lie where its surface is
LARGEST_CONTRADICTION = 1.3  # ratio between the sizes by depth and by a known diameter


class Engine:
    """Processes frames with what is in force; ``problem(kind, text)`` is told what is doubtful."""

    def __init__(self, parameters: AlignParameters, problem: Problem) -> None:
        self._problem = problem
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # one frame at a time: requests take turns with the stream
        self._in_force: InForce | None = None
        self._shown: dict[str, Demonstration] = {}
        self._number = 1  # of the next demonstration that comes in a request
        self.install(self.prepare(parameters))

    @property
    def in_force(self) -> InForce:
        """What frames are processed with from now on."""
        assert self._in_force is not None
        return self._in_force

    def prepare(self, parameters: AlignParameters) -> InForce:
        """What these parameters describe, everything read and checked; what is in force is kept where nothing of it changes."""
        if parameters.threads > 0:
            torch.set_num_threads(min(parameters.threads, processors()))  # more would wait for one another
        if parameters.models and not Path(parameters.models).is_dir():
            raise InputError(f"parameter models: {shown(parameters.models)} is no folder")
        before = self._in_force
        if before is not None and _pipeline_part(parameters) == _pipeline_part(before.parameters):
            self._check_names(parameters, before.pipelines)
            return replace(before, parameters=parameters)
        given = self._shown.get(parameters.demonstration)
        first, *others = create_pipelines(parameters if given is None else replace(parameters, demonstration=""))
        if given is not None:
            first = first.with_demonstration(given)
        self._check_demonstration(first)
        self._check_names(parameters, (first, *others))
        return InForce(parameters, (first, *others))

    def _check_names(self, parameters: AlignParameters, pipelines: tuple[Pipeline, ...]) -> None:
        named = {key.strip() for key in parameters.tf_keypoints.split(",")} - {"", "all"}
        unknown = named.difference(*(pipeline.model.keypoint_names for pipeline in pipelines))
        if unknown:
            self._problem("tf_keypoints: unknown", shown(f"{parameters.category} has no keypoints {', '.join(sorted(unknown))}"))

    def add_demonstration(self, shown: Demonstration) -> str:
        """Keeps a demonstration that came in a request; returns the name that the parameter ``demonstration`` knows it by."""
        name = f"request {self._number}"
        current = self.in_force.parameters.demonstration
        self._shown = {kept: one for kept, one in self._shown.items() if kept == current} | {name: shown}  # others are gone
        self._number += 1
        return name

    def apart(self, category: str = "", shown: Demonstration | None = None) -> InForce:
        """What is in force, with another category or demonstration, for one request; the stream goes on without noticing."""
        parameters = self.in_force.parameters
        if category:
            demonstration = parameters.demonstration if category == parameters.category else ""
            parameters = replace(parameters, category=category, demonstration=demonstration)
        prepared = self.prepare(parameters)
        first, *others = prepared.pipelines
        if shown is not None:
            with self._turn:
                first = first.with_demonstration(shown)
        return InForce(parameters, (first, *others))

    def install(self, prepared: InForce) -> None:
        """Puts something in force from the next frame on; the frame in flight is no longer answered if other pipelines come."""
        with self._lock:
            self._in_force = prepared

    def reset(self) -> None:
        """The next frame is searched anew; the frame in flight leaves nothing behind."""
        with self._lock:
            self._in_force = replace(self.in_force, memory=Memory())

    def process(self, frame: SensorFrame, time: float = 0.0, by: InForce | None = None) -> list[Found]:
        """The objects of a frame, the best one first. At least one, which may be not found.

        time: of the frame, in seconds;  by: what to find them with, if not what is in force
        """
        by = by or self.in_force
        with self._turn:
            search, proposals = by.memory.may_search(time), self._proposals(by, frame)
            found = [self._best(by, proposal, frame, search) for proposal in proposals] or [self._nothing(by, frame)]
            if search and not any(one.result.alignment.found for one in found):
                for pipeline in by.pipelines:
                    if pipeline.mask_source is not None:
                        pipeline.mask_source.rest()
        found.sort(key=lambda one: -one.result.alignment.confidence)
        found = [one for one in found if one.result.alignment.found] or found[:1]
        with self._lock:
            numbers = remember(by, found, time)
            if search or by.memory.previous:
                by.memory.in_vain = None if by.memory.previous else time
            found = [replace(one, number=number) for one, number in zip(found, numbers, strict=True)]
            keep_motion(by.memory, found, time)
        return found

    def predict(self, time: float) -> list[Found]:
        """The objects of the frame before where they are expected at a later time, the best one first; those whose motion is known."""
        found = []
        with self._lock:
            for one, last, before in self.in_force.memory.moving:
                if before is not None and last > before[0]:
                    alignment = predicted(before[1], one.result.alignment, (time - last) / (last - before[0]))
                    if alignment is not None:
                        found.append(replace(one, result=replace(one.result, alignment=alignment, matches=None)))
        return found

    def publish(self, found: list[Found], publish: Callable[[], None]) -> bool:
        """Calls ``publish()`` unless the pipelines that found these objects are no longer in force; nothing changes in between."""
        with self._lock:
            current = all(one.by.pipelines is self.in_force.pipelines for one in found)
            if current:
                publish()
            return current

    def _proposals(self, by: InForce, frame: SensorFrame) -> list[Proposal]:
        known = {pipeline.model.category for pipeline in by.pipelines}
        if frame.labels is not None:
            return proposals_of_labels(frame.labels)
        if frame.boxes is not None:
            return [Proposal(box=box, category=name if name in known else "") for box, name in frame.boxes]
        if by.parameters.objects == "all":
            return proposals_of_source(frame.image, by.pipelines[0].mask_source)
        return [Proposal()]

    def _nothing(self, by: InForce, frame: SensorFrame) -> Found:
        """The answer where a mask or a detector says that nothing is there."""
        found = self._best(by, Proposal(), frame, search=False)
        alignment = replace(found.result.alignment, found=False, confidence=0.0)
        return replace(found, result=replace(found.result, alignment=alignment))

    def _best(self, by: InForce, proposal: Proposal, frame: SensorFrame, search: bool) -> Found:
        """What the category says that is most confident of an object; search: as of :meth:`Pipeline.process`."""
        previous, found = previous_of(by, proposal), []
        for pipeline in by.pipelines:
            if proposal.category in ("", pipeline.model.category):
                known = frame.image, frame.camera, frame.depth, proposal.mask, previous, proposal.box
                result = pipeline.process(*known, up=frame.up, search=search)
                found.append(Found(by, pipeline, self._checked(result, frame, pipeline.aligner.known_diameter)))
        return max(found, key=lambda one: one.result.alignment.confidence)

    def _checked(self, result: FrameResult, frame: SensorFrame, diameter: float | None) -> FrameResult:
        """The result, up to scale where depth contradicts what else is known of the object."""
        alignment = result.alignment
        if not alignment.found or alignment.scale_kind != "metric":
            return result
        if frame.depth is None:
            if frame.camera is None:
                text = "the size of the object is known, but distances follow from a guessed focal length; publish camera_info"
                self._problem("camera: not calibrated", text)
            return result
        ratio, share = depth_agreement(alignment, frame.depth)
        if share < LEAST_AGREEMENT:
            kind, text = "contradicts the image", f"{share:.0%} of the depth on the object lies where its surface is; is it registered?"
        elif diameter is not None and not 1 / LARGEST_CONTRADICTION <= ratio <= LARGEST_CONTRADICTION:
            kind, text = "contradicts the diameter", f"the object measures {ratio * diameter:.3f} m by depth, {diameter} m as a parameter"
        else:
            return result
        self._problem(f"depth: {kind}", f"{text}; positions are not metric")
        return replace(result, alignment=replace(alignment, scale_kind="relative"))

    def _check_demonstration(self, pipeline: Pipeline) -> None:
        demonstration, shown = pipeline.demonstration, pipeline.demonstration_alignment
        if demonstration is not None and shown is not None and not shown.found:
            self._problem(
                "demonstration: object not found",
                f"no {pipeline.model.category} was recognised in {demonstration.image.name} (confidence {shown.confidence:.2f}); "
                "correspondences will not be reliable, choose a clearer picture",
            )


def _pipeline_part(parameters: AlignParameters) -> dict[str, Any]:
    return {name: getattr(parameters, name) for name in PIPELINE_FIELDS}
