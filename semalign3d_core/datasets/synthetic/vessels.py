"""Bottle and mug. Each builder maps the shape numbers ``p`` to all parts (also absent ones) and all keypoints."""

from types import SimpleNamespace

import numpy as np

from semalign3d_core.datasets.synthetic.primitives import Built, hoop, revolve, tube

BOTTLE_RANGES = {
    "height": (0.16, 0.36),
    "radius": (0.16, 0.30),  # this and the following radii: share of the height, then shares of the body's radius
    "neck_radius": (0.26, 0.62),
    "shoulder": (0.42, 0.74),  # heights as shares of the height
    "slope": (0.06, 0.22),
    "waist": (0.0, 0.16),
    "base": (0.84, 1.0),
    "cap_height": (0.05, 0.12),
    "cap_radius": (1.06, 1.35),
    "label_low": (0.12, 0.22),
    "label_high": (0.30, 0.40),
}
BOTTLE_FLAGS = {"cap": 0.6, "label": 0.6}
BOTTLE_EXTRAS = {"roundness": 0.0, "foil_low": 0.8, "foil": False, "lip": False}  # of the varied world: see `varieties`
BOTTLE_LABELS = ("top", "collar", "neck", "shoulder", "waist", "base")
BOTTLE_NAMES = tuple(f"{label}_{side}" for label in BOTTLE_LABELS for side in ("left", "right"))


def build_bottle(p: SimpleNamespace) -> Built:
    """A surface of revolution around y. Keypoints are silhouette points: left and right of the picture, x = -r and x = +r."""
    height, radius = p.height, p.radius * p.height
    neck, shoulder = p.neck_radius * radius, p.shoulder * height
    neck_low, collar = shoulder + p.slope * height, height * (1 - p.cap_height)
    base = p.base * radius
    step = np.linspace(0, 1, 9)
    waist = radius * (1 - p.waist * np.sin(np.pi * step) ** 2)
    bevel = 0.06 * radius
    lower = np.stack([waist, bevel + step * (shoulder - bevel)], -1)
    lower[0, 0] = 0.5 * (base + radius)
    soft, round_ = 0.5 * (1 + np.cos(np.pi * step)), np.sqrt(1 - step**2)
    curve = neck + (radius - neck) * (soft + p.roundness * (round_ - soft))
    upper = np.stack([curve, shoulder + step * (neck_low - shoulder)], -1)[1:]
    end = [(neck, neck_low), (neck, height - 0.002), (0.8 * neck, height - 0.002), (0.8 * neck, height - 0.03 * height)]
    profile = np.concatenate([[(base, 0)], lower, upper, end])
    parts = [revolve("body", "body", profile, around=40)]
    cap = p.cap_radius * neck
    cap_profile = [(cap, collar), (cap, height - 0.1 * cap), (cap, height - 0.1 * cap), (0.93 * cap, height)]
    parts.append(revolve("cap", "cap", cap_profile, around=40))
    low, high = p.label_low * height, p.label_high * height
    band = [(1.012 * np.interp(y, lower[:, 1], lower[:, 0]), y) for y in np.linspace(low, high, 5)]
    parts.append(hoop("label", "label", band, around=40))
    if p.foil:
        foil = np.linspace(max(p.foil_low * height, neck_low), height + 0.001, 5)
        parts.append(hoop("foil", "cap", np.stack([np.full(5, 1.04 * neck), foil], -1), around=40))
    if p.lip:
        ring = [(neck, 0.955), (1.12 * neck, 0.96), (1.14 * neck, 0.975), (1.12 * neck, 0.99), (neck, 0.995)]
        parts.append(hoop("lip", "cap" if p.foil else "body", np.array(ring) * (1, height), around=40))
    top = 0.93 * cap if p.cap else neck
    middle = 0.5 * shoulder
    radii = (top, cap, neck, radius, np.interp(middle, lower[:, 1], lower[:, 0]), base)
    heights = (height, collar, neck_low, shoulder, middle, 0)
    keypoints = {
        f"{k}_{s}": (x * r, y, 0.0) for k, r, y in zip(BOTTLE_LABELS, radii, heights, strict=True) for s, x in (("left", -1), ("right", 1))
    }
    absent = {"cap": not p.cap, "label": not p.label}
    return parts, keypoints, absent, () if p.cap else ("collar_left", "collar_right")


MUG_RANGES = {
    "height": (0.07, 0.14),
    "radius": (0.36, 0.62),  # of the height
    "taper": (0.72, 1.05),
    "wall": (0.05, 0.10),  # of the radius
    "belly": (-0.06, 0.12),
    "handle_centre": (0.44, 0.60),  # of the height
    "handle_half": (0.20, 0.36),
    "reach": (0.40, 0.85),  # of the radius
    "roundness": (0.45, 1.0),
    "thickness": (0.05, 0.09),  # of the height
    "flatness": (0.8, 2.0),
    "foot": (0.02, 0.06),
}
MUG_FLAGS = {"foot_ring": 0.5, "lip": 0.5}
MUG_EXTRAS = {"liquid": False}
MUG_NAMES = (
    "rim_handle", "rim_far", "rim_left", "rim_right", "base_handle", "base_far", "base_left", "base_right",
    "handle_top", "handle_outer", "handle_bottom",
)  # fmt: skip


def build_mug(p: SimpleNamespace) -> Built:
    """A cup with its handle towards +z, so that the mirror plane x = 0 halves the handle."""
    height, radius = p.height, p.radius * p.height
    base, foot = p.taper * radius, p.foot * p.height
    step = np.linspace(0, 1, 12)
    outer = base + (radius - base) * step + p.belly * radius * np.sin(np.pi * step)
    inner = outer - p.wall * radius
    side = np.stack([outer, foot + step * (height - foot)], -1)
    hollow = np.stack([inner, np.maximum(side[:, 1], 2 * foot)], -1)[::-1]
    profile = np.concatenate([[(0.3 * base, foot), side[0], side[0]], side[1:], side[-1:], hollow[:1], hollow])
    parts = [revolve("body", "body", profile, around=40)]
    ring = [(0.70 * base, foot + 1e-3), (0.78 * base, 0), (0.86 * base, 0), (0.9 * base, foot + 1e-3)]
    parts.append(hoop("foot_ring", "body", ring, around=40))
    lip = [
        (radius, height * 0.93),
        (radius * 1.04, height * 0.96),
        (radius * 1.04, height),
        (inner[-1], height),
        (inner[-1], 0.95 * height),
    ]
    parts.append(hoop("lip", "handle", lip, around=40))
    if p.liquid:
        level = 0.85 * height
        parts.append(revolve("liquid", "liquid", [(0.3 * base, level - 0.002), (np.interp(level, side[:, 1], inner), level)], around=40))
    low, high = (p.handle_centre - p.handle_half) * height, (p.handle_centre + p.handle_half) * height
    thickness = p.thickness * height

    def wall_at(y: float) -> float:
        return np.interp(y, side[:, 1], outer)

    turn = np.linspace(0, np.pi, 19)
    y = 0.5 * (low + high) + 0.5 * (high - low) * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** p.roundness
    z = np.interp(y, [low, high], [wall_at(low), wall_at(high)]) - 0.3 * thickness + p.reach * radius * np.sin(turn) ** p.roundness
    path = np.stack([np.zeros_like(y), y, z], -1)
    radii = np.tile([0.5 * thickness, 0.5 * thickness * p.flatness], (len(path), 1))
    parts.append(tube("handle", "handle", path, radii, around=12, up=(1.0, 0.0, 0.0)))
    outer_z = z[9] + 0.5 * thickness
    keypoints = {"handle_top": (0, high, wall_at(high) + 0.4 * thickness), "handle_outer": (0, y[9], outer_z)}
    keypoints["handle_bottom"] = (0, low, wall_at(low) + 0.4 * thickness)
    for level, r, h in (("rim", radius * (1.04 if p.lip else 1.0), height), ("base", base, foot)):
        keypoints |= {f"{level}_handle": (0, h, r), f"{level}_far": (0, h, -r), f"{level}_left": (r, h, 0), f"{level}_right": (-r, h, 0)}
    return parts, keypoints, {"foot_ring": not p.foot_ring, "lip": not p.lip}, ()
