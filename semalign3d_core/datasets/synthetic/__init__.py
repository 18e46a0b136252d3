"""Parametric categories rendered with full ground truth. Needs the extra ``synth`` (embreex) only where it renders."""

from semalign3d_core.datasets.synthetic.instances import CATEGORIES, KEYPOINTS, WORLDS, Instance, make_instance, mean_shape, shows_its_turn
from semalign3d_core.datasets.synthetic.rendering import RenderConfig, Rendering, orbit, render, sample_rendering

__all__ = [
    "CATEGORIES",
    "KEYPOINTS",
    "WORLDS",
    "Instance",
    "RenderConfig",
    "Rendering",
    "make_instance",
    "mean_shape",
    "orbit",
    "render",
    "sample_rendering",
    "shows_its_turn",
]
