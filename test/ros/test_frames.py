"""The slot between callbacks and worker: newest frame wins, partners by stamp, nothing waits for ever."""

import threading
import time

from semalign3d_ros.frames import KEPT, FrameSlot


def slot(**changes):
    return FrameSlot(**{"slop": 0.02, "patience": 0.2, "timeless": ("camera_info",), **changes})


def test_the_newest_image_wins_and_the_others_are_counted():
    frames = slot()
    for number in range(5):
        frames.put_image(float(number), f"image {number}")
    assert frames.take().image == "image 4"
    assert (frames.received, frames.dropped) == (5, 4)


def test_memory_is_bounded_while_nobody_takes():
    frames = slot()
    for number in range(1000):
        frames.put_image(float(number), number)
        frames.put_partner("depth", float(number), number)
    assert len(frames._images) == KEPT and len(frames._partners["depth"]) == KEPT
    assert frames.take().image == 999 and frames.dropped == 999


def test_an_image_waits_for_its_depth_and_gets_the_nearest_one():
    frames = slot(patience=30.0)
    frames.put_image(1.0, "early", ["depth"])
    frames.put_image(2.0, "late", ["depth"])
    threading.Timer(0.1, lambda: [frames.put_partner("depth", at, f"depth {at}") for at in (0.985, 1.001, 1.015)]).start()
    frame = frames.take()
    assert (frame.image, frame.partners, frame.missing) == ("early", {"depth": "depth 1.001"}, ())


def test_patience_ends_and_names_what_is_missing():
    frames = slot()
    frames.put_partner("depth", 5.0, "of another moment")
    frames.put_image(1.0, "image", ["depth", "mask"])
    begin = time.monotonic()
    frame = frames.take()
    assert (frame.image, frame.partners, set(frame.missing)) == ("image", {}, {"depth", "mask"})
    assert time.monotonic() - begin >= 0.2


def test_camera_info_belongs_to_every_image():
    frames = slot()
    frames.put_partner("camera_info", 0.0, "old")
    frames.put_partner("camera_info", 1.0, "new")
    frames.put_image(100.0, "image", ["camera_info"])
    assert frames.take().partners == {"camera_info": "new"}


def test_closing_ends_the_waiting():
    frames = slot()
    threading.Timer(0.05, frames.close).start()
    assert frames.take() is None
