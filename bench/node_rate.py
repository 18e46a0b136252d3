"""How fast the node is from end to end.

    python bench/node_rate.py [--frames 60]

A process align gets rendered frames over DDS, each as soon as the one before is answered. Printed for the search anew in every
frame (cold) and for the start from the frame before (warm): median and 90th percentile of the latency in the node, and answers
per second as the listener sees them.
"""

import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import numpy as np
import tyro
from ros_graph import AlignSession

from semalign3d_core.datasets.synthetic import make_instance, orbit
from semalign3d_core.datasets.synthetic.writer import instance_range


@dataclass
class Options:
    """Options of the benchmark."""

    category: str = "bottle"
    """Category to look for."""
    frames: int = 60
    """Frames sent in each mode; a first one is sent before and does not count."""
    height: int = 480
    """Height of the frames; they are 4:3."""
    threads: int = 2
    """CPU threads of the node."""
    models: str = ""
    """Folder of category models; nothing takes the shipped ones."""


def main(options):
    instance = make_instance(options.category, instance_range("test")[0])
    pictures = [r.image for r in orbit(instance, min(options.frames, 24), (options.height, options.height * 4 // 3))]
    print(f"{options.category}, {pictures[0].shape[1]} x {pictures[0].shape[0]} rgb8, {options.threads} threads")
    print(f"{'':6s} {'median ms':>10s} {'90 % ms':>8s} {'answers/s':>10s} {'found %':>8s}")
    with tempfile.TemporaryDirectory() as folder:
        for mode, warm in (("cold", "false"), ("warm", "true")):
            parameters = [f"category:={options.category}", f"models:={options.models}", f"threads:={options.threads}"]
            with AlignSession([*parameters, f"warm_start:={warm}"], Path(folder) / f"{mode}.log") as session:
                session.ask(pictures[0])
                begin = time.monotonic()
                answers = [session.ask(pictures[number % len(pictures)]) for number in range(options.frames)]
                seconds = time.monotonic() - begin
            latency = [1000 * (m.latency.sec + 1e-9 * m.latency.nanosec) for m in answers]
            found = 100 * np.mean([m.found for m in answers])
            print(f"{mode:6s} {np.median(latency):10.0f} {np.quantile(latency, 0.9):8.0f} {len(answers) / seconds:10.2f} {found:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
