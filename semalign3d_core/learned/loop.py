"""The training loop that all trained systems share: resumable at any moment, with its curves in a page.

A run owns a folder: ``checkpoint.safetensors`` (where it goes on), ``best.safetensors`` (of the best validation), ``losses.jsonl``
(every step's losses and every validation) and ``training.html``. The files are written atomically; only ``losses.jsonl`` grows, and what
a killed run wrote into it after its last checkpoint is dropped when the run goes on.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import fitting, reading, write_text
from semalign3d_core.runtime.tensors import read_tensors, write_tensors

SHOW_EVERY = 10  # steps; reading a loss waits for the device
CURVE_POINTS = 400  # of a loss curve; more steps are averaged


@dataclass
class Training:
    """What a training consists of.

    modules:   saved and restored under these names, buffers included
    optimiser: its state is saved and restored; learning rates are the business of ``step``
    step:      performs optimisation step number n (0, 1, ...): draws, forward, backward, optimiser, learning rate; returns named
               losses. Its randomness depends on (seed, n) alone, so that a resumed run is bit-equal to an uninterrupted one.
    validate:  {name: score}; the first score is the one that "best" is about, larger is better. It leaves the modules as it found them.
    pictures:  {caption: (h, w, 3) uint8 RGB} for the page
    settings:  what the run depends on (JSON); a checkpoint that was made with others is refused
    """

    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer
    step: Callable[[int], dict[str, Tensor]]
    validate: Callable[[], dict[str, float]] | None = None
    pictures: Callable[[], dict[str, np.ndarray]] | None = None
    settings: dict | None = None


def train(
    training: Training, folder: Path, steps: int, checkpoint_every: int, validate_every: int = 0, title: str = "", quiet: bool = False
) -> None:
    """Trains up to ``steps`` steps, going on from ``folder`` where an earlier run stopped; see the module's docstring for the files.

    Checkpoints every ``checkpoint_every`` steps and after every validation, and validates every ``validate_every`` (0: never); both
    after the last step, too.
    In a process group (torchrun) every process trains and the first one writes. Raises :class:`FileFormatError` if the checkpoint is
    broken or that of another training, :class:`InputError` if it was made with other settings.
    """
    if steps < 1 or checkpoint_every < 1 or validate_every < 0:
        raise InputError(f"training needs steps and checkpoint_every above 0, found {steps} and {checkpoint_every}")
    folder, writes = Path(folder), not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    first = load_checkpoint(folder / "checkpoint.safetensors", training)
    journal = _Journal(folder / "losses.jsonl", first, writes)
    with tqdm(total=steps, initial=first, desc=title or folder.name, disable=quiet or not writes or None) as bar:
        for step in range(first, steps):
            journal.add(step, training.step(step))
            done, last = step + 1, step + 1 == steps
            if step % SHOW_EVERY == 0:
                bar.set_postfix(journal.flush())
            bar.update()
            keeps = last or done % checkpoint_every == 0
            if training.validate and validate_every and (last or done % validate_every == 0):
                keeps, scores = True, training.validate()  # a validation costs more than a checkpoint
                if journal.validated(done, scores):
                    _save(folder / "best.safetensors", training, done, writes, scores)
            if keeps:
                journal.flush()
                _save(folder / "checkpoint.safetensors", training, done, writes)
                _write_page(folder, journal, training, title, writes)


def is_started(folder: Path) -> bool:
    """Whether a run in that folder has a checkpoint to go on from."""
    return (Path(folder) / "checkpoint.safetensors").is_file()


def load_checkpoint(path: Path, training: Training) -> int:
    """Restores modules and optimiser from ``path`` and returns the number of finished steps; 0 when there is no checkpoint yet."""
    if not Path(path).is_file():
        return 0
    header, tensors = _read(path)
    stored, wanted = fitting(header["settings"], dict, path), _settings(training)
    if stored != wanted:
        other = sorted(k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k))
        found = ", ".join(f"{k} {stored.get(k)!r} there and {wanted.get(k)!r} now" for k in other[:3])
        raise InputError(f"{path} was made with other settings ({found}); use those again, or another folder")
    try:
        for name, module in training.modules.items():
            module.load_state_dict(_part(tensors, f"module.{name}."))
        state: dict[int, dict[str, Any]] = {}
        for name, value in _part(tensors, "optimiser.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        training.optimiser.load_state_dict(training.optimiser.state_dict() | {"state": state})
    except (KeyError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a checkpoint of this training ({error}); delete it to start anew") from error
    return header["step"]


def load_module(path: Path, name: str, module: nn.Module) -> dict:
    """Restores one module from a checkpoint (``checkpoint.safetensors``, ``best.safetensors``); returns {"step": n, scores ...} of it."""
    header, tensors = _read(path)
    try:
        module.load_state_dict(_part(tensors, f"module.{name}."))
    except RuntimeError as error:
        raise FileFormatError(f"{path} does not hold this network ({error}); give a checkpoint of the same training") from error
    return {"step": header["step"], **header["scores"]}


def _read(path):
    """(header, tensors) of a checkpoint."""
    expected = "it is not a training checkpoint; delete it to start anew"
    metadata, tensors = read_tensors(path, expected)
    with reading(path, expected):
        header = json.loads(metadata["training"])
        return {"step": int(header["step"]), "scores": dict(header["scores"]), "settings": header["settings"]}, tensors


def _save(path, training, step, writes, scores=None):
    if not writes:
        return
    tensors = {f"module.{m}.{k}": v for m, module in training.modules.items() for k, v in module.state_dict().items()}
    for index, state in training.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    header = {"step": step, "scores": scores or {}, "settings": _settings(training)}
    metadata = {"training": json.dumps(header)}  # one entry, because the order of several changes
    # copies, because tied weights share their memory
    write_tensors(path, {name: value.contiguous().clone() for name, value in tensors.items()}, metadata, ours=True)


def _settings(training):
    return json.loads(json.dumps(training.settings or {}))  # tuples become lists, as they are in the file


def _part(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class _Journal:
    """``losses.jsonl``: {"step": n, loss ...} of step number n and {"step": n, "scores": {...}} of a validation after n steps."""

    def __init__(self, path, first, writes):
        self.path, self.writes, self.waiting, self.lines = path, writes, [], []
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break  # a killed run's last words
            if line["step"] < first or "scores" in line and line["step"] == first:
                self.lines.append(line)
        if writes:
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines), ours=True)

    def add(self, step: int, losses: Any) -> None:
        self.waiting.append((step, losses))

    def flush(self) -> dict[str, str]:
        """Writes what waits; returns the last losses as short text."""
        lines = [{"step": step, **{name: float(value) for name, value in losses.items()}} for step, losses in self.waiting]
        self._append(lines)
        self.waiting = []
        return {name: f"{value:.3g}" for name, value in lines[-1].items() if name != "step"} if lines else {}

    def validated(self, step: int, scores: dict[str, float]) -> bool:
        """Writes the scores; True if they are the best so far."""
        self.flush()
        key = next(iter(scores))
        before = max((earlier[key] for _, earlier in self.scores() if math.isfinite(earlier[key])), default=-math.inf)
        self._append([{"step": step, "scores": scores}])
        return scores[key] > before

    def scores(self) -> list[tuple[int, dict[str, float]]]:
        return [(line["step"], line["scores"]) for line in self.lines if "scores" in line]

    def losses(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "scores" not in line]

    def _append(self, lines):
        self.lines += lines
        if self.writes and lines:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.writelines(json.dumps(line) + "\n" for line in lines)


def _write_page(folder, journal, training, title, writes):
    """``training.html``: curves of losses and of the validation, pictures, settings."""
    if not writes:
        return
    from html import escape

    from semalign3d_core.pages.charts import line_chart
    from semalign3d_core.pages.html import note, page, section
    from semalign3d_core.pages.page import figures

    title, losses, scores = title or folder.name, journal.losses(), journal.scores()
    curves = {name: _averaged([(line["step"], line[name]) for line in losses if name in line]) for name in losses[0] if name != "step"}
    parts = [f"<h1>{escape(title)}</h1>", note(f"{losses[-1]['step'] + 1} steps.")]
    parts.append(section("Losses", line_chart(curves, "step", "loss", (0, _top(curves)))))
    if scores:
        curves = {name: [(step, values[name]) for step, values in scores if name in values] for name in scores[-1][1]}
        name = next(iter(curves))
        step, best = max(curves[name], key=lambda point: point[1])
        chart = line_chart(curves, "step", "score", (0, 100 if _top(curves) > 1 else 1))
        parts.append(section("Validation", chart + note(f"Best {escape(name)}: {best:.4g} after {step} steps.")))
    pictures = training.pictures() if training.pictures else {}
    parts.append(section("Pictures", figures(pictures, "gallery")))
    parts.append(section("Settings", f"<pre>{escape(json.dumps(_settings(training), indent=1))}</pre>" if training.settings else ""))
    write_text(folder / "training.html", page(title, "\n".join(parts)), ours=True)


def _averaged(points):
    """At most CURVE_POINTS means of neighbouring points."""
    size = math.ceil(len(points) / CURVE_POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [tuple(float(np.mean(values)) for values in zip(*group, strict=True)) for group in groups]


def _top(curves):
    """Largest finite value of the curves: the upper end of their axis."""
    return max((y for points in curves.values() for _, y in points if math.isfinite(y)), default=0) or 1
