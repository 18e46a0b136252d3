"""What one frame costs, stage by stage, cold (searched anew) and warm (from the frame before).

    python bench/frame.py [--category bottle] [--threads 1] [--device cpu]     # the embedded backbone
    python bench/frame.py --backbone dinov2:small                             # random weights, which cost what real ones do
    python bench/frame.py --against CHECKOUT                                  # another version beside this one, in turns

Frames are rendered orbits of one object, given as JPEG. Printed per stage: CPU milliseconds of all threads, which hardly depend on other
work on the machine, and wall milliseconds, medians over the frames. A stage does not count those inside it. With ``--against`` both
versions run in processes of their own that take turns, so that other work on the machine meets both; the last column is their
ratio.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import inspect
import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro

STAGES = ("decode", "glance", "look", "mask", "prepare", "observe", "bank", "solve", "judge", "report", "publish", "other")
ROUND = 12  # frames of a turn


@dataclass
class Options:
    """Options of the benchmark."""

    category: str = "bottle"
    """Category to look for."""
    backbone: str = "compact"
    """compact, compact:FILE, or with random weights dinov2:small, dinov2:small,side=336 ..."""
    frames: int = 48
    """Frames measured in each mode."""
    height: int = 480
    """Height of the frames; they are 4:3."""
    threads: int = 1
    """CPU threads of the networks."""
    device: str = "cpu"
    """cpu, or cuda where there is one."""
    against: Path | None = None
    """Folder of another version of the sources."""
    serve: bool = False
    """Used by --against: answer requests for a turn on standard input."""


class Stopwatch:
    """Times calls of functions that it is put around; time in an inner one is not that of the outer one."""

    def __init__(self, device):
        self.device, self.inner, self.spent = device, [np.zeros(2)], defaultdict(lambda: np.zeros(2))

    def now(self):
        if self.device != "cpu":
            torch.cuda.synchronize()
        return 1e3 * np.array([time.process_time(), time.perf_counter()])

    def around(self, stage, call):
        def timed(*arguments, **options):
            start = self.now()
            self.inner.append(np.zeros(2))
            try:
                return call(*arguments, **options)
            finally:
                whole = self.now() - start
                self.spent[stage] += whole - self.inner.pop()
                self.inner[-1] += whole

        return timed

    def put(self, stage, owner, name):
        if hasattr(owner, name):  # another version may lack it
            setattr(owner, name, self.around(stage, getattr(owner, name)))

    def take(self):
        """{stage: (CPU, wall) ms} since the last call."""
        spent, self.spent = self.spent, defaultdict(lambda: np.zeros(2))
        self.inner = [np.zeros(2)]
        return spent


class Bench:
    """Pipeline and frames."""

    def __init__(self, options):
        from semalign3d_core.alignment.gauss_newton import solver
        from semalign3d_core.datasets.synthetic import make_instance, orbit
        from semalign3d_core.datasets.synthetic.writer import instance_range
        from semalign3d_core.pipeline import load_pipeline

        torch.set_num_threads(options.threads)
        instance = make_instance(options.category, instance_range("test")[0])
        pictures = [r.image for r in orbit(instance, ROUND, (options.height, options.height * 4 // 3))]
        self.files = [cv2.imencode(".jpg", picture[..., ::-1])[1] for picture in pictures]
        if options.backbone.startswith("compact"):
            self.pipeline = load_pipeline(options.category, device=options.device, backbone=options.backbone)
        else:
            self.pipeline = random_pipeline(options)
        self.watch, self.publish = Stopwatch(options.device), publisher()
        aligner, look = self.pipeline.aligner, self.pipeline.backbone
        for stage, owner, name in (
            ("glance", look, "glance"), ("look", look, "extract"), ("look", look, "follow"), ("mask", self.pipeline.mask_source, "glance"),
            ("mask", self.pipeline.mask_source, "segment_features"), ("prepare", aligner, "prepare"), ("observe", aligner, "observe"),
            ("bank", solver, "best_starts"), ("solve", aligner.solver, "solve"), ("solve", aligner.solver, "refine"),
            ("judge", aligner, "judge"), ("report", aligner, "_report"), ("report", aligner, "_alignment"),
        ):  # fmt: skip
            self.watch.put(stage, owner, name)
        self.frame = self.watch.around("other", self._frame)
        self.decode, self.publish = self.watch.around("decode", self._decode), self.watch.around("publish", self.publish)

    @staticmethod
    def _decode(file):
        return cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)

    def _frame(self, file, previous):
        alignment = self.pipeline.process(self.decode(file), previous=previous).alignment
        self.publish(alignment)
        return alignment

    def turn(self, warm):
        """[{stage: [CPU, wall] ms}] of the frames of one turn; those that a warm turn had to search anew are left out."""
        previous = self.frame(self.files[-1], None) if warm else None
        self.watch.take()
        found = []
        for file in self.files:
            alignment = self.frame(file, previous)
            stages = {stage: spent.tolist() for stage, spent in self.watch.take().items()}
            if not warm or alignment.tracking.warm_frames:
                found.append(stages)
            previous = alignment if warm else None
        return found


def random_pipeline(options):
    """A pipeline whose backbone and category model are random."""
    import official_models
    from throughput import random_model

    from semalign3d_core.alignment.aligner import Aligner
    from semalign3d_core.perception import masks
    from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
    from semalign3d_core.perception.providers import parse_spec
    from semalign3d_core.pipeline import Pipeline

    _, size, settings = parse_spec(options.backbone)
    torch.manual_seed(0)
    vit = official_models.dinov2(size)
    runtime = {"runtime": "auto"} if "runtime" in inspect.signature(TransformerBackbone).parameters else {}  # another version may lack it
    cells = int(settings.get("side", 840)) // vit.config.patch_size
    backbone = TransformerBackbone(vit, "random", cells, device=options.device, **runtime)
    model = random_model(options.category, backbone.channels, torch.Generator().manual_seed(0))
    model = replace(model, backbone=backbone.name).to(options.device)
    return Pipeline(model, backbone, Aligner(model), mask_source=masks.create("similarity", None, model, backbone))


def publisher():
    """Makes and serialises the message of an alignment, where ROS is at hand."""
    try:
        from rclpy.serialization import serialize_message
        from std_msgs.msg import Header

        from semalign3d_ros.messages import keypoints_message
    except ImportError:
        return lambda alignment: None
    return lambda alignment: serialize_message(keypoints_message(alignment, Header(), 0.0))


def serve(options):
    """Answers every line on standard input, ``true`` for warm, with the times of one turn."""
    bench = Bench(options)
    bench.turn(False)
    for line in sys.stdin:
        print(json.dumps(bench.turn(json.loads(line))), flush=True)


class Version:
    """One version of the sources in a process of its own."""

    def __init__(self, checkout, options):
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name not in ("against", "serve")]
        here = str(Path(__file__).resolve().parent)
        path = os.pathsep.join([str(checkout), here, os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        self.turn(False)  # the answer says that it is ready

    def turn(self, warm):
        self.process.stdin.write(json.dumps(warm) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def print_table(mode, versions):
    """versions: [[{stage: (CPU, wall)}]] of one or two versions."""
    print(f"\n{mode}: {' and '.join(str(len(frames)) for frames in versions)} frames")
    heads = ["CPU ms", "wall ms"] * len(versions) + ["ratio"] * (len(versions) - 1)
    print(f"{'':10s}" + "".join(f"{head:>10s}" for head in heads))
    for stage in (*STAGES, "frame"):
        row = [np.median([_spent(frame, stage) for frame in frames], 0) for frames in versions]
        if not any(times[0] for times in row):
            continue
        cells = "".join(f"{times[0]:10.1f}{times[1]:10.1f}" for times in row)
        print(f"{stage:10s}{cells}" + (f"{row[1][0] / max(row[0][0], 1e-9):10.2f}" if len(row) > 1 else ""))


def _spent(frame, stage):
    return np.sum([*frame.values()], 0) if stage == "frame" else np.array(frame.get(stage, (0.0, 0.0)))


def main(options):
    if options.serve:
        return serve(options)
    checkouts = [Path(__file__).resolve().parents[1], *([options.against.resolve()] if options.against else [])]
    versions = [Version(checkout, options) for checkout in checkouts]
    size = f"{options.height * 4 // 3} x {options.height}"
    print(f"{options.category}, {options.backbone}, {size}, {options.device}, {options.threads} threads")
    if options.against:
        print(f"first this version, then {options.against.name}; ratio: CPU time of the second by that of the first")
    try:
        for mode, warm in (("cold", False), ("warm", True)):
            found = [[] for _ in versions]
            while len(found[0]) < options.frames:
                before = len(found[0])
                for frames, version in zip(found, versions, strict=True):
                    frames.extend(version.turn(warm))
                if len(found[0]) == before:
                    print(f"\n{mode}: no frame was aligned from the frame before")
                    break
            else:
                print_table(mode, found)
    finally:
        for version in versions:
            version.close()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
