"""Train the embedded backbone on the synthetic categories."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from semalign3d_core.learned.compact.train import CompactTraining, save_network, train_compact
from semalign3d_core.runtime.outputs import claim
from semalign3d_core.runtime.tensors import has_entries


@dataclass
class Options:
    """Options of ``semalign3d train compact``."""

    output: Path = Path("compact.safetensors")
    """File to write; used with --backbone compact:FILE."""
    name: str = "compact"
    """Name of the features, stored in every category model that uses them; change it whenever the weights change."""
    work: Path = Path("runs/compact")
    """Folder of rendered images and checkpoints; an interrupted run goes on from there."""
    initial: Path | None = None
    """Checkpoint of an earlier run (WORK/checkpoint.safetensors) whose weights this run starts with, or file of a network (like OUTPUT)."""
    workers: int = 2
    """Processes that render."""
    device: str = "cpu"
    """Device that trains, for example cuda; the images must fit into its memory (0.4 MB each)."""
    config: CompactTraining = field(default_factory=CompactTraining)
    """Settings of the training."""


def run(options: Options) -> int:
    """Renders what is missing, trains, and writes the network."""
    claim(options.output, has_entries("name", "categories", "training"))
    resolved = dataclasses.asdict(options.config)
    folder = options.work / "samples"
    network = train_compact(options.config, folder, options.work, options.workers, options.initial, options.device)
    save_network(network, options.output, options.name, options.config)
    size = options.output.stat().st_size / 1e6
    print(f"wrote {options.output} ({size:.1f} MB) after {resolved['steps']} steps on {resolved['images']} images")
    return 0
