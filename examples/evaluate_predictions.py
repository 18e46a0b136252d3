"""Score the predictions of any method, ours or not, with the protocol of a data set.

python examples/evaluate_predictions.py DATA_FOLDER [OUTPUT_FOLDER]

The method here says that a point is where it was in the other image: the worst that a published table should beat.
"""

import json
import sys
from pathlib import Path

import numpy as np

from semalign3d_core.cli.eval_spair import main as eval_spair
from semalign3d_core.datasets import open_dataset


def main(data: Path, output: Path = Path("out/evaluation")) -> float:
    output.mkdir(parents=True, exist_ok=True)
    with (output / "mine.jsonl").open("w") as file:
        for pair in open_dataset(data).pairs("test"):
            asked = np.isfinite(pair.source.keypoints).all(1) & np.isfinite(pair.target.keypoints).all(1)
            points = pair.source.keypoints[asked]  # your prediction of these points in pair.target, in the same order
            file.write(json.dumps({"pair": pair.name, "points": points.tolist()}) + "\n")

    code = eval_spair(["--dataset", str(data), "--predictions", str(output / "mine.jsonl"), "--output", str(output)])
    if code:
        raise SystemExit(code)
    results = json.loads((output / "results.json").read_text())
    return results["all"]["pck"]["0.1"]["per_point"]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
