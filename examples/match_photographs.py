"""Points of one photograph found in another: by features alone, and through a category model.

python examples/match_photographs.py [SOURCE TARGET] [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

from semalign3d_core import match

PHOTOGRAPHS = Path(__file__).parent / "photographs"
POINTS = [[300, 22], [176, 85], [221, 303]]  # rim, rim, handle


def main(source: Path = PHOTOGRAPHS / "coffee.jpg", target: Path = PHOTOGRAPHS / "coffee_turned.jpg", output: Path = Path("out")) -> None:
    boxes = ((172, 18, 408, 308), (162, 65, 377, 326))  # of the mug in both photographs
    plain = match(source, target, POINTS, boxes=boxes)
    print(plain, plain.to_dict()["matches"])
    plain.draw(output / "matched_by_features.png")

    known = match(source, target, POINTS, category="mug", boxes=boxes)
    print(known, known.to_dict()["matches"])
    known.draw(output / "matched_by_category.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
