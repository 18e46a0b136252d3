"""The ablation of the paper's Table 4 and the number-of-training-images curve on synthetic data, in one command.

    python bench/ablation.py                                   # six categories, table and plot in out/ablation/report/report.html
    python bench/ablation.py --categories chair mug --test 10  # a quick look

Renders a synthetic data set with two sets of simulated features (the second one, in place of the paper's unrefined backbone, hardly
tells left from right and is noisier), builds the models and runs ``eval_spair --ablation --other-backbone --training-images``.
"""

import argparse
import sys
from pathlib import Path

from semalign3d_core.cli.main import main as semalign3d

COUNTS = ("10", "15", "25", "50")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--categories", nargs="+", default=["bottle", "mug", "chair", "car", "aeroplane", "tvmonitor"])
    parser.add_argument("--train", type=int, default=50)
    parser.add_argument("--test", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--preset", default="fast", help="preset of the alignment: fast, or reference for the published optimiser")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("out/ablation"))
    options = parser.parse_args()
    data, models, report = (str(options.folder / name) for name in ("data", "models", "report"))
    counts = ["--train", str(options.train), "--test", str(options.test), "--pairs", str(options.pairs)]
    world = ["synth", "--output", data, "--categories", *options.categories, *counts, "--workers", str(options.workers)]
    inputs = ["--backbone", "precomputed:sim", "--depth", "precomputed", "--masks", "precomputed"]
    commands = [
        [*world, "--features", "sim"],
        [*world, "--features", "weak", "--folding", "0.97", "--feature-noise", "1.0"],
        ["build", "--dataset", data, "--category", *options.categories, *inputs, "--output", models],
        [
            *["evaluate", "--dataset", data, "--split", "test", "--categories", *options.categories, *inputs, "--models", models],
            *["--method", "semalign3d", "--preset", options.preset, "--workers", str(options.workers), "--output", report],
            *["--ablation", "--other-backbone", "precomputed:weak", "--training-images"],
            *(count for count in COUNTS if int(count) <= options.train),
        ],
    ]
    for command in commands:
        code = semalign3d(command)
        if code:
            return code
    print(f"\n{(options.folder / 'report' / 'ablation.csv').read_text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
