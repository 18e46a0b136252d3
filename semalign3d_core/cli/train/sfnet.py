"""Train SFNet: dense correspondence between two objects, learned from single images with masks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from semalign3d_core.learned.sfnet.network import SFNet
from semalign3d_core.learned.sfnet.pictures import MaskedPicture
from semalign3d_core.learned.sfnet.train import SFNetTraining
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import read_text
from semalign3d_core.runtime.outputs import claim
from semalign3d_core.runtime.tensors import has_entries


@dataclass
class Options:
    """Options of ``semalign3d train sfnet``."""

    dataset: tuple[Path, ...] = tyro.MISSING
    """Folders of images with masks: Pascal VOC's layout (JPEGImages, SegmentationClass), a data set folder in our layout (JPEGImages,
    Segmentation, as semalign3d synth renders it), or images beside masks."""
    left_out: Path | None = None
    """Text or CSV file; images whose name it mentions are left out of the training (for Pascal VOC: the test list of PF-PASCAL)."""
    pictures: int | None = None
    """Number of images to train on, drawn from all. Default: all."""
    validation: Path | None = None
    """Data set folder with keypoints and pairs; the network of the epoch with the best PCK@0.1 on it is kept. Default: the last one."""
    split: str = "val"
    """Split of the validation's pairs."""
    output: Path = Path("sfnet.safetensors")
    """File to write; used with --network FILE."""
    work: Path = Path("runs/sfnet")
    """Folder of checkpoints and curves; an interrupted run goes on from there."""
    ablation: Path | None = None
    """Instead of one network train all variants of the paper's Tables 3 and 4 side by side on the same pairs, and print their
    PCK@0.1 on this data set folder (split test)."""
    device: str = "cpu"
    """Device that trains: cpu, cuda, cuda:1 or auto."""
    config: SFNetTraining = field(default_factory=SFNetTraining)
    """Settings of the training."""


def run(options: Options) -> int:
    """Trains, writes the network, and returns the exit code."""
    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.perception.backbones.precision import choose_device

    claim(options.output, has_entries("sfnet"))
    pictures, device = training_pictures(options), choose_device(options.device)
    print(f"{len(pictures)} images with masks")
    if options.ablation is not None:
        from semalign3d_core.learned.sfnet.ablation import run_ablation

        print(run_ablation(pictures, options.config, options.work, list(open_dataset(options.ablation).pairs("test")), device))
        return 0
    from semalign3d_core.learned.sfnet.storage import save_network
    from semalign3d_core.learned.sfnet.train import train_sfnet

    validate = None if options.validation is None else _validation(options.validation, options.split)
    network = train_sfnet(pictures, options.config, options.work, validate, device=device)
    save_network(network, options.output, pictures=len(pictures), folders=[str(folder) for folder in options.dataset])
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    return 0


def training_pictures(options: Options) -> list[MaskedPicture]:
    """The :class:`MaskedPicture` of all folders, or a sample of them that depends on the seed alone."""
    import re

    import numpy as np

    from semalign3d_core.learned.sfnet.pictures import masked_pictures

    left_out = frozenset() if options.left_out is None else frozenset(re.findall(r"[\w-]+", read_text(options.left_out)))
    found = [picture for folder in options.dataset for picture in masked_pictures(folder, left_out)]
    if options.pictures is None or options.pictures >= len(found):
        return found
    if options.pictures < 1:
        raise InputError(f"pictures must be at least 1, found {options.pictures}")
    chosen = np.random.default_rng(options.config.seed).permutation(len(found))[: options.pictures]
    return [found[index] for index in sorted(chosen)]


def _validation(folder: Path, split: str) -> Callable[[SFNet], float]:
    """A function(network) -> PCK@0.1 in percent on the validation pairs."""
    import numpy as np

    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.learned.sfnet.benchmark import keypoint_scores

    pairs = list(open_dataset(folder).pairs(split))
    if not pairs:
        raise InputError(f"{folder} has no pairs in the split {split}; choose another --split")
    return lambda network: 100 * float(np.nanmean(keypoint_scores(network, pairs)))
