"""Chair and television or monitor. Each builder maps the shape numbers ``p`` to all parts (also absent ones) and all keypoints."""

from types import SimpleNamespace

import numpy as np

from semalign3d_core.datasets.synthetic.primitives import Built, Part, both_sides, box, hexahedron, revolve, tube

CHAIR_RANGES = {
    "width": (0.38, 0.62),
    "depth": (0.36, 0.56),
    "seat_height": (0.36, 0.54),
    "seat_thickness": (0.03, 0.11),
    "seat_taper": (0.80, 1.0),  # width at the back, of the width in front
    "back_height": (0.28, 0.78),
    "back_tilt": (0.0, 0.35),  # radians
    "back_width": (0.75, 1.08),  # at the top, of the width at the seat
    "back_thickness": (0.025, 0.06),
    "leg_radius": (0.014, 0.034),
    "leg_inset": (0.0, 0.12),  # of the width
    "splay": (0.0, 0.10),
    "arm_height": (0.16, 0.27),
    "arm_length": (0.6, 0.98),  # of the depth
    "arm_width": (0.03, 0.08),
}
CHAIR_FLAGS = {"arms": 0.45, "pedestal": 0.15, "slats": 0.4, "crossbar": 0.4, "middle_slat": 0.6}
CHAIR_EXTRAS = {"ladder": False, "spindles": False, "stretchers": False, "side_panels": False}
CHAIR_NAMES = (
    "back_top_left", "back_top_right", "seat_back_left", "seat_back_right", "seat_front_left", "seat_front_right",
    "leg_front_left", "leg_front_right", "leg_back_left", "leg_back_right", "arm_front_left", "arm_front_right",
)  # fmt: skip


def build_chair(p: SimpleNamespace) -> Built:
    """A chair that faces +z; left is the sitter's left, +x."""
    front, back, h = 0.5 * p.width, 0.5 * p.width * p.seat_taper, p.seat_height
    zf, zb, low = 0.5 * p.depth, -0.5 * p.depth, p.seat_height - p.seat_thickness
    outline = np.array([(-front, 0, zf), (front, 0, zf), (back, 0, zb), (-back, 0, zb)])
    parts = [hexahedron("seat", "seat", outline + (0, low, 0), outline + (0, h, 0))]
    rise, lean, thick = p.back_height * np.cos(p.back_tilt), p.back_height * np.sin(p.back_tilt), p.back_thickness

    def back_point(side: float, share: float) -> np.ndarray:
        """Front side of the back rest at ``side`` (-1..1) and a share of its height."""
        return np.array([side * back * (1 + share * (p.back_width - 1)), h + share * rise, zb - share * lean])

    def panel(name: str, group: str, bounds: tuple[float, float, float, float], depth: float) -> Part:
        left, right, low_share, high_share = bounds
        levels = [[back_point(left, s), back_point(right, s), back_point(right, s), back_point(left, s)] for s in (low_share, high_share)]
        return hexahedron(name, group, *(np.array(level) - [(0, 0, 0), (0, 0, 0), (0, 0, depth), (0, 0, depth)] for level in levels))

    parts += [panel("back_panel", "back", (-1, 1, 0, 1), thick), panel("back_rail", "back", (-1, 1, 0.82, 1), thick)]
    parts += both_sides(panel("back_post_left", "frame", (0.84, 1, 0, 1), thick))
    parts += both_sides(panel("slat_outer_left", "frame", (0.38, 0.52, 0, 0.82), 0.6 * thick))
    parts.append(panel("slat_middle", "frame", (-0.07, 0.07, 0, 0.82), 0.6 * thick))
    if p.ladder:
        parts += [panel(f"rung_{n}", "frame", (-0.9, 0.9, low, low + 0.11), 0.6 * thick) for n, low in enumerate((0.18, 0.38, 0.60))]
    if p.spindles:
        middle, shift = 0.3 * thick, np.array([0, 0, 0.5 * thick])
        for n, side in enumerate((0.14, 0.42, 0.70)):
            rod = [back_point(side, share) - shift for share in (0, 0.45, 0.9)]
            parts += both_sides(tube(f"spindle_{n}_left", "frame", rod, min(middle, 0.012)))
    inset = p.leg_inset * p.width + p.leg_radius
    parts += _legs(p, {"front": (front - inset, zf - inset), "back": (back - inset, zb + inset)}, low)
    arm = h + p.arm_height
    outer, arm_end = back + 0.5 * p.arm_width, zb + p.arm_length * p.depth
    parts += both_sides(box("arm_left", "arm", (back - 0.5 * p.arm_width, arm - 0.03, zb - 0.5 * thick), (outer, arm, arm_end)))
    post = [(back, arm - 0.02, arm_end - 0.05), (back, h - 0.5 * p.seat_thickness, arm_end - 0.05)]
    parts += both_sides(tube("arm_post_left", "frame", post, 0.015))
    if p.side_panels:
        wall = box("side_panel_left", "back", (back - 0.4 * p.arm_width, low, zb), (back + 0.4 * p.arm_width, arm - 0.02, arm_end - 0.01))
        parts += both_sides(wall)
    half = {
        "back_top": back_point(1, 1) - (0, 0, 0.5 * thick),
        "seat_back": (back, h, zb),
        "seat_front": (front, h, zf),
        "arm_front": (back, arm, arm_end),
    }
    half |= {"leg_front": (front - inset + p.splay, 0, zf - inset + p.splay), "leg_back": (back - inset + p.splay, 0, zb + inset - p.splay)}
    keypoints = {f"{k}_{s}": np.asarray(v) * (x, 1, 1) for k, v in half.items() for s, x in (("left", 1), ("right", -1))}
    absent = _absent_chair_parts(p)
    missing = [k for k in keypoints if (k.startswith("leg") and p.pedestal) or (k.startswith("arm") and not p.arms)]
    return parts, keypoints, absent, tuple(missing)


def _legs(p: SimpleNamespace, feet: dict[str, tuple[float, float]], top: float) -> list[Part]:
    parts = []
    for name, (x, z) in feet.items():
        sign = 1 if name == "front" else -1
        path = [(x, top + 0.01, z), (x + 0.5 * p.splay, 0.5 * top, z + 0.5 * sign * p.splay), (x + p.splay, 0, z + sign * p.splay)]
        parts += both_sides(tube(f"leg_{name}_left", "leg", path, np.array([[1.2], [1.0], [0.8]]) * p.leg_radius))
    (xf, zf), (xb, zb) = feet["front"], feet["back"]
    share = 0.5 * p.splay
    bar = [(xf + share, 0.5 * top, zf + share), (xb + share, 0.5 * top, zb - share)]
    parts += both_sides(tube("crossbar_left", "leg", bar, 0.6 * p.leg_radius, up=(0.0, 1.0, 0.0)))
    if p.stretchers:
        for name, x, z in (("front", xf, zf + share), ("back", xb, zb - share)):
            height = (0.45 if name == "front" else 0.6) * top
            rail = [(x + share, height, z), (0, height, z), (-x - share, height, z)]
            parts.append(tube(f"stretcher_{name}", "leg", rail, 0.6 * p.leg_radius))
    parts.append(revolve("column", "leg", [(0.03, 0.06), (0.03, top + 0.01)], around=16))
    for arm in range(5):
        angle = 2 * np.pi * arm / 5
        reach = 0.42 * p.width * np.array([np.sin(angle), 0, np.cos(angle)]) + (0, 0.02, 0)
        parts.append(tube(f"star_{arm}", "leg", [(0, 0.07, 0), reach], [[0.02, 0.025], [0.012, 0.015]], up=(0.0, 1.0, 0.0)))
    return parts


def _absent_chair_parts(p: SimpleNamespace) -> dict[str, bool]:
    absent = {f"leg_{end}_{side}": p.pedestal for end in ("front", "back") for side in ("left", "right")}
    absent |= {f"star_{arm}": not p.pedestal for arm in range(5)} | {"column": not p.pedestal}
    other_back = p.ladder or p.spindles
    absent |= {"back_panel": p.slats, "back_rail": not p.slats, "slat_middle": not (p.slats and p.middle_slat) or other_back}
    absent |= {"stretcher_front": p.pedestal, "stretcher_back": p.pedestal}
    for side in ("left", "right"):
        absent |= {f"arm_{side}": not p.arms, f"arm_post_{side}": not p.arms, f"crossbar_{side}": p.pedestal or not p.crossbar}
        absent |= {f"back_post_{side}": not p.slats, f"slat_outer_{side}": not p.slats or other_back}
    return absent


TV_RANGES = {
    "width": (0.45, 1.2),
    "aspect": (0.52, 0.80),
    "bezel": (0.015, 0.06),  # of the width
    "chin": (1.0, 3.2),  # lower bezel, of the bezel
    "panel": (0.03, 0.07),  # of the width
    "inset": (0.004, 0.02),
    "rear_depth": (0.03, 0.42),
    "rear_size": (0.45, 0.88),  # of the front
    "neck": (0.04, 0.18),  # of the width
    "neck_width": (0.05, 0.25),
    "base_width": (0.30, 0.75),
    "base_depth": (0.16, 0.34),
}
TV_FLAGS = {"stand": 0.86, "feet": 0.3, "buttons": 0.4}
TV_NAMES = tuple(
    f"{corner}_{side}"
    for corner in ("frame_top", "frame_bottom", "screen_top", "screen_bottom", "rear_top", "rear_bottom", "stand")
    for side in ("left", "right")
)


def build_tvmonitor(p: SimpleNamespace) -> Built:
    """A screen that faces +z; left is the viewer's left, -x (as one speaks of a picture)."""
    w, h = 0.5 * p.width, p.width * p.aspect
    bezel, chin, panel = p.bezel * p.width, p.bezel * p.chin * p.width, p.panel * p.width
    floor = -p.neck * p.width
    inset, inner = p.inset * p.width, w - bezel
    parts = [
        box("frame_top", "frame", (-w, h - bezel, -panel), (w, h, 0)),
        box("frame_bottom", "frame", (-w, 0, -panel), (w, chin, 0)),
        *both_sides(box("frame_side_left", "frame", (-w, chin, -panel), (-inner, h - bezel, 0))),
        box("screen", "screen", (-inner, chin, -panel), (inner, h - bezel, -inset)),
    ]
    rear_w, rear_low, rear_high = w * p.rear_size, 0.5 * h * (1 - p.rear_size), 0.5 * h * (1 + p.rear_size)
    zr = -panel - p.rear_depth * p.width
    front = [(-0.95 * w, 0.04 * h, -panel), (0.95 * w, 0.04 * h, -panel), (0.95 * w, 0.96 * h, -panel), (-0.95 * w, 0.96 * h, -panel)]
    rear = [(-rear_w, rear_low, zr), (rear_w, rear_low, zr), (rear_w, rear_high, zr), (-rear_w, rear_high, zr)]
    parts.append(hexahedron("housing", "housing", front, rear))
    vent_low, vent_high = rear_low + 0.6 * (rear_high - rear_low), rear_low + 0.85 * (rear_high - rear_low)
    parts.append(box("vent", "frame", (-0.7 * rear_w, vent_low, zr - 0.01 * p.width), (0.7 * rear_w, vent_high, zr)))
    button = 0.25 * chin
    for number in range(3):
        x = 3 * (number - 1) * button
        parts.append(box(f"button_{number}", "button", (x - button, 0.5 * chin - button, 0), (x + button, 0.5 * chin + button, 0.01)))
    parts += _tv_stand(p, floor, panel)
    base = 0.5 * p.base_width * p.width
    half = {
        "frame_top": (w, h, -0.5 * panel),
        "frame_bottom": (w, 0, -0.5 * panel),
        "screen_top": (inner, h - bezel, -inset),
        "screen_bottom": (inner, chin, -inset),
    }
    half |= {"rear_top": (rear_w, rear_high, zr), "rear_bottom": (rear_w, rear_low, zr), "stand": (base, floor, 0.0)}
    keypoints = {f"{k}_{s}": np.asarray(v) * (x, 1, 1) for k, v in half.items() for s, x in (("left", -1), ("right", 1))}
    plate, feet = p.stand and not p.feet, p.stand and p.feet
    absent = {"neck": not plate, "plate": not plate, "foot_left": not feet, "foot_right": not feet}
    absent |= {f"button_{number}": not p.buttons for number in range(3)}
    return parts, keypoints, absent, () if p.stand else ("stand_left", "stand_right")


def _tv_stand(p: SimpleNamespace, floor: float, panel: float) -> list[Part]:
    middle, depth = -0.5 * panel, 0.5 * p.base_depth * p.width
    base, neck = 0.5 * p.base_width * p.width, 0.5 * p.neck_width * p.width
    thick = 0.012 * p.width
    foot_top = [(-base + d, 0.01, z) for d, z in ((-thick, middle + 0.2 * depth), (thick, middle + 0.2 * depth))]
    foot_top += [(x, y, 2 * middle - z) for x, y, z in foot_top[::-1]]
    foot_low = [(-base + d, floor, z) for d, z in ((-thick, depth), (thick, depth))]
    foot_low += [(x, y, -z) for x, y, z in foot_low[::-1]]
    return [
        box("neck", "stand", (-neck, floor, middle - 0.4 * panel), (neck, 0.02 * p.width, middle + 0.4 * panel)),
        box("plate", "stand", (-base, floor, -depth), (base, floor + thick, depth)),
        *both_sides(hexahedron("foot_left", "stand", foot_low, foot_top)),
    ]
