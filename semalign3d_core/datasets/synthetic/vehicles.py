"""Car and aeroplane. Each builder maps the shape numbers ``p`` to all parts (also absent ones) and all keypoints."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.primitives import Built, Part, both_sides, box, hexahedron, loft, revolve, tube
from semalign3d_core.datasets.synthetic.round_car import Cabin, body, lamp, open_top

CAR_RANGES = {
    "length": (3.5, 5.0),
    "width": (0.36, 0.46),  # this and the following: share of the length unless noted
    "belt": (0.18, 0.23),  # height of the lower edge of the windows
    "roof": (0.09, 0.19),  # height of the cabin above it
    "clearance": (0.035, 0.07),
    "hood": (0.14, 0.30),
    "trunk": (0.02, 0.36),
    "front_rake": (0.05, 0.16),
    "rear_rake": (0.01, 0.14),
    "cabin_taper": (0.72, 0.92),
    "hood_drop": (0.0, 0.06),
    "wheel": (0.062, 0.088),
    "wheel_front": (0.15, 0.20),
    "wheel_rear": (0.15, 0.21),
    "nose_taper": (0.82, 0.98),
}
CAR_FLAGS = {"mirrors": 0.8, "spoiler": 0.25, "roof_rack": 0.25, "bumpers": 0.6}
CAR_EXTRAS = {"pillars": False, "arches": False, "rounded": False, "open_top": False}
CAR_NAMES = tuple(
    f"{label}_{side}"
    for label in ("headlight", "taillight", "wheel_front", "wheel_rear", "roof_front", "roof_rear", "mirror")
    for side in ("left", "right")
)


def build_car(p: SimpleNamespace) -> Built:
    """A car that drives towards +z; left is the driver's left, +x."""
    length, w = p.length, 0.5 * p.width * p.length
    unit = {key: getattr(p, key) * length for key in CAR_RANGES if key not in ("length", "cabin_taper", "nose_taper")}
    belt, low, front, rear = unit["belt"], unit["clearance"], 0.5 * length, -0.5 * length
    hood_end, trunk_end = front - unit["hood"], rear + unit["trunk"]
    stations = np.array([front, front - 0.03 * length, hood_end, 0, trunk_end, rear + 0.02 * length, rear])
    tops = np.array([belt - unit["hood_drop"] - 0.03 * length, belt - unit["hood_drop"], belt, belt, belt, belt, belt - 0.02 * length])
    widths = np.array([0.9 * p.nose_taper, p.nose_taper, 1, 1, 1, 0.97, 0.94]) * w
    rings = [_body_ring(x, low, top, z) for x, top, z in zip(widths, tops, stations, strict=True)]
    roof, top_w = belt + unit["roof"], p.cabin_taper * w
    roof_front, roof_rear = hood_end - unit["front_rake"], min(trunk_end + unit["rear_rake"], hood_end - unit["front_rake"] - 0.14 * length)
    base = [
        (-0.94 * w, belt - 0.01, hood_end),
        (0.94 * w, belt - 0.01, hood_end),
        (0.94 * w, belt - 0.01, trunk_end),
        (-0.94 * w, belt - 0.01, trunk_end),
    ]
    cover = [(-top_w, roof, roof_front), (top_w, roof, roof_front), (top_w, roof, roof_rear), (-top_w, roof, roof_rear)]
    parts = [loft("body", "paint", rings, smooth=False), hexahedron("cabin", "paint", base, cover)]
    parts += _windows(np.array(base), np.array(cover)) + _car_details(p, w, belt, (front, rear), (roof, top_w, roof_front, roof_rear))
    if p.pillars:
        parts += _pillars(np.array(base), np.array(cover))
    radius, rim = unit["wheel"], w + 0.01 * length
    axles = {"front": front - unit["wheel_front"], "rear": rear + unit["wheel_rear"]}
    for end, z in axles.items():
        centre, thick = (0, radius, z), 0.05 * length
        tyre = [
            (0.55 * radius, rim - thick),
            (radius, rim - thick),
            (radius, rim - thick),
            (radius, rim),
            (radius, rim),
            (0.62 * radius, rim),
        ]
        hub = [(0.62 * radius, rim - 0.02), (0.60 * radius, rim + 0.005), (0.15 * radius, rim + 0.015)]
        parts += both_sides(revolve(f"tyre_{end}_left", "tyre", tyre, 20, "x", centre))
        if p.arches:
            arch = [(1.16 * radius, w - 0.02 * length), (1.16 * radius, w + 0.002 * length)]
            parts += both_sides(revolve(f"arch_{end}_left", "tyre", arch, 20, "x", centre))
        parts += both_sides(revolve(f"hub_{end}_left", "hub", hub, 20, "x", centre))
    half: dict[str, Any] = {f"wheel_{end}": (rim + 0.015, radius, z) for end, z in axles.items()}
    half |= {"roof_front": (top_w, roof, roof_front), "roof_rear": (top_w, roof, roof_rear)}
    half |= {
        "headlight": (0.70 * w, tops[0] - 0.03 * length, front + 0.012),
        "taillight": (0.80 * w, tops[-1] - 0.04 * length, rear - 0.012),
    }
    half |= {"mirror": (1.10 * w, belt + 0.02 * length, hood_end - 0.04 * length)}
    if p.rounded:
        cabin = Cabin(belt - 0.01, roof, (0.92 * w, hood_end, trunk_end), (top_w, roof_front, roof_rear))
        nose = np.array([0.70 * w, tops[0] - 0.02 * length, front - 0.022 * length])
        parts += [body(length, w, low, belt, tops[1], hood_end, trunk_end, p.nose_taper), cabin.shell(), cabin.windscreen(), *cabin.panes()]
        parts += both_sides(lamp("round_headlight_left", "light", nose, np.array([0.15 * w, 0.019 * length, 0.035 * length])))
        half |= {"roof_front": cabin.corner(1), "roof_rear": cabin.corner(-1), "headlight": nose + (0, 0, 0.03 * length)}
    if p.open_top:
        parts += open_top(belt, w, hood_end, trunk_end)
    keypoints: dict[str, Any] = {f"{k}_{s}": np.asarray(v) * (x, 1, 1) for k, v in half.items() for s, x in (("left", 1), ("right", -1))}
    absent = {"spoiler": not p.spoiler, "bumper_front": not p.bumpers, "bumper_rear": not p.bumpers}
    for side in ("left", "right"):
        absent |= {f"mirror_{side}": not p.mirrors, f"rack_{side}": not p.roof_rack or p.open_top}
    if p.rounded:
        absent |= dict.fromkeys(_ANGULAR, True)
    if p.open_top:
        absent |= dict.fromkeys([part.name for part in parts if part.name.startswith(_ROOF)], True)
    missing = [k for k in keypoints if (k.startswith("mirror") and not p.mirrors) or (k.startswith("roof_rear") and p.open_top)]
    return parts, keypoints, absent, tuple(missing)


_ANGULAR: tuple[str, ...] = (
    "body",
    "cabin",
    "windscreen",
    "rear_window",
    "window_left",
    "window_right",
    "headlight_left",
    "headlight_right",
)
_ANGULAR += ("pillar_front_left", "pillar_front_right", "pillar_rear_left", "pillar_rear_right", "bumper_front", "bumper_rear")
_ROOF = ("round_cabin", "round_rear_window", "round_window")


def _body_ring(w: float, low: float, top: float, z: float) -> list[tuple[float, float, float]]:
    shape = [(-0.86, 0), (0.86, 0), (0.97, 0.15), (1, 0.5), (0.97, 0.86), (0.86, 1), (-0.86, 1), (-0.97, 0.86), (-1, 0.5), (-0.97, 0.15)]
    return [(x * w, low + y * (top - low), z) for x, y in shape]


def _windows(base: Any, cover: Any) -> list[Part]:
    """Panes slightly outside of the cabin's faces."""

    def pane(name: str, corners: Any, out: Any) -> Part:
        low_a, low_b, up_a, up_b = (np.asarray(c) for c in corners)
        quad = [
            (1 - v) * ((1 - u) * low_a + u * low_b) + v * ((1 - u) * up_a + u * up_b)
            for u, v in ((0.07, 0.12), (0.93, 0.12), (0.93, 0.88), (0.07, 0.88))
        ]
        return hexahedron(name, "glass", quad, np.array(quad) + np.asarray(out) * 0.012)

    left = pane("window_left", (base[1], base[2], cover[1], cover[2]), (1, 0.3, 0))
    windscreen = pane("windscreen", (base[0], base[1], cover[0], cover[1]), (0, 0.5, 1))
    return [windscreen, pane("rear_window", (base[3], base[2], cover[3], cover[2]), (0, 0.5, -1)), *both_sides(left)]


def _pillars(base: Any, cover: Any) -> list[Part]:
    """Posts between the side windows, in the colour of the body."""
    parts = []
    for name, share in (("front", 0.36), ("rear", 0.72)):
        quad = [
            (1 - v) * ((1 - u) * base[1] + u * base[2]) + v * ((1 - u) * cover[1] + u * cover[2])
            for u, v in ((share - 0.025, 0.05), (share + 0.025, 0.05), (share + 0.025, 0.95), (share - 0.025, 0.95))
        ]
        parts += both_sides(hexahedron(f"pillar_{name}_left", "paint", quad, np.array(quad) + (0.018, 0.005, 0)))
    return parts


def _car_details(
    p: SimpleNamespace, w: float, belt: float, ends: tuple[float, float], roof_frame: tuple[float, float, float, float]
) -> list[Part]:
    (front, rear), (roof, top_w, roof_front, roof_rear), u = ends, roof_frame, p.length
    nose_top = belt - p.hood_drop * u - 0.03 * u
    light, tail = nose_top - 0.03 * u, belt - 0.02 * u - 0.04 * u
    zm = front - p.hood * u - 0.04 * u
    rack = box("rack_left", "trim", (0.8 * top_w, roof, roof_rear), (0.88 * top_w, roof + 0.02 * u, roof_front))
    return [
        *both_sides(
            box("headlight_left", "light", (0.55 * w, light - 0.022 * u, front - 0.02), (0.84 * w, light + 0.02 * u, front + 0.012))
        ),
        *both_sides(box("taillight_left", "tail", (0.66 * w, tail - 0.03 * u, rear - 0.012), (0.92 * w, tail + 0.03 * u, rear + 0.02))),
        *both_sides(box("mirror_left", "trim", (0.92 * w, belt, zm - 0.015 * u), (1.10 * w, belt + 0.04 * u, zm + 0.015 * u))),
        *both_sides(rack),
        box("grille", "trim", (-0.42 * w, light - 0.03 * u, front - 0.02), (0.42 * w, light + 0.01 * u, front + 0.008)),
        box("plate", "light", (-0.25 * w, tail - 0.05 * u, rear - 0.01), (0.25 * w, tail - 0.01 * u, rear + 0.02)),
        box(
            "bumper_front",
            "trim",
            (-0.85 * w, p.clearance * u, front - 0.03 * u),
            (0.85 * w, p.clearance * u + 0.04 * u, front + 0.015 * u),
        ),
        box("bumper_rear", "trim", (-0.9 * w, p.clearance * u, rear - 0.015 * u), (0.9 * w, p.clearance * u + 0.045 * u, rear + 0.03 * u)),
        box("spoiler", "trim", (-0.8 * w, belt + 0.03 * u, rear), (0.8 * w, belt + 0.042 * u, rear + 0.05 * u)),
    ]


PLANE_RANGES = {
    "length": (8.0, 40.0),
    "radius": (0.040, 0.080),  # this and the following: share of the length unless noted
    "nose": (0.06, 0.18),
    "tail": (0.22, 0.42),
    "upsweep": (0.2, 0.8),  # of the radius
    "wing_place": (-0.02, 0.12),
    "wing_level": (-0.7, 0.75),  # of the radius
    "chord": (0.12, 0.24),
    "span": (0.32, 0.56),  # half of it
    "sweep": (0.0, 0.24),
    "taper": (0.25, 0.9),
    "dihedral": (-0.02, 0.08),
    "stabiliser": (0.12, 0.20),
    "fin": (0.10, 0.19),
    "fin_sweep": (0.03, 0.12),
    "engine_place": (0.26, 0.42),  # of the half span
    "engine_radius": (0.018, 0.032),
}
PLANE_FLAGS = {"engines": 0.6, "four_engines": 0.25, "t_tail": 0.25, "propeller": 0.3, "cockpit": 0.9, "wheels": 0.4}
PLANE_EXTRAS = {"gear_legs": False, "struts": False}
PLANE_NAMES = (
    "nose", "tail_end", "fin_top", "wing_tip_left", "wing_tip_right", "wing_root_front_left", "wing_root_front_right",
    "wing_root_rear_left", "wing_root_rear_right", "stabiliser_tip_left", "stabiliser_tip_right", "engine_left", "engine_right",
)  # fmt: skip


def build_aeroplane(p: SimpleNamespace) -> Built:
    """An aeroplane that flies towards +z; left is the pilot's left, +x."""
    u, r = p.length, p.radius * p.length
    front, rear, lift = 0.5 * u, -0.5 * u, p.upsweep * r
    parts = [_fuselage(p), *_cockpit(p)]
    level, root_front = p.wing_level * r, (p.wing_place + 0.5 * p.chord) * u
    root_x, tip_x = 0.75 * r, p.span * u
    sweep = p.sweep * u

    def wing_at(share: float) -> tuple[np.ndarray, np.ndarray]:
        """(leading edge, trailing edge) of the left wing at a share of the half span."""
        chord = p.chord * u * (1 + share * (p.taper - 1))
        edge = np.array([root_x + share * (tip_x - root_x), level + share * p.dihedral * u, root_front - share * sweep])
        return edge, edge - (0, 0, chord)

    parts += both_sides(_blade("wing_left", "wing", wing_at(0), wing_at(1), (0, 0.12 * p.chord * u, 0)))
    fin_front, fin_chord = rear + 0.20 * u, 0.16 * u
    fin_low = np.array([0, lift + 0.2 * r, fin_front])
    fin_high = np.array([0, lift + p.fin * u, fin_front - p.fin_sweep * u])
    parts.append(
        _blade("fin", "wing", (fin_low, fin_low - (0, 0, fin_chord)), (fin_high, fin_high - (0, 0, 0.5 * fin_chord)), (0.015 * u, 0, 0))
    )
    stab = fin_high - (0, 0.005 * u, 0.0) if p.t_tail else np.array([0.15 * r, lift + 0.1 * r, rear + 0.15 * u])
    stab_tip = stab + (p.stabiliser * u, 0.01 * u, -0.5 * sweep - 0.02 * u)
    parts += both_sides(
        _blade("stabiliser_left", "wing", (stab, stab - (0, 0, 0.10 * u)), (stab_tip, stab_tip - (0, 0, 0.06 * u)), (0, 0.012 * u, 0))
    )
    engine = wing_at(p.engine_place)[0]
    lead, trail = wing_at(0.5)
    strut: list[Any] = [(0.6 * r, -0.75 * r, root_front - 0.3 * p.chord * u), 0.6 * lead + 0.4 * trail]
    parts += both_sides(tube("strut_left", "wing", strut, (0.003 * u, 0.008 * u)))
    parts += _engines(p, engine, wing_at(min(p.engine_place + 0.27, 0.9))[0]) + _plane_details(p, front, r)
    half: dict[str, Any] = {
        "wing_tip": wing_at(1)[0],
        "wing_root_front": wing_at(0.06)[0],
        "wing_root_rear": wing_at(0.06)[1],
        "stabiliser_tip": stab_tip,
    }
    half["engine"] = engine + _ENGINE_SHIFT * p.engine_radius * u
    keypoints: dict[str, Any] = {f"{k}_{s}": np.asarray(v) * (x, 1, 1) for k, v in half.items() for s, x in (("left", 1), ("right", -1))}
    keypoints |= {"nose": (0, -0.1 * r, front), "tail_end": (0, lift, rear), "fin_top": fin_high}
    absent = {
        "propeller": not p.propeller,
        "spinner": not p.propeller,
        "wheel_nose": not p.wheels,
        "leg_nose": not p.wheels,
        "cockpit": not p.cockpit,
    }
    for side in ("left", "right"):
        absent |= {f"engine_{side}": not p.engines, f"outer_engine_{side}": not (p.engines and p.four_engines)}
        absent[f"strut_{side}"] = not p.struts
        absent |= {f"blade_{side}": not p.propeller, f"wheel_{side}": not p.wheels, f"gear_leg_{side}": not p.wheels}
    return parts, keypoints, absent, () if p.engines else ("engine_left", "engine_right")


_ENGINE_SHIFT = np.array([0.0, -1.3, 2.2])  # middle of the intake from the wing's leading edge, in engine radii


def _blade(name: str, group: str, root: Any, tip: Any, thickness: Any) -> Part:
    """A wing between two chords (leading, trailing edge); its section is a flat diamond of a given thickness at the root."""

    def ring(chord: Any, scale: float) -> list[np.ndarray]:
        (lead, trail), thick = chord, np.asarray(thickness) * scale
        at = [(1 - s) * lead + s * trail for s in (0.0, 0.25, 0.7, 1.0)]
        upper, lower = [at[1] + thick / 2, at[2] + thick / 3], [at[2] - thick / 3, at[1] - thick / 2]
        return [at[0], *upper, at[3], *lower]

    steps = np.linspace(0, 1, 5)
    return loft(name, group, [np.array(ring(root, 1)) * (1 - s) + np.array(ring(tip, 0.4)) * s for s in steps])


def _fuselage(p: SimpleNamespace) -> Part:
    u, r = p.length, p.radius * p.length
    angle = 2 * np.pi * np.arange(24) / 24
    rings = []
    for share in np.concatenate(
        [np.linspace(0, 1, 8) ** 2 * p.nose, np.linspace(p.nose + 0.05, 1 - p.tail, 4), np.linspace(1 - p.tail, 1, 8)[1:]]
    ):
        nose, tail = min(share / p.nose, 1.0), max(share - 1 + p.tail, 0.0) / p.tail
        radius = r * np.sqrt(1 - (1 - nose) ** 2) * (1 - 0.85 * tail**1.5) + 0.002 * u
        middle = p.upsweep * r * tail**1.5 - 0.1 * r * (1 - nose)
        rings.append(np.stack([radius * np.sin(angle), middle + radius * np.cos(angle), np.full(24, 0.5 * u - share * u)], -1))
    return loft("fuselage", "paint", rings)


def _cockpit(p: SimpleNamespace) -> list[Part]:
    u, r = p.length, p.radius * p.length
    z = 0.5 * u - 0.8 * p.nose * u
    low = [
        (-0.62 * r, 0.45 * r, z + 0.35 * p.nose * u),
        (0.62 * r, 0.45 * r, z + 0.35 * p.nose * u),
        (0.75 * r, 0.55 * r, z - 0.25 * p.nose * u),
    ]
    low.append((-0.75 * r, 0.55 * r, z - 0.25 * p.nose * u))
    high = [(x * 0.7, 1.04 * r, depth - 0.1 * p.nose * u) for x, _, depth in low]
    return [hexahedron("cockpit", "glass", low, high)]


def _engines(p: SimpleNamespace, inner: np.ndarray, outer: np.ndarray) -> list[Part]:
    radius = p.engine_radius * p.length
    parts = []
    for name, edge in (("engine_left", inner), ("outer_engine_left", outer)):
        x, y, z = edge + _ENGINE_SHIFT * radius * (1, 1, 0)
        profile = [
            (0.05 * radius, z + 2.0 * radius),
            (0.8 * radius, z + 1.9 * radius),
            (radius, z + 2.2 * radius),
            (1.05 * radius, z + radius),
        ]
        profile += [(0.9 * radius, z - radius), (0.5 * radius, z - 2.2 * radius)]
        parts += both_sides(revolve(name, "engine", profile, 16, "z", (x, y, 0)))
    return parts


def _plane_details(p: SimpleNamespace, front: float, r: float) -> list[Part]:
    u = p.length
    blade = np.array([(0.008 * u, -0.1 * r, front + 0.012 * u), (0.008 * u, -0.1 * r, front)])
    tip = np.array([(0.13 * u, -0.1 * r, front + 0.008 * u), (0.13 * u, -0.1 * r, front)])
    size = 2 * u if p.struts else u  # of the wheels: small aeroplanes have large ones
    wheel = [(0.010 * size, -0.004 * size), (0.018 * size, -0.004 * size), (0.018 * size, 0.004 * size), (0.010 * size, 0.004 * size)]
    depth = -1.45 * r
    legs = [
        tube("leg_nose", "trim", [(0, depth, 0.34 * u), (0, -0.6 * r, 0.34 * u)], 0.004 * u),
        *both_sides(
            tube(
                "gear_leg_left",
                "trim",
                [(0.9 * r, depth, p.wing_place * u - 0.08 * u), (0.7 * r, -0.4 * r, p.wing_place * u - 0.08 * u)],
                0.004 * u,
            )
        ),
    ]
    return [
        *(legs if p.gear_legs else []),
        revolve("propeller", "engine", [(0.012 * u, front - 0.01 * u), (0.010 * u, front + 0.02 * u)], 12, "z", (0, -0.1 * r, 0)),
        revolve("spinner", "engine", [(0.010 * u, front + 0.02 * u), (0.002 * u, front + 0.035 * u)], 12, "z", (0, -0.1 * r, 0)),
        *both_sides(_blade("blade_left", "trim", blade, tip, (0, 0.02 * u, 0))),
        revolve("wheel_nose", "trim", wheel, 12, "x", (0, depth, 0.5 * u - 0.16 * u)),
        *both_sides(revolve("wheel_left", "trim", wheel, 12, "x", (0.9 * r, depth, p.wing_place * u - 0.08 * u))),
    ]
