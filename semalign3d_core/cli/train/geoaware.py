"""Train the GeoAware post-processor, which makes the features of a backbone tell left from right, on annotated pairs of images.

Several GPUs: torchrun --nproc-per-node N -m semalign3d_core.cli.main train geoaware ... --device cuda
"""

from dataclasses import dataclass, field
from pathlib import Path

from semalign3d_core.learned.geoaware.train import GeoAwareTraining
from semalign3d_core.runtime.outputs import claim
from semalign3d_core.runtime.tensors import has_entries


@dataclass
class Options:
    """Options of ``semalign3d train geoaware``."""

    dataset: Path
    """Data set folder with pairs of the split trn: SPair-71k, AP-10K, PF-PASCAL, or any in their layout."""
    output: Path = Path("geoaware.safetensors")
    """File of the trained network, used with --backbone geoaware:FILE; the official layout is written beside it, as .pth."""
    backbone: str = "sd_dinov2"
    """Whose features are read, for example precomputed:NAME or efficientnet_lite:2; published is sd_dinov2,captioner=FILE."""
    masks: str = "none"
    """Mask source, for backbones that look closely at the object where its mask is known."""
    initial: Path | None = None
    """Trained network to start with, for example one that was pre-trained on AP-10K."""
    categories: tuple[str, ...] = ()
    """Categories. Default: all."""
    work: Path = Path("runs/geoaware")
    """Folder of checkpoints, losses and training.html; an interrupted training goes on from there."""
    cache: Path | None = None
    """Folder of the backbone's features, read once. Default: WORK/cache."""
    validation_split: str = "val"
    """Split that chooses the best network; of AP-10K also val_cross_species and val_cross_family."""
    kind: str | None = None
    """What the data set folder holds. Default: what it looks like."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..., or auto."""
    config: GeoAwareTraining = field(default_factory=GeoAwareTraining)
    """Settings of the training."""


def run(options: Options) -> int:
    """Trains, writes the network and returns the exit code."""
    import torch

    from semalign3d_core.evaluation.studies.training_validation import validation_on
    from semalign3d_core.learned.geoaware.network import save_network
    from semalign3d_core.learned.geoaware.train import train_geoaware

    claim(options.output, has_entries("geoaware"))
    o, validation = options, validation_on(options.validation_split)
    network = train_geoaware(
        o.dataset, o.config, o.work, o.backbone, o.masks, o.categories, o.initial, o.cache, validation, o.kind, o.device
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        save_network(network, o.output, {"backbone": o.backbone})
        print(f"wrote {o.output} and {o.output.with_suffix('.pth').name}; curves in {o.work / 'training.html'}")
    return 0
