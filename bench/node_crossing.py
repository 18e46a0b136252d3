"""Three objects of two categories cross in a rendered video: does each keep its number?

    python bench/node_crossing.py [--frames 30]

Two mugs and a bottle that turn are laid over a rendered scene; they meet in the middle, where one hides the others. A process align gets
every image with the labels of an instance mask, whose numbers say nothing (shuffled in every frame, gone where less than
a fifth of an object is visible), and has to tell categories and identities itself. Printed: how often each object was found, under which
numbers, and the switches. The exit code is 1 if there was one.
"""

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import cv2
import numpy as np

from semalign3d_core.datasets.synthetic import RenderConfig, make_instance, orbit, sample_rendering
from semalign3d_core.datasets.synthetic.writer import instance_range

HEIGHT, WIDTH, SIDE = 480, 640, 200  # pixels of the video, and of the rendering that an object is cut from
SECONDS = 6.0
# category, instance, where its middle is at the beginning and at the end of the video (pixels); the first ones are in front
ACTORS = (
    ("mug", 0, (110, 260), (530, 250)),
    ("mug", 1, (540, 200), (100, 215)),
    ("bottle", 0, (330, 80), (310, 400)),
)
LEAST_VISIBLE = 0.2
REACH = 0.5  # object sizes between the middles of what was found and of what is there, within which they are the same


@dataclass(frozen=True)
class Actor:
    """An object in a frame: ``visible`` (h, w) bool, ``middle`` (2,) and ``size`` of all of it in pixels, the ``share`` that is visible."""

    category: str
    visible: np.ndarray
    middle: np.ndarray
    size: float
    share: float


def video(frames: int, seed: int = 0) -> Iterator[tuple[float, np.ndarray, list[Actor]]]:
    """(time in seconds, picture (h, w, 3) uint8, its :class:`Actor` in the order of ``ACTORS``) of every frame."""
    first = instance_range("test")[0]
    scene = sample_rendering("mug", first, seed, (HEIGHT, WIDTH), RenderConfig(empty=True)).image
    turning = [list(orbit(make_instance(name, first + number), frames, SIDE, seed, turns=0.25)) for name, number, *_ in ACTORS]
    for frame in range(frames):
        share = frame / max(frames - 1, 1)
        picture, whole, middles = scene.copy(), [], []
        for (_, _, start, end), renderings in zip(reversed(ACTORS), reversed(turning), strict=True):  # the farthest first
            place = np.round((1 - share) * np.array(start) + share * np.array(end)).astype(int) - SIDE // 2
            shift = np.float32([[1, 0, place[0]], [0, 1, place[1]]])
            mask = cv2.warpAffine(renderings[frame].mask.astype(np.uint8), shift, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST).astype(bool)
            moved = cv2.warpAffine(renderings[frame].image, shift, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST)
            picture[mask] = moved[mask]
            whole.insert(0, mask)
            x0, y0, x1, y1 = renderings[frame].box
            middles.insert(0, (np.array([x0 + x1, y0 + y1]) / 2 + place, float(np.hypot(x1 - x0, y1 - y0))))
        actors, taken = [], np.zeros((HEIGHT, WIDTH), bool)
        for (category, *_), mask, (middle, size) in zip(ACTORS, whole, middles, strict=True):
            visible = mask & ~taken
            actors.append(Actor(category, visible, middle, size, visible.sum() / max(mask.sum(), 1)))
            taken |= mask
        yield share * SECONDS, picture, actors


def labels_of(actors: list[Actor], rng: np.random.Generator) -> np.ndarray:
    """(h, w) uint16 of an instance mask that knows no identities."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    for actor, number in zip(actors, rng.permutation(np.arange(1, 60))[: len(actors)], strict=True):
        if actor.share >= LEAST_VISIBLE:
            labels[actor.visible] = number
    return labels


class Ledger:
    """Which number every actor had, frame by frame."""

    def __init__(self) -> None:
        self.numbers = [Counter[int]() for _ in ACTORS]
        self.others = 0

    def add(self, actors: list[Actor], found: list[tuple[str, np.ndarray, int]]) -> None:
        """``found``: (category, middle (2,) in pixels, number) of what was found; each belongs to the nearest actor of its kind."""
        for category, middle, number in found:
            far = [np.linalg.norm(middle - a.middle) / a.size if a.category == category and a.share > 0 else np.inf for a in actors]
            best = int(np.argmin(far))
            if far[best] <= REACH:
                self.numbers[best][number] += 1
            else:
                self.others += 1

    @property
    def switches(self) -> int:
        """Changes of number, over all actors."""
        shared = sum(len([1 for known in self.numbers if number in known]) - 1 for number in set().union(*self.numbers))
        return sum(max(len(known) - 1, 0) for known in self.numbers) + shared

    def report(self, frames: int) -> None:
        for (category, instance, *_), known in zip(ACTORS, self.numbers, strict=True):
            print(f"{category} {instance}: found in {known.total()} of {frames} frames, numbers {dict(known)}")
        print(f"elsewhere or of the wrong category: {self.others}; switches: {self.switches}")


def main(frames: int) -> int:
    from builtin_interfaces.msg import Time
    from ros_graph import Listener, NodeProcess, executable
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from semalign3d_ros.conversions import array_to_image
    from semalign3d_ros.msg import SemanticObjects

    ledger, rng, answers = Ledger(), np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder:
        parameters = ["category:=mug,bottle", "patience:=30.0", "threads:=1"]
        node = NodeProcess(executable("align_node"), parameters, Path(folder) / "node.log")
        listener = Listener("video")
        images, masks = listener.publisher(Image, "image"), listener.publisher(Image, "mask")
        listener.subscribe(SemanticObjects, "objects", answers.append)
        topics = (images, masks)
        listener.wait(lambda: all(t.get_subscription_count() for t in topics) and listener.node.count_publishers("objects"), "waited", node)
        for time, picture, actors in video(frames):
            header = Header(stamp=Time(sec=10 + int(time), nanosec=int(time % 1 * 1e9)), frame_id="camera")
            masks.publish(array_to_image(labels_of(actors, rng), "mono16", header))
            images.publish(array_to_image(picture, "rgb8", header))
            listener.wait(lambda header=header: answers and answers[-1].header == header, "waited for objects", node)
            ledger.add(actors, [(one.category, middle_of(one), one.object_id) for one in answers[-1].objects])
        node.stop()
        listener.close()
    ledger.report(frames)
    return 1 if ledger.switches else 0


def middle_of(message) -> np.ndarray:
    """(2,) pixels: the middle of an object's keypoints."""
    pixels = np.array([[keypoint.pixel.x, keypoint.pixel.y] for keypoint in message.keypoints])
    pixels = pixels[np.isfinite(pixels).all(1)]
    return (pixels.min(0) + pixels.max(0)) / 2


if __name__ == "__main__":
    import tyro

    @dataclass
    class Options:
        """Options of the benchmark."""

        frames: int = 30
        """Frames of the video, which lasts six seconds."""

    sys.exit(main(tyro.cli(Options, description=__doc__).frames))
