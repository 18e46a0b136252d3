"""On what an evaluation ran, how long its images took and how much memory it needed: the record beside its scores."""

import os
import platform
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semalign3d_core.evaluation.items import ItemResult
from semalign3d_core.runtime.threads import processors


def hardware(workers: int, device: str) -> dict[str, Any]:
    """Processor, memory and GPU of this machine, and how many processes the run had (JSON)."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"processor": _processor(), "processors": processors(), "memory_gib": round(pages / 2**30, 1), "workers": workers}
    gpu = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else None
    return {**found, "device": device, "gpu": gpu, "system": platform.platform()}


def process_facts() -> tuple[int, float, float]:
    """(number of this process, MiB of memory at most, MiB on its GPU at most)."""
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() and torch.cuda.is_initialized() else 0.0
    return os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, gpu


def latency(results: Iterable[tuple[int, ItemResult]]) -> dict[str, Any]:
    """Median and 95th percentile of seconds, of (parts of the item, result) whose work was not taken from the cache; None without any."""
    seconds = [result.seconds / parts for parts, result in results if not _from_cache(result) and not result.failure]
    found = {"median_s": None, "p95_s": None} if not seconds else _percentiles(seconds)
    return {**found, "count": len(seconds)}


def memory(processes: Iterable[tuple[int, float, float]]) -> dict[str, Any]:
    """Largest resident memory of a process, and of all that worked, in MiB; of the GPU, where there is one."""
    largest: dict[int, tuple[float, float]] = {}
    for number, here, gpu in (*processes, process_facts()):
        before = largest.get(number, (0.0, 0.0))
        largest[number] = max(before[0], here), max(before[1], gpu)
    each = np.array(list(largest.values()))
    return {
        "peak_mib_of_a_process": round(float(each[:, 0].max())),
        "peak_mib_of_all_processes": round(float(each[:, 0].sum())),
        "peak_mib_of_the_gpu": round(float(each[:, 1].sum())),
    }


def _from_cache(result: ItemResult) -> bool:
    return any(name.endswith("_hits") for name in result.counts)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    median, p95 = np.percentile(seconds, [50, 95])
    return {"median_s": round(float(median), 5), "p95_s": round(float(p95), 5)}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")
