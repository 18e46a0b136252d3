"""Whether the node's memory is stable.

    python bench/node_memory.py [--frames 1000]

A process align gets frames over DDS, each as soon as the one before is answered, a malformed one in between now and then. Printed
every hundred frames: resident memory of the process, and at the end that of an image_source which shows a folder. The exit code is 1
if align grew by more than 5 % after the first fifth.
"""

import os
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import tyro
from PIL import Image as Picture
from ros_graph import AlignSession, Listener, NodeProcess, executable
from sensor_msgs.msg import Image

from semalign3d_core.datasets.synthetic import make_instance, orbit
from semalign3d_core.datasets.synthetic.writer import instance_range

ALLOWED_GROWTH = 0.05


@dataclass
class Options:
    """Options of the benchmark."""

    category: str = "bottle"
    """Category to look for."""
    frames: int = 1000
    """Frames sent."""
    size: int = 256
    """Side of the frames in pixels."""
    models: str = ""
    """Folder of category models; nothing takes the shipped ones."""


def main(options):
    instance = make_instance(options.category, instance_range("test")[0])
    pictures = [r.image for r in orbit(instance, 12, options.size)]
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        parameters = [f"category:={options.category}", f"models:={options.models}"]
        with AlignSession(parameters, Path(folder) / "node.log") as session:
            print(f"{'frames':>7s} {'resident MiB':>13s}")
            for number in range(1, options.frames + 1):
                if number % 10 == 0:
                    session.images.publish(Image(height=1, width=1, encoding="rubbish"))
                session.ask(pictures[number % len(pictures)])
                if number % max(options.frames // 10, 1) == 0:
                    measured.append(resident_mebibytes(session.node.process.pid))
                    print(f"{number:7d} {measured[-1]:13.1f}", flush=True)
        print(f"image_source: {memory_of_source(pictures, Path(folder)):.1f} MiB")
    settled = measured[len(measured) // 5 - 1 if len(measured) >= 5 else 0]
    growth = measured[-1] / settled - 1
    print(f"growth after the first fifth: {100 * growth:+.1f} % (allowed: {100 * ALLOWED_GROWTH:.0f} %)")
    return 0 if growth <= ALLOWED_GROWTH else 1


def memory_of_source(pictures, folder):
    """Resident MiB of an image_source after it has shown some pictures."""
    for number, picture in enumerate(pictures):
        Picture.fromarray(picture).save(folder / f"{number}.png")
    listener = Listener("listener")
    shown = listener.collect(Image, "image")
    source = NodeProcess(executable("image_source_node"), [f"source:={folder}", "loop:=true"], folder / "source.log")
    listener.wait(lambda: len(shown) > 2 * len(pictures), "waited for images", source)
    found = resident_mebibytes(source.process.pid)
    source.stop()
    listener.close()
    return found


def resident_mebibytes(process_id, kind="VmRSS"):
    line = next(line for line in Path(f"/proc/{process_id}/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
