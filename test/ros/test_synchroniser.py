"""Images and their partners: newest frame wins, partners by stamp, and whatever a partner does, images go on. No clock but the test's."""

import threading

import pytest

from semalign3d_ros.inputs.synchroniser import TRUST, FrameSlot, Synchroniser

SLOP, PATIENCE, WORK = 0.02, 0.5, 0.1  # seconds; the worker takes 0.1 s for a frame


def synchroniser(**changes):
    partners = {"partners": ("camera_info", "depth", "mask"), "timeless": ("camera_info",)}
    return Synchroniser(**{"slop": SLOP, "patience": PATIENCE, **partners, **changes})


def play(rate, depth, seconds=12.0, advertised=lambda now: True):
    """Plays images at ``rate`` Hz and depth as ``depth(stamp)`` says: (arrival, stamp) or None.

    Returns [(time of taking, stamp of the image, stamp of its depth or None)] of a worker, and the synchroniser.
    """
    events = []
    for number in range(int(seconds * rate)):
        stamp = number / rate
        events.append((stamp, 0, "image", stamp))
        partner = depth(stamp)
        if partner is not None:
            events.append((partner[0], 1, "depth", partner[1]))
    paired, taken, free = synchroniser(), [], 0.0
    ticks = [(number * 0.005, 2, "tick", 0.0) for number in range(int(seconds / 0.005))]
    for now, _, what, stamp in sorted(events + ticks):
        if what == "image":
            paired.put_image(stamp, stamp, ["depth"] if advertised(now) else [], now)
        elif what == "depth":
            paired.put_partner("depth", stamp, stamp, now)
        if now >= free and (frame := paired.take(now)) is not None:
            taken.append((now, frame.image, frame.partners.get("depth")))
            free = now + WORK
    return taken, paired


def longest_pause(taken, since=0.0):
    times = [time for time, _, _ in taken if time >= since]
    return max(b - a for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("rate", [10, 30, 60])
class TestWhateverAPartnerDoes:
    def test_late_depth_is_waited_for(self, rate):
        taken, _ = play(rate, lambda stamp: (stamp + 0.25, stamp))
        assert len(taken) > 8 * 12 * 0.9 and all(abs(depth - image) <= SLOP for _, image, depth in taken)
        assert max(now - image for now, image, _ in taken) < 0.25 + WORK + 1 / rate + 0.02

    def test_silent_depth_is_named_and_no_longer_waited_for(self, rate):
        taken, paired = play(rate, lambda stamp: None)
        assert longest_pause(taken) < PATIENCE + WORK + 2 / rate  # never starves
        settled = [(now, image) for now, image, _ in taken if now > TRUST * PATIENCE + 1]
        assert max(now - image for now, image in settled) < WORK and len(settled) > 8 * (12 - TRUST * PATIENCE - 1) * 0.9
        assert paired.troubles(12.0)["depth"][0] == "silent"

    def test_slow_depth_gives_frames_with_depth_at_its_own_rate(self, rate):
        taken, paired = play(rate, lambda stamp: (stamp + 0.01, stamp) if round(stamp * rate) % (rate // 5) == 0 else None)
        assert sum(depth is not None for _, _, depth in taken) >= 0.9 * 5 * 12 and not paired.troubles(12.0)
        assert longest_pause(taken) < PATIENCE

    def test_unsynchronised_depth_is_named_and_no_longer_waited_for(self, rate):
        taken, paired = play(rate, lambda stamp: (stamp + 0.01, stamp + 77.7))
        assert longest_pause(taken) < PATIENCE + WORK + 2 / rate
        assert all(depth is None for _, _, depth in taken)
        assert max(now - image for now, image, _ in taken if now > TRUST * PATIENCE + 1) < WORK
        assert paired.troubles(12.0)["depth"][0] == "not synchronised" and "77.7" in paired.troubles(12.0)["depth"][1]

    def test_depth_that_is_later_than_patience_is_named(self, rate):
        taken, paired = play(rate, lambda stamp: (stamp + 0.8, stamp))
        assert longest_pause(taken) < PATIENCE + WORK + 2 / rate
        kind, text = paired.troubles(12.0)["depth"]
        assert kind == "too late" and "0.80 s" in text

    def test_depth_that_stops_and_comes_back_is_waited_for_again(self, rate):
        taken, paired = play(rate, lambda stamp: None if 3 <= stamp < 8 else (stamp + 0.1, stamp))
        assert longest_pause(taken) < PATIENCE + WORK + 2 / rate
        assert all(abs(depth - image) <= SLOP for now, image, depth in taken if now < 3 or now > 8.5)
        assert max(now - image for now, image, _ in taken if 3 + TRUST * PATIENCE + 0.5 < now < 8) < WORK
        assert not paired.troubles(12.0)

    def test_depth_whose_publisher_ends_is_not_waited_for(self, rate):
        taken, _ = play(rate, lambda stamp: (stamp + 0.1, stamp) if stamp < 4 else None, advertised=lambda now: now < 4)
        assert max(now - image for now, image, _ in taken if now > 4.5) < WORK


@pytest.mark.parametrize("rate", [0.2, 1])
def test_depth_of_a_slow_camera_is_waited_for(rate):
    taken, paired = play(rate, lambda stamp: (stamp + 0.06, stamp), seconds=60.0)
    assert len(taken) >= 60 * rate - 1 and all(depth is not None for _, _, depth in taken) and not paired.troubles(60.0)


@pytest.mark.parametrize("rate", [0.2, 1])
def test_silent_depth_of_a_slow_camera_is_named(rate):
    taken, paired = play(rate, lambda stamp: None, seconds=60.0)
    assert paired.troubles(60.0)["depth"][0] == "silent"
    assert max(now - image for now, image, _ in taken if now > 50) < WORK


def test_the_newest_image_wins_and_the_others_are_counted():
    paired = synchroniser()
    for number in range(5):
        paired.put_image(float(number), f"image {number}", [], float(number))
    assert paired.take(5.0).image == "image 4" and paired.take(5.0) is None
    assert (paired.received, paired.dropped) == (5, 4)


def test_memory_is_bounded_while_nobody_takes():
    paired = synchroniser()
    for number in range(3000):
        paired.put_image(number / 60, number, ["depth"], number / 60)
        paired.put_partner("depth", number / 60 + 100, number, number / 60)
    assert len(paired._pending) <= 60 * PATIENCE + 1 and len(paired.partners["depth"].messages) <= 60 * PATIENCE + 1


def test_an_image_that_waits_keeps_its_depth_and_the_nearest_one():
    paired = synchroniser(patience=30.0)
    paired.put_image(1.0, "image", ["depth", "mask"], 0.0)
    for at in (0.985, 1.001, 1.015):
        paired.put_partner("depth", at, f"depth {at}", 0.1)
    paired.put_partner("mask", 1.0, "mask", 25.0)
    frame = paired.take(25.0)
    assert (frame.partners, frame.missing) == ({"depth": "depth 1.001", "mask": "mask"}, ())


def test_depth_that_comes_before_its_image_belongs_to_it():
    paired = synchroniser()
    paired.put_partner("depth", 1.0, "depth", 0.0)
    paired.put_image(1.01, "image", ["depth"], 0.3)
    assert paired.take(0.3).partners == {"depth": "depth"}


def test_patience_ends_and_names_what_is_missing():
    paired = synchroniser()
    paired.put_image(1.0, "image", ["depth", "mask"], 0.0)
    assert paired.take(0.49) is None and paired.next_due() == 0.5
    frame = paired.take(0.5)
    assert (frame.image, frame.partners, set(frame.missing)) == ("image", {}, {"depth", "mask"})


def test_camera_info_belongs_to_every_image_and_is_waited_for_once():
    paired = synchroniser()
    paired.put_image(99.0, "first", ["camera_info"], 0.0)
    assert paired.take(0.1) is None
    paired.put_partner("camera_info", 0.0, "old", 0.2)
    assert paired.take(0.2).partners == {"camera_info": "old"}
    paired.put_partner("camera_info", 1.0, "new", 0.3)
    paired.put_image(100.0, "second", ["camera_info"], 90.0)
    assert paired.take(90.0).partners == {"camera_info": "new"} and not paired.troubles(90.0)


def test_camera_info_that_never_comes_is_named():
    paired = synchroniser()
    for number in range(TRUST + 2):
        paired.put_image(number / 2, "image", ["camera_info"], number / 2)
    assert paired.take(3.0).image == "image" and paired.troubles(3.0)["camera_info"][0] == "silent"


def test_a_recording_that_begins_again_goes_on():
    paired = synchroniser()
    for number, stamp in enumerate([0.0, 0.1, 0.2, 0.0, 0.1]):
        paired.put_image(stamp, number, ["depth"], number / 10)
        paired.put_partner("depth", stamp, f"depth {number}", number / 10 + 0.01)
        frame = paired.take(number / 10 + 0.02)
        assert (frame.image, frame.partners["depth"]) == (number, f"depth {number}")


def test_when_the_clock_goes_back_only_the_calibration_stays():
    paired = synchroniser()
    paired.put_partner("camera_info", 9.0, "calibration", 9.0)
    paired.put_image(9.0, "old", ["depth", "camera_info"], 9.0)
    paired.restart()
    assert paired.take(100.0) is None and paired.dropped == 1
    paired.put_image(1.0, "new", ["camera_info"], 1.0)
    frame = paired.take(1.0)
    assert frame.image == "new" and frame.partners == {"camera_info": "calibration"}


def test_a_waiting_worker_is_woken_and_released():
    slot = FrameSlot(synchroniser())
    threading.Timer(0.05, slot.put_image, (1.0, "image")).start()
    assert slot.take().image == "image"
    threading.Timer(0.05, slot.close).start()
    assert slot.take() is None


def test_a_frame_tells_which_images_were_dropped_before_it():
    paired = synchroniser()
    for number in range(4):
        paired.put_image(number, f"image {number}", (), 0.1 * number, f"header {number}")
    frame = paired.take(0.4)
    assert frame.image == "image 3"
    assert frame.skipped == (("header 0", 0.0), ("header 1", 0.1), ("header 2", 0.2))
    paired.put_image(4, "image 4", (), 0.5, "header 4")
    assert paired.take(0.5).skipped == ()
    paired.put_image(5, "image 5", (), 0.6, "header 5")
    paired.put_image(6, "image 6", (), 0.7, "header 6")
    paired.restart()
    paired.put_image(0, "image 0", (), 0.8, "header 0")
    assert paired.take(0.8).skipped == ()  # the time has gone back
