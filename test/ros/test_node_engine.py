"""What is in force against frames in flight, which the backbone holds: one that began under another pipeline leaves no trace."""

import threading
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from standin import LookUpBackbone  # noqa: E402

from semalign3d_core.category.storage import load_model, save_model  # noqa: E402
from semalign3d_core.perception.backbones import BACKBONES  # noqa: E402
from semalign3d_core.perception.evidence import ImageInput  # noqa: E402
from semalign3d_core.perception.masks import MaskSource  # noqa: E402
from semalign3d_core.runtime.errors import InputError  # noqa: E402
from semalign3d_ros.engine import Engine  # noqa: E402
from semalign3d_ros.inputs.decoder import SensorFrame  # noqa: E402
from semalign3d_ros.parameters import AlignParameters  # noqa: E402


class HeldBackbone(LookUpBackbone):
    """Waits in the middle of a frame until the test lets it go on."""

    started, go_on = threading.Event(), threading.Event()

    def extract(self, image):
        self.started.set()
        assert self.go_on.wait(60)
        return super().extract(image)


@pytest.fixture
def engine(world, monkeypatch):
    monkeypatch.setitem(BACKBONES, "held", HeldBackbone)
    HeldBackbone.started.clear()
    HeldBackbone.go_on.clear()
    values = {"category": str(world.model_path), "backbone": f"held:{world.folder}", "masks": "none", "warm_start": True, "threads": 1}
    return Engine(AlignParameters(**values), lambda kind, text: None)


def in_flight(engine, world, meanwhile):
    """What a frame finds while ``meanwhile()`` happens in the middle of it."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(engine.process(SensorFrame(ImageInput(world.pictures[0])))))
    HeldBackbone.started.clear()
    HeldBackbone.go_on.clear()
    thread.start()
    assert HeldBackbone.started.wait(60)
    meanwhile()
    HeldBackbone.go_on.set()
    thread.join()
    return found


def warm_frames(engine, world):
    """How many frames the next one continues."""
    HeldBackbone.go_on.set()
    return engine.process(SensorFrame(ImageInput(world.pictures[0])))[0].result.alignment.tracking.warm_frames


def test_a_frame_continues_the_one_before(engine, world):
    assert [warm_frames(engine, world) for _ in range(2)] == [0, 1]


def test_a_reset_counts_for_the_frame_in_flight(engine, world):
    found = in_flight(engine, world, engine.reset)
    published = []
    assert engine.publish(found, lambda: published.append(1)) and published  # it is still an answer
    assert warm_frames(engine, world) == 0


def test_the_frame_in_flight_is_no_answer_for_the_next_category(engine, world):
    other = engine.prepare(AlignParameters(**{**vars(engine.in_force.parameters), "preset": "reference"}))
    found = in_flight(engine, world, lambda: engine.install(other))
    published = []
    assert not engine.publish(found, lambda: published.append(1)) and not published
    engine.install(engine.prepare(AlignParameters(**{**vars(engine.in_force.parameters), "preset": "fast"})))
    assert warm_frames(engine, world) == 0


def test_parameters_that_change_no_pipeline_keep_what_was_found(engine, world):
    assert warm_frames(engine, world) == 0
    engine.install(engine.prepare(AlignParameters(**{**vars(engine.in_force.parameters), "patience": 1.0})))
    assert warm_frames(engine, world) == 1


def test_the_direction_of_gravity_belongs_to_the_evidence(engine, world):
    HeldBackbone.go_on.set()
    up = np.array([0.0, -3.0, -4.0])
    found = engine.process(SensorFrame(ImageInput(world.pictures[0]), up=up))
    np.testing.assert_allclose(found[0].result.evidence.up, [0, -0.6, -0.8])


def test_the_size_of_the_category_gives_metres_where_its_model_holds_one(engine, world, tmp_path):
    parameters = vars(engine.in_force.parameters) | {"category_size": True}
    with pytest.raises(InputError, match="holds no size; give the diameter"):
        engine.prepare(AlignParameters(**parameters))
    model = replace(load_model(world.model_path), diameter_metres=torch.tensor([0.31, 0.02]))
    save_model(model, tmp_path / "chair.safetensors")
    engine.install(engine.prepare(AlignParameters(**{**parameters, "category": str(tmp_path / "chair.safetensors")})))
    HeldBackbone.go_on.set()
    alignment = engine.process(SensorFrame(ImageInput(world.pictures[0])))[0].result.alignment
    assert alignment.scale_kind == "metric"
    points = alignment.keypoints_3d[alignment.keypoints_3d.isfinite().all(1)]
    assert 0.8 * 0.31 < torch.cdist(points, points).max() < 1.25 * 0.31  # the object's shape is its own


class Searching(MaskSource):
    """Sees nothing anywhere, and counts how often it is asked for another place and may rest."""

    searches = rests = 0

    def segment(self, image, box=None, points=None):
        return None

    def search(self, image):
        self.searches += 1
        return None

    def rest(self):
        self.rests += 1


def test_while_nothing_is_found_the_image_is_searched_once_a_second(engine, world):
    (pipeline,), source = engine.in_force.pipelines, Searching()
    pipeline.mask_source, usual = source, pipeline.aligner.config
    HeldBackbone.go_on.set()

    def searches(threshold, *times):
        pipeline.aligner.config = replace(usual, found_threshold=threshold)
        before = source.searches
        for time in times:
            engine.process(SensorFrame(ImageInput(world.pictures[0])), time)
        return source.searches - before

    never, always = 1.1, 0.0
    assert searches(never, 10.0, 10.3, 10.9, 11.1, 11.5) == 2
    assert source.rests == 2  # after each search in vain
    assert searches(always, 11.6) == 0
    assert searches(never, 11.7, 11.8) == 1  # lost: searched at once
    assert searches(never, 3.0) == 1  # a recording began again
    engine.reset()
    assert searches(never, 3.1) == 1
