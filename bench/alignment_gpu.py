"""Alignment on a GPU: time cold and warm, agreement with the CPU, and whether the host ever waits in between.

    python bench/alignment_gpu.py --prepare out/gpu_input.safetensors [--work out/alignment]    # anywhere, once: a few MB
    python bench/alignment_gpu.py --input out/gpu_input.safetensors [--device cuda]             # on the machine with the GPU

The input holds a category model and images of it with simulated features of 96 channels; they are brought to 768 channels here by a random
rotation, which keeps cosines. Needs torch, numpy, scipy, opencv, safetensors, pyyaml and tqdm only. With --device cpu it checks itself.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.category.storage import load_model, save_model
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageEvidence

CHANNELS = 768
REPEATS = 50
TOLERANCE = 0.5  # pixels that the median keypoint may differ between devices


def prepare(path, work, category, images):
    """Writes the input: a model and images, which bench/alignment.py rendered and built in ``work``."""
    from alignment_scenes import SceneStore

    path.parent.mkdir(parents=True, exist_ok=True)
    model = load_model(work / "models" / f"{category}.safetensors")
    save_model(model, path.with_suffix(".model.safetensors"))
    tensors = {}
    for n, scene in enumerate(SceneStore(work / "scenes", "development").scenes(category, "plain", images)):
        evidence = scene.evidence
        tensors[f"{n}.features"] = evidence.features.values.half()
        tensors[f"{n}.mask"], tensors[f"{n}.depth"] = evidence.mask.contiguous(), evidence.depth.values.contiguous()
    save_file(tensors, path, {"images": json.dumps(images)})
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, and {path.with_suffix('.model.safetensors')}")


def read(path):
    """The model and the evidence of all images, with CHANNELS channels."""
    model = load_model(path.with_suffix(".model.safetensors"))
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dictionary)
        count = json.loads(stored.metadata()["images"])
    channels = model.dense_features.shape[1]
    spread = torch.linalg.qr(torch.randn(CHANNELS, channels, generator=torch.Generator().manual_seed(0)))[0].T  # orthonormal rows
    model = replace(model, dense_features=model.dense_features @ spread, keypoint_features=model.keypoint_features @ spread)
    return model, [_evidence(tensors, n, spread) for n in range(count)]


def _evidence(tensors, n, spread):
    features = torch.einsum("cd,chw->dhw", spread, tensors[f"{n}.features"].float())
    mask, depth = tensors[f"{n}.mask"], tensors[f"{n}.depth"]
    height, width = mask.shape
    grid = SquareGrid(height, width, features.shape[-1])
    camera = PinholeCamera.centred(1.5, height, width)
    return ImageEvidence(FeatureMap(features.contiguous(), grid), camera, mask, DepthMap(depth, "disparity"), name=str(n))


def on_device(evidence, device):
    """The evidence with its features on the device, as a backbone there leaves them; mask and depth come from the host."""
    features = FeatureMap(evidence.features.values.to(device), evidence.features.grid)
    return replace(evidence, features=features)


def check_agreement(found, expected):
    """Prints and checks how far keypoints, confidence and pose differ between devices."""
    distances = torch.stack([(a.keypoints_2d - b.keypoints_2d).norm(dim=-1).nanmedian() for a, b in zip(found, expected, strict=True)])
    confidences = [abs(a.confidence - b.confidence) for a, b in zip(found, expected, strict=True)]
    print(f"agreement with the CPU: keypoints differ by {float(distances.median()):.3f} pixels (median), "
          f"{float(distances.max()):.3f} at most; confidence by {max(confidences):.3f} at most")  # fmt: skip
    if float(distances.median()) > TOLERANCE:
        raise SystemExit(f"FAILED: the median difference is above {TOLERANCE} pixels")


def check_no_waiting(aligner, evidence, previous):
    """Runs everything between the host's share and the result, where any waiting of the host is an error."""
    image = aligner.prepare(evidence)
    for state in (None, previous.tracking):
        aligner.solve(image, state)  # sets up libraries
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            aligner.solve(image, state)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    print("no synchronisation between the host's share of an image and its result, cold and warm")


def timed(call, cuda, repeats=REPEATS):
    """Median wall milliseconds of ``call`` (which ends when its result is on the host), and median milliseconds on the device."""
    wall, device = [], []
    for _ in range(repeats):
        if cuda:
            torch.cuda.synchronize()
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
        start = time.perf_counter()
        call()
        if cuda:
            last.record()
            torch.cuda.synchronize()
            device.append(first.elapsed_time(last))
        wall.append(1e3 * (time.perf_counter() - start))
    return float(np.median(wall)), float(np.median(device)) if cuda else float("nan")


def report_times(aligner, evidences, cuda):
    evidence = evidences[0]
    previous = aligner.align(evidence)
    warm = aligner.align(evidence, previous)
    if not warm.tracking.warm_frames:
        raise SystemExit("FAILED: the warm start was not accepted, so that it cannot be timed")
    image = aligner.prepare(evidence)
    print(f"{'':44s}{'wall ms':>10s}{'events ms':>11s}")
    for name, call in (
        ("cold, from evidence to result", lambda: aligner.align(evidence)),
        ("warm, from evidence to result", lambda: aligner.align(evidence, previous)),
        ("host's share (mask, boxes, upload)", lambda: aligner.prepare(evidence)),
        ("cold, from tensors to outcome on the device", lambda: aligner.solve(image)),
        ("warm, from tensors to outcome on the device", lambda: aligner.solve(image, previous.tracking)),
    ):
        wall, device = timed(call, cuda)
        print(f"{name:44s}{wall:10.2f}{device:11.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="write the input here and stop")
    parser.add_argument("--input", type=Path, default=Path("out/gpu_input.safetensors"))
    parser.add_argument("--work", type=Path, default=Path("out/alignment"), help="folder of bench/alignment.py, for --prepare")
    parser.add_argument("--category", default="chair")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare, options.work, options.category, options.images)
        return
    cuda = options.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is available; --device cpu checks the script itself")
    model, evidences = read(options.input)
    expected = [Aligner(model).align(evidence) for evidence in evidences]
    aligner = Aligner(model.to(options.device))
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if cuda else 'CPU'}, {len(evidences)} images of {model.category}, "
          f"C = {CHANNELS}, J = {len(aligner.category.points)}")  # fmt: skip
    evidences = [on_device(evidence, options.device) for evidence in evidences]
    if cuda:
        check_no_waiting(aligner, evidences[0], Aligner(model.to(options.device)).align(evidences[0]))
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    found = [aligner.align(evidence) for evidence in evidences]
    print(f"{len(evidences)} first alignments: {time.perf_counter() - start:.2f} s")
    check_agreement(found, expected)
    report_times(aligner, evidences, cuda)
    if cuda:
        print(f"peak memory of the device: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB, features of all images included")


if __name__ == "__main__":
    main()
