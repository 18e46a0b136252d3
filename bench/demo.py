"""The whole path on rendered videos.

    python bench/demo.py [--frames 36] [--categories bottle chair] [--output out/demo]

For each category an object that neither backbone nor model has seen is rendered turning into a video file. A process image_source
plays the file, a process align looks for the category in every frame, and this process listens; all three talk over DDS. The
source waits for the answer to a frame before it sends the next, so that every frame is aligned.

Printed for each category: PCK@0.1 of the published keypoints that are visible in the truth; on those of them that are visible in the
demonstration image, too: PCK@0.1 of the keypoints, of the published correspondences, and of plain nearest-neighbour transfer
with the same features; median latency in the node; frames per second from end to end. Pictures are in the output folder, among them
a real photograph (scikit-image's ``coffee.png``, CC0) with the keypoints of the shipped mug in it.
"""

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import cv2
import numpy as np
import torch
import tyro
import yaml
from ros_graph import Listener, NodeProcess, executable
from sensor_msgs.msg import Image

from semalign3d_core.datasets.synthetic import KEYPOINTS, make_instance, orbit, sample_rendering
from semalign3d_core.datasets.synthetic.writer import instance_range
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.metrics.pck import pck_correct
from semalign3d_core.perception import backbones
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.look import look
from semalign3d_core.pipeline import load_pipeline
from semalign3d_ros.conversions import image_to_rgb
from semalign3d_ros.msg import Correspondences, SemanticKeypoints

ALPHA = 0.1
FOCAL = 1.5  # of the rendered camera, in image sides
FRAMES_PER_SECOND = 12  # of the video file
VIEWS = 12  # among which the demonstration image is chosen: the one that shows most keypoints
SHEET_COLUMNS = 4
PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "photographs" / "coffee.jpg"
CUP = (172, 18, 408, 308)  # the cup's box in it, as a detector would give it
RELIABLE = [f"qos_overrides./semalign3d/{topic}.subscription.reliability:=reliable" for topic in ("image", "camera_info")]


@dataclass
class Options:
    """Options of the demo."""

    categories: tuple[str, ...] = ("bottle", "chair")
    """Synthetic categories to show."""
    frames: int = 36
    """Frames of each video."""
    size: int = 320
    """Side of the pictures in pixels."""
    instance: int = 3
    """Which unseen object: counted from the first one of the test split."""
    models: str = ""
    """Folder of category models; nothing takes the shipped ones."""
    backbone: str = "compact"
    """Feature backbone of the models."""
    warm_start: bool = False
    """Start from the alignment of the frame before."""
    output: Path = Path("out/demo")
    """Folder for videos, truth and pictures."""


@dataclass
class Received:
    """What the listener heard: messages in the order of the frames, pictures, and seconds from the first answer to the last."""

    keypoints: list
    correspondences: list
    overlays: list
    seconds: float


def main(options):
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for category in options.categories:
        truth = render_video(options, category)
        demonstration = render_demonstration(options, category)
        received = play(options, category)
        rows.append(score(options, category, truth, demonstration, received))
        picture = options.output / f"{category}.png"
        cv2.imwrite(str(picture), contact_sheet(received.overlays)[..., ::-1])
        print(f"{category}: all {options.frames} frames answered; pictures in {picture}", flush=True)
    print_table(rows)
    show_photograph(options)
    return 0


def show_photograph(options):
    """Writes the photograph with the keypoints of the mug that is found in it."""
    result, picture = load_pipeline("mug").process(PHOTOGRAPH, box=CUP), options.output / "photograph.png"
    result.draw(picture)
    state = "found" if result.alignment.found else "not found"
    print(f"\nmug {state} in a photograph, confidence {result.alignment.confidence:.2f}; picture in {picture}", flush=True)


def render_video(options, category):
    """Writes the video of a turning test instance and its truth; returns the renderings."""
    instance = make_instance(category, instance_range("test")[0] + options.instance)
    renderings = list(orbit(instance, options.frames, options.size, focal=FOCAL))
    path = options.output / f"{category}.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FRAMES_PER_SECOND, (options.size, options.size))
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for rendering in renderings:
        writer.write(np.ascontiguousarray(rendering.image[..., ::-1]))
    writer.release()
    names = KEYPOINTS[category].names
    frames = [{n: [*map(float, p), bool(v)] for n, p, v in zip(names, r.keypoints_2d, r.visible, strict=True)} for r in renderings]
    (options.output / f"{category}_truth.json").write_text(json.dumps(frames, indent=1))
    return renderings


def render_demonstration(options, category):
    """Writes a demonstration: the picture of a training instance and its visible keypoints as named points; returns the rendering."""
    seed = instance_range("trn")[0]
    rendering = max((sample_rendering(category, seed, view, options.size) for view in range(VIEWS)), key=lambda r: r.visible.sum())
    cv2.imwrite(str(options.output / f"{category}_demonstration.png"), rendering.image[..., ::-1])
    points = {KEYPOINTS[category].names[k]: rendering.keypoints_2d[k].round(2).tolist() for k in np.flatnonzero(rendering.visible)}
    text = yaml.safe_dump({"image": f"{category}_demonstration.png", "points": points}, sort_keys=False)
    (options.output / f"{category}_demonstration.yaml").write_text(text)
    return rendering


def play(options, category):
    """Plays the video of a category through the nodes and returns what was :class:`Received`."""
    folder, running = options.output.resolve(), []
    listener = Listener("demo")
    keypoints, times = listener.collect(SemanticKeypoints, "keypoints"), []
    listener.subscribe(SemanticKeypoints, "keypoints", lambda message: times.append(time.monotonic()))
    correspondences = listener.collect(Correspondences, "correspondences")
    overlays = listener.collect(Image, "overlay")
    align = [f"category:={category}", f"models:={options.models}", f"backbone:={options.backbone}"]
    align += [f"warm_start:={str(options.warm_start).lower()}", f"demonstration:={folder / f'{category}_demonstration.yaml'}", *RELIABLE]
    source = [f"source:={folder / f'{category}.avi'}", f"focal_length:={FOCAL * options.size}", "rate:=1000.0", "wait_for:=keypoints"]
    try:
        running.append(NodeProcess(executable("align_node"), align, folder / f"{category}_align.log"))
        listener.wait(lambda: listener.node.count_publishers("keypoints"), "waited for the node align", running[0])
        running.append(NodeProcess(executable("image_source_node"), source, folder / f"{category}_source.log"))
        listener.wait(lambda: running[1].process.poll() is not None, "waited for the end of the video", running[0], 60.0 * options.frames)
        listener.wait(lambda: len(overlays) >= len(keypoints), "waited for the last picture", running[0])
    finally:
        codes = [node.stop() for node in running]
        listener.close()
    if any(codes):
        raise SystemExit(f"a node ended with exit code {codes}:\n" + "\n".join(node.output() for node in running))
    if not len(keypoints) == len(correspondences) == options.frames:
        raise SystemExit(f"{len(keypoints)} of {options.frames} frames were answered; see {folder}/{category}_*.log")
    return Received(keypoints, correspondences, [image_to_rgb(message) for message in overlays], times[-1] - times[0])


def score(options, category, truth, demonstration, received):
    """One row of the table."""
    shown = np.flatnonzero(demonstration.visible)
    backbone, nearest = backbones.create(options.backbone), MATCHERS["nearest_neighbour"]()
    source = look(ImageInput(demonstration.image), backbone)
    hits = {"keypoints": [], "keypoints*": [], "correspondences*": [], "nearest*": []}
    # The source waits for each answer, so answers come in the order of the frames.
    frames = zip(truth, read_video(options.output / f"{category}.avi"), received.keypoints, received.correspondences, strict=True)
    for rendering, picture, keypoints, correspondences in frames:
        found = np.array([[k.pixel.x, k.pixel.y] for k in keypoints.keypoints])
        carried = np.array([[c.pixel.x, c.pixel.y] for c in correspondences.correspondences])
        guessed = nearest.match(
            source, look(ImageInput(picture), backbone), torch.from_numpy(demonstration.keypoints_2d[shown].astype(np.float32))
        ).points
        both = rendering.visible[shown]
        threshold = (rendering.box[2:] - rendering.box[:2]).max()
        for name, points, labels in (
            ("keypoints", found[rendering.visible], np.flatnonzero(rendering.visible)),
            ("keypoints*", found[shown[both]], shown[both]),
            ("correspondences*", carried[both], shown[both]),
            ("nearest*", np.asarray(guessed)[both], shown[both]),
        ):
            hits[name].extend(pck_correct(points, rendering.keypoints_2d[labels], threshold, [ALPHA])[:, 0])
    latency = [m.latency.sec + 1e-9 * m.latency.nanosec for m in received.keypoints]
    row = {"category": category, "frames": options.frames, **{name: 100 * np.mean(values) for name, values in hits.items()}}
    return row | {"latency": 1000 * np.median(latency), "rate": (options.frames - 1) / max(received.seconds, 1e-9)}


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    while (picture := capture.read()[1]) is not None:
        yield np.ascontiguousarray(picture[..., ::-1])


def contact_sheet(pictures):
    """Twelve of the pictures, evenly chosen, in one."""
    chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, min(3 * SHEET_COLUMNS, len(pictures))).round().astype(int)]
    chosen += [np.zeros_like(chosen[0])] * (-len(chosen) % SHEET_COLUMNS)
    return np.concatenate([np.concatenate(chosen[i : i + SHEET_COLUMNS], axis=1) for i in range(0, len(chosen), SHEET_COLUMNS)])


def print_table(rows):
    print(f"\nPCK@{ALPHA} in percent; *: only keypoints that are visible in the demonstration image, too")
    print(f"{'category':10s} {'frames':>6s} {'keypoints':>10s} {'keypoints*':>11s} {'correspond.*':>13s} {'nearest n.*':>12s} "
          f"{'latency ms':>11s} {'frames/s':>9s}")  # fmt: skip
    for row in rows:
        print(f"{row['category']:10s} {row['frames']:6d} {row['keypoints']:10.1f} {row['keypoints*']:11.1f} "
              f"{row['correspondences*']:13.1f} {row['nearest*']:12.1f} {row['latency']:11.0f} {row['rate']:9.2f}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
