"""Fixtures of the node tests: a simulated category on disk, and the running node."""

import numpy as np
import pytest
from safetensors.torch import save_file


class World:
    """A simulated category written to ``folder``: model file, features of pictures, demonstration. ``pictures`` are RGB."""

    def __init__(self, folder, images=4):
        from simulated_category import SimulatedCategory

        from semalign3d_core.category.storage import save_model

        self.folder, category = folder, SimulatedCategory("chair", noise=0.3)
        self.model_path = folder / "chair.safetensors"
        self.model_hash = save_model(category.model(), self.model_path)
        self.truth = [category.image(seed) for seed in range(images)]
        self.pictures = []
        for number, image in enumerate(self.truth):
            save_file({"features": image.evidence.features.values.contiguous()}, folder / f"{number}.safetensors")
            picture = np.random.default_rng(number).integers(0, 255, (240, 240, 3), dtype=np.uint8)
            picture[:8, :8] = 8 * number  # by which the stand-in backbone knows it
            self.pictures.append(picture)
        self.parameters = [
            f"category:={self.model_path}",
            f"models:={folder}",
            f"backbone:=standin:{folder}",
            "masks:=none",
            "threads:=1",
            *self._reliable(),
        ]

    def _reliable(self):
        from ros_graph import RELIABLE

        return RELIABLE

    def write_demonstration(self):
        """A demonstration of the first picture with two visible keypoints as query points; returns the YAML file."""
        from PIL import Image

        Image.fromarray(self.pictures[0]).save(self.folder / "demonstration.png")
        visible = np.flatnonzero(self.truth[0].visible.numpy())[:2]
        points = {f"point_{k}": [round(float(v), 3) for v in self.truth[0].keypoints[k]] for k in visible}
        lines = [f"  {label}: {position}" for label, position in points.items()]
        path = self.folder / "demonstration.yaml"
        path.write_text("image: demonstration.png\npoints:\n" + "\n".join(lines) + "\n")
        return path


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def listener():
    from ros_graph import Listener

    made = Listener("listener")
    yield made
    made.close()


@pytest.fixture
def start(tmp_path):
    """Function that starts a node process; all are ended after the test."""
    from ros_graph import NodeProcess

    running = []

    def run(command, parameters=(), remap=()):
        running.append(NodeProcess(command, parameters, tmp_path / f"node_{len(running)}.log", remap))
        return running[-1]

    yield run
    for node in running:
        if node.process.poll() is None:
            node.process.kill()
        node.process.wait()
