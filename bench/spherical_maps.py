"""What a sphere mapper adds: docs/spherical_maps.md, "Numbers".

    python bench/spherical_maps.py folded [--work DIR] [--steps 400] [--folding 0.7 0.85 1] [--ablation]
    python bench/spherical_maps.py folded --backbone efficientnet_lite:2 [--ablation]
    python bench/spherical_maps.py photographs --eth80 DIR [--category car] [--work DIR]
    python bench/spherical_maps.py speed

folded: renders synthetic objects with simulated features that confuse their sides, trains a mapper on masks and viewpoints of some objects
and matches others with and without it; with ``--ablation`` once more without each loss. With several shares of folding, a table for each.
photographs: trains on some objects of ETH-80 (Leibe and Schiele 2003) in SPair-71k's layout and reads the azimuth of the others off the
sphere. Its pictures come with no licence to train models that ship: what this trains is for this number alone.
speed: seconds of steps of batch 16 on kept features of 768 channels.
"""

import dataclasses
import itertools
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from safetensors.torch import save_file

from semalign3d_core.cli.main import main as semalign3d
from semalign3d_core.datasets import open_dataset
from semalign3d_core.evaluation.keypoints.kap import kap_keys
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.learned.loop import Training, train
from semalign3d_core.learned.spherical_maps.losses import LossWeights
from semalign3d_core.learned.spherical_maps.samples import SampleConfig, SampleSet, gather_samples
from semalign3d_core.learned.spherical_maps.train import SphericalTraining, Trainer, directions_of
from semalign3d_core.learned.spherical_maps.viewpoint import angle_between, fit_azimuth, read_azimuth
from semalign3d_core.perception import backbones, masks

LOSSES = tuple(field.name for field in dataclasses.fields(LossWeights))
LONG = ["--config.width", "192", "--config.schedule", "cosine", "--config.weights.orientation", "1"]
KAP_VARIANTS = kap_keys("all")  # {variant: where it stands in results}


@dataclass
class Folded:
    """Features that confuse sides, on unseen objects."""

    work: Path | None = None
    """Folder of data set, features and checkpoints, from which an interrupted run goes on; nothing means a temporary one."""
    categories: tuple[str, ...] = ("car",)
    """Categories, all of which one mapper serves."""
    train: int = 120
    """Training images per category."""
    test: int = 30
    """Test images per category, of other objects."""
    steps: int = 400
    """Training steps."""
    ablation: bool = False
    """Also train without each of the four losses."""
    long: bool = False
    """Also train a wider mapper (192) longer (2000 steps, whose learning rate falls), with three times the weight of orientation."""
    folding: tuple[float, ...] = (0.85,)
    """Shares of the simulated features that cannot tell left from right: 0 none, 1 all."""
    backbone: str = ""
    """Features of another backbone in place of the simulated ones, for example compact or efficientnet_lite:2."""


@dataclass
class Photographs:
    """Azimuth of real objects that training does not know."""

    eth80: Path
    """ETH-80 as a data set folder: masks, and azimuth_deg, zenith_deg and instance in the annotation."""
    category: str = "car"
    """car or cup."""
    backbone: str = "efficientnet_lite:2"
    """Features."""
    steps: int = 300
    """Training steps."""
    work: Path | None = None
    """Folder of features and checkpoints, from which an interrupted run goes on; nothing means a temporary one."""
    splits: int = 1
    """How many of the ten ways to leave two of five objects out."""


@dataclass
class Speed:
    """Training speed."""

    steps: int = 50
    """Steps that are timed."""
    cells: int = 32
    """Cells per side of the kept features."""


def folded(options):
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        root = work / "data"
        counts = ["--train", str(options.train), "--test", str(options.test), "--pairs", "150", "--seed", "5"]
        synth = ["synth", "--output", str(root), "--categories", *options.categories, *counts]
        for share in (None,) if options.backbone else options.folding:
            name = "" if share is None else f"sim{round(100 * share)}"
            if semalign3d([*synth, *(() if share is None else ("--features", name, "--folding", str(share)))]):
                raise SystemExit(1)
            compare(root, options.backbone or f"precomputed:{name}", options, work)


def compare(root, features, options, work):
    """Prints the scores of features alone and with the sphere of a mapper that is trained on them."""
    print(f"{features:28s} {'PCK':>14s} {'PCK-dagger':>14s} " + " ".join(f"{'KAP ' + variant:>17s}" for variant in KAP_VARIANTS))
    row = partial(_print_row, root, options, work)
    row("features alone", features, method="nearest_neighbour")
    for loss in (None, *(LOSSES if options.ablation else ())):
        without = [f"--config.weights.{loss}", "0"] if loss else []
        mapper = train_mapper(root, work / features.replace(":", "-") / f"without-{loss}", features, options, without)
        backbone = f"spherical_maps:{mapper},features={features}"
        row("with the sphere" if loss is None else f"  without {loss}", backbone)
        if loss is None:
            (work / "alone.yaml").write_text("inside: true\nshare: 1.0\n")
            row("features alone, in mask", backbone, preset=str(work / "alone.yaml"))
            row("with the sphere, in mask", backbone, preset="inside")
    if options.long:
        longer = dataclasses.replace(options, steps=2000)
        mapper = train_mapper(root, work / features.replace(":", "-") / "long", features, longer, LONG)
        backbone = f"spherical_maps:{mapper},features={features}"
        row("with the sphere, long", backbone)
        row("the same, in mask", backbone, preset="inside")


def train_mapper(root, work, features, options, more=()):
    """Trains with the public command and ``more`` of its options; returns the mapper's file."""
    output = work / "mapper.safetensors"
    command = ["train", "spherical_maps", "--dataset", str(root), "--backbone", features, "--categories", *options.categories]
    command += ["--work", str(work), "--output", str(output), "--config.steps", str(options.steps), "--config.checkpoint-every", "20"]
    command += ["--config.batch", "32", "--config.reconstructed", "24", "--config.weights.viewpoint", "1"]
    if semalign3d([*command, *more]):
        raise SystemExit(1)
    return output


def _print_row(root, options, work, label, backbone, method="spherical_maps", **more):
    """PCK, PCK-dagger and the variants of KAP at 0.1 / 0.05, per point over all categories."""
    seen = {"categories": options.categories, "backbone": backbone, "method": method, "masks": "precomputed"}
    seen |= {"kap": "all", "alpha": (0.05, 0.1), "gallery": 0}
    results = evaluate(EvaluationConfig(root, work / "out", cache=work / "cache", **seen, **more)).results["all"]
    cells = [_both(results[metric], "mean_of_categories_per_point") for metric in ("pck", "pck_dagger")]
    kap = [_both(results[key], "pooled_mean_of_categories") for key in KAP_VARIANTS.values()]
    print(f"{label:28s} {cells[0]:>14s} {cells[1]:>14s} " + " ".join(f"{cell:>17s}" for cell in kap), flush=True)


def _both(scores, aggregate):
    return f"{scores['0.1'][aggregate]:.1f} / {scores['0.05'][aggregate]:.1f}"


def photographs(options):
    every = open_dataset(options.eth80).images(options.category)
    records = [record for record in every if record.attributes["zenith_deg"] > 0]  # from right above there is no azimuth
    objects = sorted({record.attributes["instance"] for record in records})
    providers = backbones.create(options.backbone, options.eth80), masks.create("precomputed", options.eth80)
    medians = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for left_out in itertools.islice(itertools.combinations(reversed(objects), 2), options.splits):
            known, others = ([r for r in records if (r.attributes["instance"] in left_out) == wanted] for wanted in (False, True))
            errors = azimuth_errors(known, others, providers, work, options, "-".join(map(str, left_out)))
            medians.append(float(errors.median()))
            print(
                f"{options.category}s {left_out}, {len(others)} photographs: median azimuth error {medians[-1]:.1f} degrees, "
                f"{100 * (errors < 45).float().mean():.0f} % within 45, {100 * (errors > 135).float().mean():.0f} % the other way round",
                flush=True,
            )
    print(f"median over {len(medians)} splits: {torch.tensor(medians).median():.1f} degrees")


def azimuth_errors(known, others, providers, work, options, name):
    """Errors in degrees of the azimuth of photographs ``others``, read off the sphere of a mapper that ``known`` ones train."""
    exact = SampleConfig(viewpoints="degrees")
    folder = work / f"{options.category}-{options.backbone.replace(':', '-')}"
    samples, unseen = (gather_samples(r, (options.category,), *providers, folder / "samples", exact) for r in (known, others))
    config = SphericalTraining(batch=32, reconstructed=12, weights=LossWeights(viewpoint=3.0))
    trainer = Trainer(samples, 1, config)
    training = Training({"spherical_maps": trainer.model}, trainer.optimiser, trainer.step)
    train(training, folder / f"without-{name}", options.steps, 20, title=f"without {name}")
    mapper = trainer.model.sphere_mapper
    axes = fit_azimuth(directions_of(mapper, samples), samples.degrees)
    return angle_between(read_azimuth(directions_of(mapper, unseen), axes), unseen.degrees)


def speed(options):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        count, cells = 32, options.cells**2
        for index in range(count):
            tensors = {"features": torch.randn(1, cells, 768).half(), "masks": (torch.rand(1, cells) < 0.4).float()}
            save_file(tensors, Path(temporary) / f"{index}.safetensors")
        files = [(Path(temporary) / f"{index}.safetensors", 0) for index in range(count)]
        samples = SampleSet(files, [index % 18 for index in range(count)], [11.25 * index for index in range(count)])
        trainer = Trainer(samples, 18, SphericalTraining())
        for number in range(3):
            trainer.step(number)
        wall, used = time.perf_counter(), time.process_time()
        for number in range(options.steps):
            trainer.step(number)
        wall, used = time.perf_counter() - wall, time.process_time() - used
    each = f"{wall / options.steps:.2f} s and {used / options.steps:.2f} s of processor time"
    print(f"batch 16, {options.cells} x {options.cells} cells of 768 channels, {torch.get_num_threads()} threads: {each} per step")
    print(f"1000 steps: {1000 * wall / options.steps / 60:.1f} min here, {1000 * used / options.steps / 60:.1f} min of processor time")


if __name__ == "__main__":
    options = tyro.cli(Folded | Photographs | Speed, default=Folded(), description=__doc__)
    {Folded: folded, Photographs: photographs, Speed: speed}[type(options)](options)
