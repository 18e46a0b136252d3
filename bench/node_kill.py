"""Kills nodes of a running graph (SIGKILL) at random moments and starts them again: does it answer again, every time?

    python bench/node_kill.py [--cycles 1000] [--seed 0]

The graph is an image source that loops over pictures, a process align, and a listener. In every cycle the source, align or both are
killed, after a random time of at most a second, also while they start, and started again. The listener must then get an answer to an
image that was sent after that. A node that ends by itself is started again, as the launch file does with ``respawn:=true``. Most nodes
are forked from a process that has their modules loaded; each twentieth loads them itself. Printed: cycles by victim, the time until the
answer, and files left in /dev/shm. The exit code is 1 if an answer did not come.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import numpy as np
import tyro
from PIL import Image as Picture
from ros_graph import Listener, NodeProcess, executable

from semalign3d_core.datasets.synthetic import make_instance, orbit
from semalign3d_core.datasets.synthetic.writer import instance_range
from semalign3d_ros.msg import SemanticKeypoints
from semalign3d_ros.process import run_node

RESTARTS = "nodes that ended by themselves"
FRESH = 20  # of so many starts one loads its modules
MODULES = ["semalign3d_ros.align_node", "semalign3d_ros.image_source_node", "semalign3d_core.perception.backbones.compiled", "openvino"]


@dataclass
class Options:
    """Options of the benchmark."""

    cycles: int = 1000
    """Kills."""
    seed: int = 0
    """Of the moments and victims."""
    category: str = "bottle"
    """Category to look for."""
    deadline: float = 120.0
    """Seconds after which an answer counts as missing."""


class ForkedNode(NodeProcess):
    """As a NodeProcess, forked from a process that has loaded its modules; it is its own ``process``."""

    def __init__(self, module: str, parameters: list[str], log: Path) -> None:
        self._log, self.process = log, self
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(MODULES)
        self._forked = context.Process(target=_run_node, args=(module, parameters, log))
        self._forked.start()

    def poll(self) -> int | None:
        return self._forked.exitcode

    def kill(self) -> None:
        self._forked.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self._forked.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._forked.join(timeout)
        if self._forked.exitcode is None:
            raise subprocess.TimeoutExpired("node", timeout)
        return self._forked.exitcode


def _run_node(module, parameters, log):
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = [module, "--ros-args", *(part for parameter in parameters for part in ("-p", parameter))]
    run_node(module)


class Graph:
    """The two nodes, by name; all that they print goes to one file each."""

    def __init__(self, category: str, folder: Path) -> None:
        self.folder, self.running, self._starts = folder, {}, 0
        self.parameters = {
            "align": [f"category:={category}", "threads:=1"],
            "source": [f"source:={folder / 'pictures'}", "loop:=true", "rate:=10.0"],
        }

    def start(self, name: str) -> None:
        module, log = {"align": "align_node", "source": "image_source_node"}[name], self.folder / f"{name}.log"
        fresh = self._starts % FRESH == 0
        self.running[name] = (NodeProcess if fresh else ForkedNode)(executable(module) if fresh else module, self.parameters[name], log)
        self._starts += 1

    def kill(self, name: str) -> None:
        self.running[name].process.kill()
        self.running[name].process.wait()


def attack(options: Options, folder: Path) -> tuple[Counter, list[float], list[str]]:
    """({victim: kills}, seconds until the answers, what went wrong)."""
    chance, graph, listener = random.Random(options.seed), Graph(options.category, folder), Listener("listener")
    stamps: list[int] = []
    listener.subscribe(SemanticKeypoints, "keypoints", lambda m: stamps.append(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec))
    kills, waited, problems = Counter(), [], []
    for name in graph.parameters:
        graph.start(name)
    for cycle in range(options.cycles):
        victims = chance.choice((["align"], ["source"], ["align", "source"]))
        end = time.monotonic() + chance.uniform(0, 1)
        while time.monotonic() < end:
            listener.executor.spin_once(timeout_sec=0.02)
        for name in victims:
            graph.kill(name)
        for name in victims:
            graph.start(name)
        kills[" and ".join(victims)] += 1
        if cycle < options.cycles - 1 and chance.random() < 0.3:  # the next ones die while they start
            continue
        begin, since = time.monotonic(), time.time_ns()
        while not any(stamp > since for stamp in stamps) and time.monotonic() < begin + options.deadline:
            listener.executor.spin_once(timeout_sec=0.02)
            for name in [name for name, node in graph.running.items() if node.process.poll() is not None]:
                graph.start(name)  # as the launch file does with respawn:=true
                kills[RESTARTS] += 1
        waited.append(time.monotonic() - begin)
        if not any(stamp > since for stamp in stamps):
            text = "".join(f"\n{name}: {node.output()[-600:]}" for name, node in graph.running.items())
            problems.append(f"cycle {cycle}: no answer after {options.deadline:.0f} s{text}")
        stamps.clear()
        if (cycle + 1) % 50 == 0:
            print(f"{cycle + 1} cycles, {len(problems)} problems, answers after {np.median(waited):.1f} s in the middle", flush=True)
    for name, node in graph.running.items():
        if node.stop(signal.SIGINT) != 0 or "Traceback" in node.output():
            problems.append(f"{name} did not end well:\n{node.output()[-600:]}")
    listener.close()
    return kills, waited, problems


def main(options: Options) -> int:
    instance, before = make_instance(options.category, instance_range("test")[0]), len(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "pictures").mkdir()
        for number, rendering in enumerate(orbit(instance, 4, 160)):
            Picture.fromarray(rendering.image).save(Path(name) / "pictures" / f"{number}.png")
        kills, waited, problems = attack(options, Path(name))
    print(f"{RESTARTS} and were started again: {kills.pop(RESTARTS, 0)}")
    print(", ".join(f"{victim}: {count} kills" for victim, count in sorted(kills.items())))
    print(f"{len(waited)} answers, after {np.median(waited):.1f} s in the middle and {max(waited):.1f} s at most; {len(problems)} problems")
    print(f"files in /dev/shm: {before} before, {len(os.listdir('/dev/shm'))} after")
    print("\n".join(problems[:10]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
