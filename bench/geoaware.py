"""The GeoAware post-processor on rendered objects that confuse left and right: what training brings on objects that it has not seen.

    python bench/geoaware.py [--folder out/geoaware] [--categories car] [--steps 1200] [--ablation] [--semalign3d]
    python bench/geoaware.py --backbone compact [--steps 900] [--semalign3d]

Renders a data set with simulated features (training, validation and test objects differ), averages their cells two by two, which
makes a training step four times cheaper, evaluates the features as they are, trains, and evaluates the trained features. A second training
starts from the first one, on more pairs of the same images and with dropout. With the features of another backbone there is one
training, on the many pairs and with dropout.
--ablation adds the rows of GeoAware-SC's Table 5 with three seeds, trained longer on the few pairs; --semalign3d models of both features
and their transfer. What is there already is kept.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

COMMAND = [sys.executable, "-m", "semalign3d_core.cli.main"]
FIRST = {"width": 128, "learning_rate": 5e-3, "dropout": 0, "validate_every": 400, "validation_pairs": 20, "checkpoint_every": 100}
FIRST["steps"] = 1200
SECOND = {**FIRST, "learning_rate": 3e-3, "dropout": 0.2, "validate_every": 350, "validation_pairs": 40, "steps": 700}
OTHER = {**SECOND, "learning_rate": 2e-3, "validate_every": 300, "steps": 900}  # of another backbone than the simulated one
ABLATION = {**FIRST, "dropout": 0.2, "steps": 2400}  # as long as regularisation needs to pay
SEEDS = (0, 1, 2)  # of the ablation
FEW, MANY = 200, 1500  # pairs per category that the first and the second training use
SIMULATED = "precomputed:sim30"


def command(*arguments):
    """Runs ``semalign3d`` with arguments."""
    subprocess.run([*COMMAND, *map(str, arguments)], check=True)


def make_data(folder, categories, pairs):
    """The data set, and its features with half the cells per side; with another number of pairs nothing is rendered again."""
    counts = ("--train", 60, "--val", 10, "--test", 30, "--pairs", pairs)
    command("synth", "--output", folder / "sim", "--features", "sim", "--categories", *categories, *counts)
    fine, coarse = folder / "sim" / "Features" / "sim", folder / "sim" / "Features" / "sim30"
    for path in fine.rglob("*.safetensors"):
        target = coarse / path.relative_to(fine)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            values = torch.nn.functional.avg_pool2d(load_file(path)["features"].float()[None], 2)[0]
            save_file({"features": values.half().contiguous()}, target)
    (coarse / "grid.json").write_text('{"padding": "bottom_right"}')


@dataclass(frozen=True)
class Study:
    """Trainings and evaluations on one base; what they write stands in ``folder``.

    data: data set folder;  backbone: the base;  window: of the soft arg-max, in cells;  limit: test pairs per category
    """

    folder: Path
    data: Path
    categories: list
    backbone: str
    window: int
    limit: int

    def evaluated(self, name, backbone, method, *options):
        """{(set, alpha): PCK per image weighted by pairs} of an evaluation."""
        output = self.folder / name
        if not (output / "report.html").is_file():
            options = ("--method", method, "--output", output, "--gallery", 0, "--categories", *self.categories, *options)
            command("evaluate", "--dataset", self.data, "--backbone", backbone, "--limit", self.limit, *options)
        total = json.loads((output / "results.json").read_text())["all"]
        sets = {"standard": total["pck"], "geometry-aware": total["geometry_aware"]["pck"]}
        return {(name, alpha): scores["pair_weighted"] for name, pck in sets.items() for alpha, scores in pck.items()}

    def matched(self, what, name, backbone):
        """{row: scores} of arg-max and window soft arg-max."""
        return {
            f"{what}, arg-max": self.evaluated(f"{name}_argmax", backbone, "nearest_neighbour"),
            f"{what}, window": self.evaluated(f"{name}_window", backbone, "window_soft_argmax", "--window", self.window),
        }

    def train(self, name, settings, *start):
        """The spelling of the trained features."""
        network = self.folder / f"{name}.safetensors"
        if not network.is_file():
            options = [part for name, value in settings.items() for part in (f"--config.{name.replace('_', '-')}", value)]
            data = ("--dataset", self.data, "--backbone", self.backbone, "--work", network.with_suffix(""), "--output", network)
            command("train", "geoaware", *data, "--categories", *self.categories, *options, *start)
        return f"geoaware:{network}"

    def transferred(self, name, backbone):
        """Scores of SemAlign3D with models built of these features."""
        models = self.folder / f"models_{name}"
        for category in self.categories:
            if not (models / f"{category}.safetensors").is_file():
                providers = ("--backbone", backbone, "--depth", "precomputed", "--masks", "precomputed")
                command("build", "--dataset", self.data, "--category", category, "--output", models, "--split", "trn", *providers)
        options = ("--models", models, "--depth", "precomputed", "--masks", "precomputed")
        return self.evaluated(f"semalign3d_{name}", backbone, "semalign3d", *options)

    def ablation(self, settings):
        """Prints the rows of Table 5, each the mean of SEEDS."""
        found = []
        for seed in SEEDS:
            output = self.folder / f"ablation_{seed}"
            if not (output / "training_ablation.csv").is_file():
                training = self.folder / f"training_{seed}.yaml"
                training.write_text("".join(f"{name}: {value}\n" for name, value in {**settings, "seed": seed}.items()))
                options = ("--method", "window_soft_argmax", "--window", self.window, "--output", output, "--gallery", 0)
                options += ("--limit", self.limit, "--categories", *self.categories, "--training-ablation", "--training", training)
                command("evaluate", "--dataset", self.data, "--backbone", self.backbone, *options)
            with open(output / "training_ablation.csv") as file:
                found.append(list(csv.DictReader(file)))
        print(f"Table 5, mean of {len(SEEDS)} seeds (deviation):")
        for rows in zip(*found, strict=True):
            values = [np.array([float(row[name]) for row in rows]) for name in ("standard", "geometry_aware")]
            cells = "".join(f"{v.mean():8.1f} ({v.std(ddof=1):.1f})" for v in values)
            print(f"{rows[0]['row']:34s}@{rows[0]['alpha']:5s}{cells}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/geoaware"))
    parser.add_argument("--categories", nargs="+", default=["car"])
    parser.add_argument("--backbone", default=SIMULATED, help="the base; default: the simulated features")
    parser.add_argument("--steps", type=int, help="of the (first) training; default: see above")
    parser.add_argument("--limit", type=int, default=200, help="test pairs per category")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--semalign3d", action="store_true")
    options = parser.parse_args()
    base, folder, name = options.backbone, options.folder.absolute(), "_".join(options.categories)
    settings, window = (FIRST, 3) if base == SIMULATED else (OTHER, 5)
    settings = settings if options.steps is None else {**settings, "steps": options.steps}
    own = folder if base == SIMULATED else folder / re.sub(r"\W+", "_", base)
    own.mkdir(parents=True, exist_ok=True)
    study = Study(own, folder / "sim", options.categories, base, window, options.limit)
    if not (own / f"{name}.safetensors").is_file():
        make_data(folder, options.categories, FEW if base == SIMULATED else MANY)
    rows = study.matched("features", "zero", base)
    trained = study.train(name, settings)
    rows |= study.matched("trained", "trained", trained)
    if base == SIMULATED:
        if not (own / f"{name}2.safetensors").is_file():
            make_data(folder, options.categories, MANY)
        trained = study.train(f"{name}2", SECOND, "--initial", own / f"{name}.safetensors")
        rows |= study.matched("trained further", "trained_further", trained)
    if options.semalign3d:
        rows["SemAlign3D, features"] = study.transferred("raw", base)
        rows["SemAlign3D, trained"] = study.transferred("trained", trained)
    columns = list(next(iter(rows.values())))
    print(f"{'PCK per image, weighted by pairs':34s}" + "".join(f"{f'{kind} @{alpha}':>23s}" for kind, alpha in columns))
    for name, scores in rows.items():
        print(f"{name:34s}" + "".join(f"{scores[column]:23.1f}" for column in columns))
    if options.ablation:
        make_data(folder, options.categories, FEW)
        study.ablation(ABLATION if base == SIMULATED else settings)


if __name__ == "__main__":
    main()
