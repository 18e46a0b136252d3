"""Recordings for the viewer of rerun (https://rerun.io): images, clouds, keypoints and poses over time. Needs the extra ``rerun``."""

from pathlib import Path
from types import TracebackType

import numpy as np

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.perception.providers import require
from semalign3d_core.visualization.object_points import object_points
from semalign3d_core.visualization.overlay import keypoint_colours


class RerunLog:
    """A recording file (``.rrd``) that grows with every image; a context manager.

    path: the file;  open it with ``rerun FILE``. It is complete when the recording is closed.
    Raises :class:`MissingDependencyError` without the package rerun-sdk.

    Entities: ``camera`` with ``camera/image``, ``camera/image/keypoints``; ``object`` with its pose, ``cloud`` and ``keypoints``, all in
    the camera frame; ``confidence``.
    """

    def __init__(self, path: str | Path) -> None:
        self._rr = require("rerun", "rerun")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._rr.RecordingStream("semalign3d")
        self._stream.save(str(path))
        self._stream.log("/", self._rr.ViewCoordinates.RDF, static=True)

    def add(self, evidence: ImageEvidence, alignment: Alignment, seconds: float) -> None:
        """Appends an aligned image at a time in seconds."""
        rr, stream = self._rr, self._stream
        stream.set_time("time", duration=seconds)
        camera, image = alignment.camera, evidence.image
        stream.log("camera", rr.Pinhole(image_from_camera=camera.matrix_pixels().numpy(), resolution=[camera.width, camera.height]))
        if image is not None:
            stream.log("camera/image", rr.Image(image).compress(jpeg_quality=85))
        stream.log("confidence", rr.Scalars(float(alignment.confidence)))
        if not alignment.found:
            for entity in ("camera/image/keypoints", "cloud", "keypoints", "object"):
                stream.log(entity, rr.Clear(recursive=True))
            return
        points, pixels = object_points(alignment, image), alignment.keypoints_2d.cpu().numpy()
        known = np.isfinite(pixels).all(1)
        colours = np.array(keypoint_colours(len(pixels)), np.uint8)[known]
        stream.log("camera/image/keypoints", rr.Points2D(pixels[known], colors=colours, radii=4.0))
        stream.log("cloud", rr.Points3D(points.cloud, colors=points.cloud_colours, radii=0.006 * points.size))
        stream.log(
            "keypoints", rr.Points3D(points.keypoints, colors=points.keypoint_colours, labels=points.names, radii=0.02 * points.size)
        )
        pose = rr.Transform3D(translation=alignment.translation.cpu().numpy(), mat3x3=alignment.rotation.cpu().numpy())
        stream.log("object", pose, rr.TransformAxes3D(0.4 * points.size))

    def close(self) -> None:
        """Ends the recording."""
        self._stream.disconnect()

    def __enter__(self) -> "RerunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
