"""Reading pretrained networks and checkpoint files: complete or not at all, and without running code from a file."""

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.perception.providers import first_line
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.tensors import read_checkpoint, read_tensors

# parts of a transformers model that some published checkpoints lack and that no provider here looks at
UNUSED = ("pooler.", "vision_model.head.", "logit_", "text_model.", "text_projection", "visual_projection")
# what the libraries raise for damaged files and for configurations of other models
WRONG_FILES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError)
SHOWN = 5  # names of wrong tensors in a message


def load_pretrained(kind: Any, folder: str | Path, what: str, **options: Any) -> Any:
    """The model of class ``kind`` (transformers or diffusers) in ``folder``, every tensor of it read from the files.

    what: name of such a model in messages;  options: of ``from_pretrained``.
    Raises :class:`FileFormatError` for a folder without such a model, for damaged files, and naming tensors that are missing or
    have another shape: the libraries would leave those at random values.
    """
    from safetensors import SafetensorError

    try:
        with quiet():
            model, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
    except (*WRONG_FILES, SafetensorError) as error:
        raise FileFormatError(f"{folder} holds no complete {what} ({first_line(error)}); get it again") from error
    wrong = [f"missing {name}" for name in sorted(report["missing_keys"]) if not name.startswith(UNUSED)]
    wrong += [f"misshapen {entry[0]}" for entry in sorted(report.get("mismatched_keys") or ())]
    if wrong:
        listed = ", ".join(wrong[:SHOWN]) + (f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        raise FileFormatError(f"{folder} is no complete {what}: {listed}; get it again")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' tables of missing tensors: what is wrong with a model becomes one error."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """{name: float32 tensor} of a checkpoint file (``.safetensors``, or ``torch.save`` read weights-only).

    The tensors may lie one level down, under ``model`` or ``state_dict``, as training frameworks write them.
    """
    path = Path(path)
    expected, missing = "it holds no plain tensors; download it again, or save them alone", "give the path of a downloaded checkpoint"
    state = read_tensors(path, expected, missing)[1] if path.suffix == ".safetensors" else read_checkpoint(path, expected, missing)
    if isinstance(state, dict):
        state = next((state[key] for key in ("model", "state_dict") if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FileFormatError(f"{path}: expected a dictionary of tensors (a state dict), found {type(state).__name__}")
    return {name: value.detach().float() for name, value in state.items()}
