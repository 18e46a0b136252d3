"""The GeoAware post-processor on simulated left/right-folded features: what training brings on objects that it has not seen.

    python bench/geoaware.py [--folder out/geoaware] [--categories car] [--steps 1200] [--ablation] [--semalign3d]

Renders a data set with simulated features (training, validation and test objects differ), averages their cells two by two, which
makes a training step four times cheaper, evaluates the features as they are, trains, and evaluates the trained features. A second training
starts from the first one, on more pairs of the same images and with dropout.
--ablation adds the rows of GeoAware-SC's Table 5, --semalign3d models of both features and their transfer. What is there already is kept.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

COMMAND = [sys.executable, "-m", "semalign3d_core.cli.main"]
FIRST = {"width": 128, "learning_rate": 5e-3, "dropout": 0, "validate_every": 400, "validation_pairs": 20, "checkpoint_every": 100}
SECOND = {**FIRST, "learning_rate": 3e-3, "dropout": 0.2, "validate_every": 350, "validation_pairs": 40, "steps": 700}
FEW, MANY, TEST = 200, 1500, 200  # pairs per category: of the first and the second training, and of the evaluations


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


def evaluated(folder, name, categories, backbone, method, *options):
    """{(set, alpha): PCK per image weighted by pairs} of an evaluation."""
    output = folder / name
    if not (output / "report.html").is_file():
        options = ("--method", method, "--output", output, "--gallery", 0, "--categories", *categories, *options)
        command("evaluate", "--dataset", folder / "sim", "--backbone", backbone, "--limit", TEST, *options)
    total = json.loads((output / "results.json").read_text())["all"]
    sets = {"standard": total["pck"], "geometry-aware": total["geometry_aware"]["pck"]}
    return {(name, alpha): scores["pair_weighted"] for name, pck in sets.items() for alpha, scores in pck.items()}


def train(folder, name, categories, settings, *start):
    """The spelling of the trained features."""
    network = folder / f"{name}.safetensors"
    if not network.is_file():
        options = [part for name, value in settings.items() for part in (f"--config.{name.replace('_', '-')}", value)]
        data = ("--dataset", folder / "sim", "--backbone", "precomputed:sim30", "--work", network.with_suffix(""), "--output", network)
        command("train", "geoaware", *data, "--categories", *categories, *options, *start)
    return f"geoaware:{network}"


def transferred(folder, name, categories, backbone):
    """Scores of SemAlign3D with models built of these features."""
    models = folder / f"models_{name}"
    for category in categories:
        if not (models / f"{category}.safetensors").is_file():
            providers = ("--backbone", backbone, "--depth", "precomputed", "--masks", "precomputed")
            command("build", "--dataset", folder / "sim", "--category", category, "--output", models, "--split", "trn", *providers)
    options = ("--models", models, "--depth", "precomputed", "--masks", "precomputed")
    return evaluated(folder, f"semalign3d_{name}", categories, backbone, "semalign3d", *options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/geoaware"))
    parser.add_argument("--categories", nargs="+", default=["car"])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--semalign3d", action="store_true")
    options = parser.parse_args()
    folder, categories = options.folder.absolute(), options.categories
    folder.mkdir(parents=True, exist_ok=True)
    name = "_".join(categories)
    if not (folder / f"{name}.safetensors").is_file():
        make_data(folder, categories, FEW)
    raw = "precomputed:sim30"
    rows = {
        "features, arg-max": evaluated(folder, "zero_argmax", categories, raw, "nearest_neighbour"),
        "features, window": evaluated(folder, "zero_window", categories, raw, "window_soft_argmax", "--window", 3),
    }
    first = train(folder, name, categories, {**FIRST, "steps": options.steps})
    if not (folder / f"{name}2.safetensors").is_file():
        make_data(folder, categories, MANY)
    trained = train(folder, f"{name}2", categories, SECOND, "--initial", folder / f"{name}.safetensors")
    for what, features in (("trained", first), ("trained further", trained)):
        place = what.replace(" ", "_")
        rows[f"{what}, arg-max"] = evaluated(folder, f"{place}_argmax", categories, features, "nearest_neighbour")
        rows[f"{what}, window"] = evaluated(folder, f"{place}_window", categories, features, "window_soft_argmax", "--window", 3)
    if options.semalign3d:
        rows["SemAlign3D, features"] = transferred(folder, "raw", categories, raw)
        rows["SemAlign3D, trained"] = transferred(folder, "trained", categories, trained)
    columns = list(next(iter(rows.values())))
    print(f"{'PCK per image, weighted by pairs':34s}" + "".join(f"{f'{kind} @{alpha}':>23s}" for kind, alpha in columns))
    for name, scores in rows.items():
        print(f"{name:34s}" + "".join(f"{scores[column]:23.1f}" for column in columns))
    if options.ablation:
        (folder / "training.yaml").write_text("".join(f"{k}: {v}\n" for k, v in {**FIRST, "steps": options.steps}.items()))
        arguments = ["--dataset", folder / "sim", "--backbone", raw, "--categories", *categories, "--gallery", 0, "--limit", TEST]
        arguments += ["--method", "window_soft_argmax", "--window", 3, "--output", folder / "ablation"]
        command("evaluate", *arguments, "--training-ablation", "--training", folder / "training.yaml")


if __name__ == "__main__":
    main()
