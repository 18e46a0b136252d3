"""How many modules does one image pass through, from ``Pipeline.process`` to its keypoints?

    python bench/modules_of_an_image.py [--category chair]

Every call is followed while a synthetic image is processed, after one that warms everything up. Counted are modules of
``semalign3d_core`` in which a function runs; modules of the backbones are shown and not counted.
"""

import sys
import threading
from collections import Counter
from types import FrameType
from typing import Any

import tyro

import semalign3d_core
from semalign3d_core.datasets.synthetic.rendering import sample_rendering
from semalign3d_core.pipeline import Pipeline, load_pipeline


def modules_of(pipeline: Pipeline, rgb: Any) -> Counter[str]:
    """Calls of functions by module of the package while ``pipeline`` processes an image (h, w, 3) uint8."""
    found: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith(f"{semalign3d_core.__name__}."):
            found[module.removeprefix(f"{semalign3d_core.__name__}.")] += 1

    pipeline.process(rgb)
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        pipeline.process(rgb)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def main(category: str = "chair") -> None:
    """Prints the modules and their number.

    category: of the synthetic image and of the model
    """
    found = modules_of(load_pipeline(category), sample_rendering(category, 9001, 1).image)
    counted = {name: calls for name, calls in found.items() if not name.startswith("perception.backbones.")}
    for name, calls in found.items():
        print(f"{calls:6d}  {name}{'' if name in counted else '  (backbone, not counted)'}")
    print(f"{len(counted)} modules")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
