"""The steps of the fast solver in C (``descend.c``), where the machine has a C compiler; elsewhere PyTorch takes them, with equal results.

A step is some thirty operations on small tensors. PyTorch spends its time on calling them; the C code takes a tenth of it.
"""

import ctypes
import os
import shutil
import subprocess
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from semalign3d_core.alignment.config import EnergyConfig
from semalign3d_core.alignment.gauss_newton import residuals as robust
from semalign3d_core.alignment.gauss_newton.poses import NEAREST, DeformableCloud, Poses
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.runtime.cache import user_cache
from semalign3d_core.runtime.errors import OutputError
from semalign3d_core.runtime.files import atomic_path

SOURCE = Path(__file__).with_name("descend.c")
FLAGS = ("-O2", "-ftree-vectorize", "-march=native", "-ffast-math", "-shared", "-fPIC")  # -O3 takes 1.4 times as long
MEMORY = 17  # numbers per point that a call needs
MOST_MODES = 48
enabled = True  # tests compare with PyTorch

_INTEGERS = ("dense", "points", "modes", "pixels", "cells", "side", "steps", "starts", "focal_known")
_ARRAYS = (
    "mean", "modes_of", "pixel", "pixel_log", "cell", "cell_log", "distance", "offset", "sigma", "sparse_sigma", "stiffness", "least",
    "largest",
)  # fmt: skip
_PAIRS = ("focal", "corner")
_NUMBERS = (
    "spacing", "damping", "relaxation", "nearest", "dense_weight", "sparse_weight", "background", "keypoint_background", "keypoint_limit",
    "knee", "background_scale",
)  # fmt: skip


class _Problem(ctypes.Structure):
    """``Problem`` of descend.c."""

    _fields_ = [
        *((name, ctypes.c_int) for name in _INTEGERS),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        *((name, ctypes.c_float * 2) for name in _PAIRS),
        *((name, ctypes.c_float) for name in _NUMBERS),
    ]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled steps, built at the first use and kept in the user's cache; None where that is not possible."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    try:
        processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].partition("flags")[2].partition("\n")[0]
        content = SOURCE.read_bytes() + " ".join((*FLAGS, compiler, processor)).encode()
        path = user_cache() / "native" / f"{sha256(content).hexdigest()}.so"
        if not path.is_file():
            with atomic_path(path) as temporary:
                subprocess.run([compiler, *FLAGS, SOURCE, "-lm", "-o", temporary], check=True, capture_output=True)
        return ctypes.CDLL(str(path))
    except (OSError, OutputError, subprocess.CalledProcessError):
        return None


def usable(like: Tensor, modes: int = 0) -> bool:
    """Whether C can compute with tensors ``like`` this: in single precision on the CPU, with a compiler at hand and not too many modes."""
    return enabled and like.device.type == "cpu" and like.dtype == torch.float32 and modes <= MOST_MODES and library() is not None


def descend(
    observation: Observation,
    cloud: DeformableCloud,
    poses: Poses,
    weights: EnergyConfig,
    sigmas: Tensor,
    stride: int,
    priors: tuple[Tensor, Tensor, Tensor],
    damping: float,
    relaxation: float,
) -> tuple[Poses, Tensor]:
    """As ``GaussNewtonSolver._descend``.

    priors: the solver's stiffness (5 + M,), least diagonal (D,) and largest step (D,); D = 8 + M unknowns
    """
    scale, principal, field = observation.object_scale, observation.principal, observation.field
    pixel_log = observation.pixel_log[::stride]
    if cloud.dense < pixel_log.shape[1]:
        pixel_log = pixel_log.index_select(1, cloud.dense_index)
    cells, sigmas = observation.keypoint_cells - principal, sigmas * scale
    masked = field is not None and weights.background > 0
    stiffness, least, largest = priors
    arrays = {
        "mean": cloud.mean, "modes_of": cloud.modes_of, "pixel": observation.pixels[::stride] - principal, "pixel_log": pixel_log,
        "cell": cells, "cell_log": observation.keypoint_log, "sigma": sigmas,
        "sparse_sigma": sigmas.clamp(min=robust.SPARSE_SIGMA * scale), "stiffness": stiffness, "least": least, "largest": largest,
    }  # fmt: skip
    numbers = {"focal": tuple(observation.focal.tolist()), "side": 0, "spacing": 1.0, "corner": (0.0, 0.0)}
    if field is not None and masked:
        arrays |= {"distance": field.distance, "offset": field.offset}
        corner = (principal - field.origin) / field.spacing + 0.5  # truncation then rounds
        numbers |= {"side": len(field.distance), "spacing": field.spacing, "corner": tuple(corner.tolist())}
    held = {name: value.contiguous() for name, value in arrays.items()}  # alive until the call is over
    length = float(scale)
    problem = _Problem(
        dense=cloud.dense, points=cloud.mean.shape[1], modes=cloud.parts[2], pixels=len(pixel_log), cells=cells.shape[1],
        steps=len(sigmas), starts=len(poses.rotation), focal_known=observation.focal_known, damping=damping, relaxation=relaxation,
        nearest=NEAREST, dense_weight=weights.dense, sparse_weight=weights.sparse, background=robust.BACKGROUND * weights.background,
        keypoint_background=robust.KEYPOINT_BACKGROUND * weights.background, keypoint_limit=robust.KEYPOINT_LIMIT,
        knee=robust.KNEE * length, background_scale=robust.BACKGROUND_SCALE * length, **numbers,
        **{name: value.data_ptr() for name, value in held.items()},
    )  # fmt: skip
    moved = Poses(*(values.contiguous().clone() for values in (poses.rotation, poses.parameters)))
    energies, memory = torch.empty(len(sigmas), len(moved.rotation)), torch.empty(MEMORY * cloud.mean.shape[1] + cloud.dense)
    compiled = library()
    assert compiled is not None, "ask usable() before"
    compiled.descend(ctypes.byref(problem), *(ctypes.c_void_p(t.data_ptr()) for t in (moved.rotation, moved.parameters, energies, memory)))
    return moved, energies
