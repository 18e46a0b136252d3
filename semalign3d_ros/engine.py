"""What is in force: pipeline, parameters and the alignment of the frame before, changed and used by different threads.

Every change makes a new :class:`InForce`; a frame is processed with one of them from beginning to end, and leaves its alignment as the
start of the next frame only if that one is still in force.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.visibility import depth_agreement
from semalign3d_core.pipeline import FrameResult, Pipeline, PipelineConfig, create_pipeline
from semalign3d_ros.inputs.decoder import Problem, SensorFrame
from semalign3d_ros.parameters import AlignParameters

PIPELINE_FIELDS = {item.name for item in fields(PipelineConfig)}
LEAST_AGREEMENT = 0.35  # share of the depth readings on the object that must lie where its surface is
LARGEST_CONTRADICTION = 1.3  # ratio between the sizes by depth and by a known diameter


@dataclass(frozen=True)
class InForce:
    """A pipeline and the parameters that it was made of."""

    parameters: AlignParameters
    pipeline: Pipeline


@dataclass(frozen=True)
class Found:
    """One object of a frame: what the pipeline says of it, ``by`` which."""

    by: InForce
    result: FrameResult


class Engine:
    """Processes frames with what is in force; ``problem(kind, text)`` is told what is doubtful."""

    def __init__(self, parameters: AlignParameters, problem: Problem) -> None:
        self._problem = problem
        self._lock = threading.Lock()
        self._previous: Alignment | None = None
        self.in_force = self.prepare(parameters)

    def prepare(self, parameters: AlignParameters) -> InForce:
        """What these parameters describe, everything read and checked; the pipeline in force is kept where nothing of it changes."""
        if parameters.threads > 0:
            torch.set_num_threads(parameters.threads)
        before = getattr(self, "in_force", None)
        if before is not None and _pipeline_part(parameters) == _pipeline_part(before.parameters):
            return replace(before, parameters=parameters)
        pipeline = create_pipeline(parameters)
        demonstration, shown = pipeline.demonstration, pipeline.demonstration_alignment
        if demonstration is not None and shown is not None and not shown.found:
            self._problem(
                "demonstration: object not found",
                f"no {pipeline.model.category} was recognised in {demonstration.image.name} (confidence {shown.confidence:.2f}); "
                "correspondences will not be reliable, choose a clearer picture",
            )
        return InForce(parameters, pipeline)

    def install(self, prepared: InForce) -> None:
        """Puts something in force from the next frame on; the frame in flight is no longer answered if another pipeline comes."""
        with self._lock:
            if prepared.pipeline is not self.in_force.pipeline:
                self._previous = None
            self.in_force = prepared

    def reset(self) -> None:
        """The next frame is searched anew."""
        with self._lock:
            self._previous = None
            self.in_force = replace(self.in_force)  # the frame in flight began under another one

    def process(self, frame: SensorFrame) -> list[Found]:
        """The objects of a frame, the best one first."""
        with self._lock:
            by, previous = self.in_force, self._previous
        mask = None if frame.labels is None else torch.from_numpy(frame.labels > 0)
        result = by.pipeline.process(frame.image, camera=frame.camera, depth=frame.depth, mask=mask, previous=previous)
        with self._lock:
            if by is self.in_force:
                self._previous = result.alignment if by.parameters.warm_start and result.alignment.found else None
        return [Found(by, self._checked(result, frame, by.pipeline.aligner.known_diameter))]

    def publish(self, found: list[Found], publish: Callable[[], None]) -> bool:
        """Calls ``publish()`` unless the pipeline that found these objects is no longer in force; nothing changes in between."""
        with self._lock:
            current = all(one.by.pipeline is self.in_force.pipeline for one in found)
            if current:
                publish()
            return current

    def _checked(self, result: FrameResult, frame: SensorFrame, diameter: float | None) -> FrameResult:
        """The result, up to scale where depth contradicts what else is known of the object."""
        alignment = result.alignment
        if frame.depth is None or not alignment.found or alignment.scale_kind != "metric":
            return result
        ratio, share = depth_agreement(alignment, frame.depth)
        if share < LEAST_AGREEMENT:
            kind, text = (
                "contradicts the image",
                f"{share:.0%} of the depth on the object lies on a surface like its own; is it registered?",
            )
        elif diameter is not None and not 1 / LARGEST_CONTRADICTION <= ratio <= LARGEST_CONTRADICTION:
            kind, text = (
                "contradicts the diameter",
                f"the object measures {ratio * diameter:.3f} m by depth and {diameter} m as a parameter",
            )
        else:
            return result
        self._problem(f"depth: {kind}", f"{text}; positions are not metric")
        return replace(result, alignment=replace(alignment, scale_kind="relative"))


def _pipeline_part(parameters: AlignParameters) -> dict[str, Any]:
    return {name: getattr(parameters, name) for name in PIPELINE_FIELDS}
