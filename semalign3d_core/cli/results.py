"""Results as JSON and as tables."""

import math

from semalign3d_core.geometry.rotations import quaternion


def alignment_to_dict(alignment, image, seconds):
    """An :class:`Alignment` of ``image`` (:class:`ImageInput`) as plain numbers; unknown values are null."""
    camera = alignment.camera
    axis = alignment.undetermined_axis
    return {
        "image": image.name,
        "width": image.width,
        "height": image.height,
        "category": alignment.category,
        "model_hash": alignment.model_hash,
        "found": bool(alignment.found),
        "confidence": float(alignment.confidence),
        "scale_kind": alignment.scale_kind,
        "keypoints": [keypoint_to_dict(alignment, k) for k in range(len(alignment.keypoint_names))],
        "pose": {
            "rotation": numbers(alignment.rotation),
            "quaternion_xyzw": numbers(quaternion(alignment.rotation)),
            "translation": numbers(alignment.translation),
            "scale": float(alignment.scale),
            "undetermined_axis": None if axis is None else numbers(axis),
        },
        "camera_matrix": numbers(camera.matrix_pixels()),
        "camera_known": bool(camera.known),
        "energy": float(alignment.energy),
        "terms": {name: float(value) for name, value in alignment.terms.items()},
        "seconds": round(seconds, 4),
    }


def keypoint_to_dict(alignment, index):
    """One keypoint: name, index, pixel, position (camera frame), visible, confidence."""
    return {
        "name": alignment.keypoint_names[index],
        "index": index,
        "pixel": numbers(alignment.keypoints_2d[index]),
        "position": numbers(alignment.keypoints_3d[index]),
        "visible": bool(alignment.visible[index]),
        "confidence": float(alignment.keypoint_confidence[index]),
    }


def matches_to_list(points, matches, cycle):
    """Matches of ``points`` (Q, 2) with their cycle distance (Q,), as plain numbers; None for what the matcher does not know."""
    return [
        {
            "source": numbers(points[q]),
            "target": numbers(matches.points[q]),
            "position": None if matches.points_3d is None else numbers(matches.points_3d[q]),
            "visible": None if matches.visible is None else bool(matches.visible[q]),
            "confidence": float(matches.confidence[q]),
            "cycle_pixels": float(cycle[q]),
        }
        for q in range(len(points))
    ]


def numbers(values):
    """A tensor or array as nested lists of floats; None if anything in it is not finite."""
    nested = values.tolist()
    flat = [nested]
    while flat and isinstance(flat[0], list):
        flat = [item for sub in flat for item in sub]
    return nested if all(math.isfinite(value) for value in flat) else None


def keypoint_table(result):
    """The keypoints of ``alignment_to_dict`` as text."""
    unit = "m" if result["scale_kind"] == "metric" else "rel."
    lines = [f"{'keypoint':28s} {'x px':>8s} {'y px':>8s} {'visible':>8s} {'conf.':>6s}   X, Y, Z ({unit})"]
    for keypoint in result["keypoints"]:
        if keypoint["pixel"] is None:
            lines.append(f"{keypoint['name'][:28]:28s} never annotated")
            continue
        x, y = keypoint["pixel"]
        place = " ".join(f"{value:8.3f}" for value in keypoint["position"])
        seen = "yes" if keypoint["visible"] else "no"
        lines.append(f"{keypoint['name'][:28]:28s} {x:8.1f} {y:8.1f} {seen:>8s} {keypoint['confidence']:6.2f}   {place}")
    return "\n".join(lines)


def match_table(matches):
    """The list of ``matches_to_list`` as text."""
    lines = [f"{'source px':>16s}   {'target px':>16s} {'visible':>8s} {'conf.':>6s} {'cycle px':>9s}"]
    for match in matches:
        here, there = ("{:7.1f},{:7.1f}".format(*match[end]) for end in ("source", "target"))
        seen = {None: "-", True: "yes", False: "no"}[match["visible"]]
        lines.append(f"{here:>16s} > {there:>16s} {seen:>8s} {match['confidence']:6.2f} {match['cycle_pixels']:9.1f}")
    return "\n".join(lines)
