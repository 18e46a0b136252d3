"""Kinds of objects and views that the varied world draws from, category by category: data without code.

A kind narrows or moves the ranges of the shape numbers, sets the probabilities of optional features, and may use the further numbers
and features (``extras``) that the simple world leaves at their defaults.
"""

from collections.abc import Sequence

import numpy as np

# {category: {kind: (share, {shape number: range}, {optional feature: probability})}}; what is left out is as in the simple world.
KINDS = {
    "bottle": {
        "as in the simple world": (0.25, {}, {}),
        "wine": (
            0.40,
            {"height": (0.27, 0.34), "radius": (0.115, 0.15), "neck_radius": (0.32, 0.42), "shoulder": (0.50, 0.68), "slope": (0.06, 0.24),
             "waist": (0.0, 0.01), "base": (0.93, 1.0), "cap_height": (0.02, 0.05), "cap_radius": (1.03, 1.12), "label_low": (0.08, 0.2),
             "label_high": (0.40, 0.55), "roundness": (0.0, 1.0), "foil_low": (0.74, 0.86)},
            {"cap": 0.1, "label": 0.8, "foil": 0.65, "lip": 0.7},
        ),
        "beer": (
            0.13,
            {"height": (0.2, 0.28), "radius": (0.125, 0.17), "neck_radius": (0.34, 0.46), "shoulder": (0.44, 0.60), "slope": (0.10, 0.24),
             "waist": (0.0, 0.02), "cap_height": (0.025, 0.045), "cap_radius": (1.05, 1.25), "label_high": (0.34, 0.44),
             "roundness": (0.0, 0.5), "foil_low": (0.72, 0.85)},
            {"cap": 0.7, "label": 0.8, "foil": 0.25, "lip": 0.8},
        ),
        "water": (
            0.12,
            {"height": (0.2, 0.33), "radius": (0.13, 0.2), "neck_radius": (0.34, 0.55), "shoulder": (0.58, 0.72), "slope": (0.08, 0.14),
             "waist": (0.0, 0.14), "cap_height": (0.05, 0.10), "cap_radius": (1.05, 1.3), "label_low": (0.25, 0.4),
             "label_high": (0.5, 0.58), "roundness": (0.0, 1.0)},
            {"cap": 0.85, "label": 0.8, "lip": 0.3},
        ),
        "medicine": (
            0.10,
            {"height": (0.08, 0.2), "radius": (0.2, 0.36), "neck_radius": (0.5, 0.85), "shoulder": (0.58, 0.71), "slope": (0.03, 0.08),
             "waist": (0.0, 0.02), "cap_height": (0.09, 0.2), "cap_radius": (1.05, 1.2), "label_low": (0.1, 0.2), "label_high": (0.5, 0.58),
             "roundness": (0.4, 1.0)},
            {"cap": 0.9, "label": 0.9},
        ),
    },
    "mug": {
        "as in the simple world": (0.5, {}, {"liquid": 0.15}),
        "coffee mug": (
            0.3,
            {"radius": (0.40, 0.52), "taper": (0.9, 1.02), "belly": (-0.03, 0.04), "handle_centre": (0.46, 0.58), "thickness": (0.05, 0.1)},
            {"foot_ring": 0.3, "lip": 0.2, "liquid": 0.25},
        ),
        "tea cup": (
            0.2,
            {"radius": (0.55, 0.85), "taper": (0.45, 0.75), "belly": (0.04, 0.2), "handle_centre": (0.5, 0.66), "wall": (0.03, 0.06),
             "handle_half": (0.2, 0.3), "reach": (0.35, 0.6), "thickness": (0.05, 0.08)},
            {"foot_ring": 0.7, "lip": 0.3, "liquid": 0.4},
        ),
    },
    "chair": {
        "as in the simple world": (0.25, {}, {"stretchers": 0.3}),
        "ladder back": (
            0.22,
            {"seat_thickness": (0.02, 0.05), "back_height": (0.45, 0.8), "leg_radius": (0.014, 0.028), "leg_inset": (0.0, 0.03),
             "splay": (0.0, 0.03), "back_tilt": (0.05, 0.25)},
            {"slats": 1.0, "ladder": 1.0, "stretchers": 0.8, "arms": 0.3, "pedestal": 0.0, "crossbar": 0.9},
        ),
        "spindle back": (
            0.22,
            {"seat_thickness": (0.02, 0.05), "back_height": (0.4, 0.75), "leg_radius": (0.014, 0.026), "splay": (0.0, 0.09),
             "back_tilt": (0.1, 0.3)},
            {"slats": 1.0, "spindles": 1.0, "stretchers": 0.6, "arms": 0.3, "pedestal": 0.0, "crossbar": 0.7},
        ),
        "upholstered": (
            0.16,
            {"seat_thickness": (0.06, 0.16), "back_thickness": (0.05, 0.12), "leg_radius": (0.014, 0.03), "splay": (0.0, 0.05)},
            {"slats": 0.0, "arms": 0.3, "pedestal": 0.05, "crossbar": 0.2, "stretchers": 0.1},
        ),
        "armchair": (
            0.07,
            {"width": (0.5, 0.75), "depth": (0.45, 0.65), "seat_thickness": (0.12, 0.22), "back_thickness": (0.08, 0.16),
             "back_height": (0.4, 0.7), "arm_width": (0.07, 0.14), "seat_height": (0.36, 0.46)},
            {"slats": 0.0, "arms": 1.0, "pedestal": 0.0, "crossbar": 0.0, "side_panels": 1.0},
        ),
        "office chair": (
            0.08,
            {"seat_thickness": (0.04, 0.1), "back_thickness": (0.03, 0.08), "seat_height": (0.42, 0.54)},
            {"slats": 0.15, "arms": 0.6, "pedestal": 1.0},
        ),
    },
    "car": {
        "as in the simple world": (0.2, {}, {"pillars": 0.5, "arches": 0.5, "rounded": 0.2}),
        "saloon": (
            0.25,
            {"length": (4.2, 5.0), "width": (0.36, 0.42), "hood": (0.22, 0.28), "trunk": (0.12, 0.22), "front_rake": (0.09, 0.15),
             "rear_rake": (0.06, 0.13), "roof": (0.09, 0.125), "belt": (0.17, 0.21), "wheel": (0.062, 0.075)},
            {"rounded": 0.9, "pillars": 0.95, "arches": 0.8, "spoiler": 0.15, "roof_rack": 0.05},
        ),
        "hatchback": (
            0.2,
            {"length": (3.4, 4.2), "width": (0.39, 0.46), "hood": (0.18, 0.26), "trunk": (0.01, 0.06), "front_rake": (0.09, 0.16),
             "rear_rake": (0.03, 0.12), "roof": (0.12, 0.16), "wheel": (0.068, 0.085)},
            {"rounded": 0.9, "pillars": 0.9, "arches": 0.8, "roof_rack": 0.1},
        ),
        "estate or off-roader": (
            0.12,
            {"length": (4.0, 5.0), "hood": (0.18, 0.27), "trunk": (0.01, 0.04), "rear_rake": (0.01, 0.05), "roof": (0.10, 0.18),
             "belt": (0.18, 0.25), "clearance": (0.04, 0.085), "wheel": (0.068, 0.095)},
            {"rounded": 0.9, "pillars": 1.0, "arches": 0.8, "roof_rack": 0.5},
        ),
        "van": (
            0.05,
            {"length": (4.2, 5.2), "hood": (0.08, 0.16), "trunk": (0.0, 0.03), "rear_rake": (0.0, 0.03), "roof": (0.16, 0.25),
             "cabin_taper": (0.85, 0.96), "front_rake": (0.06, 0.16)},
            {"rounded": 0.9, "pillars": 1.0, "arches": 0.7, "spoiler": 0.0},
        ),
        "convertible": (
            0.06,
            {"length": (3.8, 4.7), "width": (0.40, 0.47), "belt": (0.15, 0.19), "roof": (0.075, 0.11), "clearance": (0.022, 0.05),
             "hood": (0.2, 0.3), "trunk": (0.06, 0.2), "front_rake": (0.08, 0.13), "rear_rake": (0.05, 0.1), "cabin_taper": (0.68, 0.82)},
            {"rounded": 1.0, "open_top": 1.0, "arches": 0.8, "spoiler": 0.0, "roof_rack": 0.0},
        ),
        "sports car": (
            0.18,
            {"length": (3.9, 4.7), "width": (0.40, 0.47), "belt": (0.145, 0.19), "roof": (0.075, 0.11), "clearance": (0.022, 0.045),
             "hood": (0.2, 0.32), "trunk": (0.04, 0.24), "front_rake": (0.10, 0.18), "rear_rake": (0.08, 0.22), "hood_drop": (0.02, 0.06),
             "wheel": (0.066, 0.082), "cabin_taper": (0.64, 0.82)},
            {"rounded": 0.9, "pillars": 0.7, "arches": 0.8, "spoiler": 0.35, "roof_rack": 0.0},
        ),
    },
    "aeroplane": {
        "as in the simple world": (0.25, {}, {}),
        "airliner": (
            0.45,
            {"length": (25, 70), "radius": (0.042, 0.066), "nose": (0.06, 0.13), "tail": (0.26, 0.40), "wing_level": (-0.75, -0.35),
             "wing_place": (0.0, 0.12), "chord": (0.15, 0.24), "span": (0.40, 0.56), "sweep": (0.16, 0.30), "taper": (0.18, 0.4),
             "dihedral": (0.02, 0.08), "stabiliser": (0.15, 0.22), "fin": (0.14, 0.21), "fin_sweep": (0.08, 0.13),
             "engine_radius": (0.022, 0.038), "engine_place": (0.28, 0.4)},
            {"engines": 0.85, "four_engines": 0.25, "t_tail": 0.12, "propeller": 0.0, "wheels": 0.2, "gear_legs": 1.0},
        ),
        "light": (
            0.18,
            {"length": (6, 12), "radius": (0.06, 0.10), "nose": (0.08, 0.2), "tail": (0.35, 0.5), "wing_level": (-0.7, 0.95),
             "wing_place": (0.08, 0.2), "chord": (0.16, 0.24), "span": (0.48, 0.75), "sweep": (0.0, 0.05), "taper": (0.6, 1.0),
             "stabiliser": (0.15, 0.24), "fin": (0.13, 0.22)},
            {"engines": 0.0, "propeller": 1.0, "t_tail": 0.1, "wheels": 0.7, "gear_legs": 1.0, "cockpit": 1.0},
        ),
        "high wing": (
            0.12,
            {"length": (6, 12), "radius": (0.055, 0.095), "nose": (0.06, 0.16), "tail": (0.4, 0.55), "wing_level": (0.85, 1.15),
             "wing_place": (0.08, 0.2), "chord": (0.16, 0.26), "span": (0.5, 0.75), "sweep": (0.0, 0.02), "taper": (0.75, 1.0),
             "dihedral": (0.0, 0.03), "stabiliser": (0.15, 0.24), "fin": (0.13, 0.22), "upsweep": (0.2, 0.6)},
            {"engines": 0.0, "propeller": 1.0, "t_tail": 0.05, "wheels": 0.95, "gear_legs": 1.0, "cockpit": 1.0, "struts": 0.85},
        ),
        "twin": (
            0.12,
            {"length": (10, 30), "radius": (0.05, 0.085), "wing_level": (-0.6, 0.95), "sweep": (0.0, 0.08), "taper": (0.4, 0.85),
             "span": (0.44, 0.66), "chord": (0.13, 0.22), "engine_radius": (0.024, 0.042), "engine_place": (0.26, 0.4)},
            {"engines": 1.0, "four_engines": 0.15, "propeller": 0.0, "t_tail": 0.3, "wheels": 0.3, "gear_legs": 1.0},
        ),
    },
    "tvmonitor": {
        "as in the simple world": (0.25, {}, {}),
        "flat": (
            0.45,
            {"aspect": (0.53, 0.66), "bezel": (0.008, 0.04), "chin": (1.0, 2.2), "panel": (0.015, 0.04), "rear_depth": (0.01, 0.06),
             "rear_size": (0.4, 0.9), "inset": (0.002, 0.006), "width": (0.4, 1.4)},
            {"stand": 0.7, "feet": 0.3, "buttons": 0.1},
        ),
        "deep": (
            0.3,
            {"aspect": (0.68, 0.86), "bezel": (0.03, 0.075), "chin": (1.0, 3.2), "panel": (0.05, 0.1), "rear_depth": (0.3, 0.65),
             "rear_size": (0.4, 0.75), "width": (0.35, 0.8), "neck": (0.02, 0.1)},
            {"stand": 0.6, "feet": 0.05, "buttons": 0.6},
        ),
    },
}  # fmt: skip

# {category: ((share, settings of ViewConfig), ...)}; what is left out is as in the simple world.
_SMALL = {"fill": (0.15, 0.40), "small_rate": 0.0}
_STANDING = {"roll": 3.0, "upside_down_rate": 0.0}
VIEWS = {
    "bottle": (
        (0.2, {}),
        (0.5, _STANDING | {"elevation": (-6, 22), "fill": (0.55, 0.95)}),
        (0.2, _STANDING | _SMALL | {"elevation": (-5, 35)}),
        (0.1, {"elevation": (-10, 60), "roll": 40.0}),
    ),
    "mug": (
        (0.35, {}),
        (0.35, _STANDING | {"elevation": (0, 50)}),
        (0.2, _STANDING | _SMALL | {"elevation": (0, 60)}),
        (0.1, {"elevation": (45, 88), "roll": 40.0}),
    ),
    "chair": (
        (0.25, {}),
        (0.5, _STANDING | {"elevation": (-2, 35), "fill": (0.55, 0.95)}),
        (0.25, _STANDING | _SMALL | {"elevation": (0, 40)}),
    ),
    "car": (
        (0.25, {}),
        (0.4, _STANDING | {"elevation": (-2, 25), "fill": (0.5, 0.95)}),
        (0.25, _STANDING | _SMALL | {"elevation": (0, 40)}),
        (0.1, {"elevation": (40, 88)}),
    ),
    "aeroplane": (
        (0.2, {}),
        (0.3, {"elevation": (-45, 60), "roll": 14.0, "fill": (0.5, 0.95)}),
        (0.3, {"elevation": (-40, 10), "roll": 14.0, "fill": (0.5, 0.95)}),
        (0.2, _SMALL | {"elevation": (-45, 45), "roll": 14.0}),
    ),
    "tvmonitor": (
        (0.25, {}),
        (0.35, _STANDING | {"elevation": (-10, 25)}),
        (0.4, _STANDING | _SMALL | {"elevation": (-12, 25), "fill": (0.1, 0.4), "focal": (0.7, 1.6)}),
    ),
}
# {category: ((share, kind of scene), ...)}
SCENES = {
    "bottle": ((0.35, "studio"), (0.38, "table"), (0.13, "photograph"), (0.14, "simple")),
    "mug": ((0.25, "studio"), (0.42, "table"), (0.15, "photograph"), (0.18, "simple")),
    "chair": ((0.35, "studio"), (0.41, "room"), (0.1, "photograph"), (0.14, "simple")),
    "car": ((0.12, "studio"), (0.58, "outdoors"), (0.14, "photograph"), (0.16, "simple")),
    "aeroplane": ((0.55, "sky"), (0.22, "outdoors"), (0.11, "photograph"), (0.12, "simple")),
    "tvmonitor": ((0.08, "studio"), (0.70, "room"), (0.12, "photograph"), (0.10, "simple")),
}


def pick(rng: np.random.Generator, weighted: Sequence) -> tuple:
    """One of the ``weighted`` [(share, thing), ...] by its share."""
    shares = [share for share, *_ in weighted]
    return weighted[rng.choice(len(weighted), p=[s / sum(shares) for s in shares])]
