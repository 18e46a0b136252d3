"""The shared training loop: an interrupted run is the uninterrupted run, whenever and however it was stopped."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from headless_browser import BROWSER, width_on_a_telephone

from semalign3d_core.learned.loop import Training, load_checkpoint, load_module, train
from semalign3d_core.runtime.errors import FileFormatError, InputError


def toy(scores=None, settings=None, seed=0, pause=0.0):
    """A small regression with dropout and batch statistics; its randomness depends on the step alone."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    scores = iter(scores or ())

    def step(number):
        if pause:
            time.sleep(pause)
        torch.manual_seed(number)
        x = torch.randn(16, 5)
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach(), "zero": torch.zeros(())}

    def validate():
        return {"score": next(scores, float(-network[0].weight.detach().square().sum())), "other": 1.0}

    return Training({"network": network}, optimiser, step, validate, settings=settings)


def content(folder):
    """What a finished run leaves, but for the page."""
    return {name: (folder / name).read_bytes() for name in ("checkpoint.safetensors", "best.safetensors", "losses.jsonl")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(toy(), folder, 25, 4, 3, quiet=True)
    return content(folder)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 4, 7, 14, 24])
def test_resumed_run_is_bit_equal(whole, tmp_path, stop):
    stopped = toy()
    real = stopped.step

    def step(number):
        if number == stop:
            raise KeyboardInterrupt
        return real(number)

    stopped.step = step
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path, 25, 4, 3, quiet=True)
    train(toy(seed=99), tmp_path, 25, 4, 3, quiet=True)  # the weights come from the checkpoint, if there is one
    if stop < 4:  # nothing was saved yet
        assert len((tmp_path / "losses.jsonl").read_text().splitlines()) == 25 + 9
    else:
        assert content(tmp_path) == whole


def test_kill_loses_one_validation_interval_at_most(tmp_path):
    stopped = toy()
    real = stopped.step

    def step(number):
        if number == 8:
            raise KeyboardInterrupt
        return real(number)

    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(stopped, step=step), tmp_path, 25, 20, 3, quiet=True)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors", toy()) == 6


@pytest.mark.slow
def test_killed_run_goes_on(tmp_path):
    """kill -9 at a few moments: every start goes on, at the end all is as in a run of one piece."""
    folder = Path(__file__).parent
    script = (
        "import sys, torch; torch.set_num_threads(1); from test_loop import toy, train; train(toy(pause=0.004), sys.argv[1], 90, 5, 10)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
        steps = _steps(tmp_path)
        while _steps(tmp_path) < steps + 12 and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list(tmp_path.glob("*.tmp"))
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL).returncode == 0
    (tmp_path / "whole").mkdir()
    torch.set_num_threads(1)  # as in the processes: the last digits of sums depend on it
    train(toy(), tmp_path / "whole", 90, 5, 10, quiet=True)
    assert content(tmp_path) == content(tmp_path / "whole")


def _steps(folder):
    path = folder / "losses.jsonl"
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def test_best_checkpoint_is_that_of_the_best_validation(tmp_path):
    train(toy(scores=[1.0, 5.0, float("nan"), 3.0]), tmp_path, 8, 100, 2, quiet=True)
    network = toy().modules["network"]
    assert load_module(tmp_path / "best.safetensors", "network", network) == {"step": 4, "score": 5.0, "other": 1.0}
    stopped = toy()
    train(stopped, tmp_path / "four", 4, 100, quiet=True)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in stopped.modules["network"].state_dict().items())


@pytest.mark.slow
def test_page_shows_curves_pictures_and_settings(tmp_path):
    training = toy(settings={"rate": (1, 2)})
    training.pictures = lambda: {"a <picture>": np.zeros((400, 900, 3), np.uint8)}
    train(training, tmp_path, 450, 450, 90, title="toy & co", quiet=True)
    html = (tmp_path / "training.html").read_text()
    for text in ("toy &amp; co", "450 steps", "Losses", "Validation", "a &lt;picture&gt;", "data:image/jpeg", "&quot;rate&quot;"):
        assert text in html, text
    assert BROWSER is None or width_on_a_telephone(html, tmp_path) <= 420
    assert len((tmp_path / "losses.jsonl").read_text().splitlines()) == 455
    assert json.loads((tmp_path / "losses.jsonl").read_text().splitlines()[-1])["step"] == 450


def test_checkpoints_of_others_are_refused(tmp_path):
    train(toy(settings={"rate": 1}), tmp_path, 2, 1, quiet=True)
    with pytest.raises(InputError, match="rate 1 there and 2 now"):
        train(toy(settings={"rate": 2}), tmp_path, 4, 1, quiet=True)
    other = toy(settings={"rate": 1})
    other.modules["network"] = torch.nn.Linear(2, 2)
    with pytest.raises(FileFormatError, match="not a checkpoint of this training"):
        train(other, tmp_path, 4, 1, quiet=True)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"broken")
    with pytest.raises(FileFormatError, match=r"checkpoint\.safetensors"):
        train(toy(settings={"rate": 1}), tmp_path, 4, 1, quiet=True)
    with pytest.raises(InputError, match="steps"):
        train(toy(), tmp_path / "none", 0, 1, quiet=True)
