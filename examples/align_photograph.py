"""Named keypoints of a mug in a photograph, in pixels and in 3D.

python examples/align_photograph.py [IMAGE] [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

from semalign3d_core import load_pipeline

PHOTOGRAPH = Path(__file__).parent / "photographs" / "coffee.jpg"
CUP = (172, 18, 408, 308)  # where a detector saw it; leave it out and the mug is searched for


def main(image: Path = PHOTOGRAPH, output: Path = Path("out")) -> None:
    result = load_pipeline("mug").process(image, box=CUP if image == PHOTOGRAPH else None)
    print(result)
    for keypoint in result.to_dict()["keypoints"]:
        print(f"{keypoint['name']:14s} pixel {keypoint['pixel']}  confidence {keypoint['confidence']:.2f}")
    result.draw(output / "mug.png")
    result.to_glb(output / "mug.glb")  # opens in Blender, in a browser, on a phone


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
