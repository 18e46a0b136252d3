"""The pictures of README and documentation, drawn anew with the shipped weights.

    python bench/pictures.py

Writes docs/images/photograph.jpg (keypoints of the cup) and docs/images/matched.jpg (points found in another view of it).
"""

from pathlib import Path

from PIL import Image

from semalign3d_core import load_pipeline, match

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS, IMAGES = ROOT / "examples" / "photographs", ROOT / "docs" / "images"
CUP, TURNED = (172, 18, 408, 308), (162, 65, 377, 326)
POINTS = [[300, 22], [176, 85], [408, 120], [221, 303]]


def main():
    pipeline = load_pipeline("mug")
    pipeline.process(PHOTOGRAPHS / "coffee.jpg", box=CUP).draw(IMAGES / "photograph.jpg")
    found = match(PHOTOGRAPHS / "coffee.jpg", PHOTOGRAPHS / "coffee_turned.jpg", POINTS, pipeline, boxes=(CUP, TURNED))
    Image.fromarray(found.draw()).reduce(2).save(IMAGES / "matched.jpg", quality=85)
    print(found.to_dict()["matches"])


if __name__ == "__main__":
    main()
