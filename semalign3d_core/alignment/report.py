"""From the tensors of an outcome to the :class:`Alignment` that others read: the only place where the host waits for results."""

import torch

from semalign3d_core.alignment.confidence import MAPS, STATISTICS
from semalign3d_core.alignment.outcome import KEPT_ON_DEVICE, PACKED
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.geometry.rotations import similarity_alignment

TERMS = ("dense", "sparse", "geometry", "background", "depth")  # in the order of ``solvers.evaluate``


class Reporter:
    """Makes alignments of one category from outcomes; everything it holds and returns lives on the host."""

    def __init__(self, model, model_hash, category, axis, config, known_diameter, phases):
        self.model, self.model_hash, self.config, self.known_diameter = model, model_hash, config, known_diameter
        self.labels, self.shape = category.keypoints.cpu(), category.shape.cpu()
        self.axis = None if axis is None else axis.cpu()
        self.phases = phases  # of a warm and of a cold solution: ((first step, starts), ...)
        self.surface = model.to("cpu").surface.over(self.labels)  # of all points of the model, also stray ones

    def alignment(self, evidence, image, outcome, previous=None):
        """The :class:`Alignment` of an outcome (outcome.py); previous: the alignment that it started from, or None."""
        found = read_back(outcome)
        camera = evidence.camera if evidence.camera.known else evidence.camera.with_focal(found["focal"])
        belief = dict(zip(MAPS, found["belief"].tolist(), strict=True))
        factor = self._metres(found)
        points = found["keypoints"] * (factor or 1.0)
        scale, rotation, translation = similarity_alignment(self.shape, points)
        pixels = found["projected"] * camera.longer_side
        winner, confidence = int(found["winner"]), belief["found"]
        evidence_of_keypoints = 0.5 + 0.5 * found["keypoint_evidence"]  # from 0.5, for the others place an occluded keypoint too
        return Alignment(
            category=self.model.category, model_hash=self.model_hash, keypoint_names=self.model.keypoint_names,
            keypoints_3d=self._scattered(points), keypoints_2d=self._scattered(pixels),
            visible=self._scattered(found["visible"] & _in_picture(pixels, camera), False),
            keypoint_confidence=self._scattered(evidence_of_keypoints * belief["keypoints"] * belief["present"], 0.0),
            cloud_3d=self.surface @ points, rotation=rotation, translation=translation, scale=float(scale), camera=camera,
            scale_kind="relative" if factor is None else "metric", energy=float(found["energies"][winner]),
            terms=dict(zip(TERMS, found["terms"][:, winner].tolist(), strict=True)),
            confidence=confidence, found=confidence >= self.config.selection.found_threshold,
            undetermined_axis=self.axis,
            diagnostics=_diagnostics(found, image, belief, camera.longer_side, previous, self.phases[previous is None]),
        )  # fmt: skip

    def _metres(self, found):
        """Factor to metres from a known diameter or from metric depth; None if neither is at hand."""
        if self.known_diameter is not None:
            return self.known_diameter / float(found["diameter"])
        metric = float(found["metric"])
        return metric if metric == metric else None

    def _scattered(self, values, missing=float("nan")):
        """Values of present keypoints at their places among all keypoints of the model."""
        full = torch.full((len(self.model.present), *values.shape[1:]), missing, dtype=values.dtype)
        full[self.labels] = values
        return full


def read_back(outcome):
    """The outcome on the host, in one transfer, as ordinary tensors; what only the next frame asks for stays on its device."""
    kept = {name: outcome[name].clone() for name in KEPT_ON_DEVICE}
    read = {name: value for name, value in outcome.items() if name not in (*KEPT_ON_DEVICE, PACKED)}
    if PACKED not in outcome:
        return {name: value.clone() for name, value in read.items()} | kept
    parts = outcome[PACKED].cpu().split([value.numel() for value in read.values()])
    return {name: part.view(value.shape).to(value.dtype) for (name, value), part in zip(read.items(), parts, strict=True)} | kept


def _in_picture(pixels, camera):
    return (pixels > -0.5).all(-1) & (pixels[:, 0] < camera.width - 0.5) & (pixels[:, 1] < camera.height - 0.5)


def _diagnostics(found, image, belief, longer, previous, phases):
    statistics = dict(zip(STATISTICS, found["statistics"].tolist(), strict=True))
    result = {
        "statistics": statistics, "probabilities": belief, "margin": statistics["margin"], "scores": found["score"],
        "rotations": found["rotations"], "depth_order": found["depth_order"], "candidates_2d": found["candidates_2d"] * longer,
        "candidates_3d": found["candidates_3d"], "candidates_focal": found["candidates_focal"],
        "trace": found["trace"], "box": found["box"], "mask_box": image.box, "state": found["state"],
        "warm_frames": 0 if previous is None else previous.diagnostics["warm_frames"] + 1, "phases": phases,
    }  # fmt: skip
    if "starts_2d" in found:
        result["starts_2d"] = found["starts_2d"] * longer
    if "start_scores" in found:
        result["start_scores"] = found["start_scores"]
    return result
