"""Your own category: from pictures with marked keypoints to a model that finds them in a new picture.

python examples/own_category.py DATA_FOLDER CATEGORY [OUTPUT_FOLDER]

DATA_FOLDER is what ``semalign3d import labels.json --images pictures/ --output DATA_FOLDER`` made, or ``semalign3d synth``.
"""

import sys
from pathlib import Path

from semalign3d_core import build_model, load_pipeline


def main(data: Path, category: str, output: Path = Path("out")) -> None:
    # With pretrained networks: backbone="dinov2:base", depth="depth_anything_v2:small", masks="sam2:tiny"
    model = build_model(data, category, output, split="all")
    print(model)

    picture = next((data / "JPEGImages" / category).glob("*.*"))
    result = load_pipeline(str(output / f"{category}.safetensors")).process(picture)
    print(result)
    result.draw(output / f"{category}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:]))
