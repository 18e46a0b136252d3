"""Results as tables on the terminal."""

from typing import Any

from semalign3d_core.results import LISTED


def keypoint_table(result: dict[str, Any]) -> str:
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


def match_table(matches: list[dict[str, Any]]) -> str:
    """The list of ``matches_to_list`` as text."""
    lines = [f"{'source px':>16s}   {'target px':>16s} {'visible':>8s} {'conf.':>6s} {'cycle px':>9s}"]
    for match in matches[:LISTED]:
        here, there = ("{:7.1f},{:7.1f}".format(*match[end]) for end in ("source", "target"))
        seen = {None: "-", True: "yes", False: "no"}[match["visible"]]
        lines.append(f"{here:>16s} > {there:>16s} {seen:>8s} {_confidence(match)} {match['cycle_pixels']:9.1f}")
    lines += [f"and {len(matches) - LISTED} more"] if len(matches) > LISTED else []
    return "\n".join(lines)


def _confidence(match):
    return f"{'-':>6s}" if match["confidence"] is None else f"{match['confidence']:6.2f}"
