"""Gathers photographs from folders into one small folder for ``semalign3d train compact --config.pictures``.

    python scripts/background_pictures.py OUTPUT FOLDER_OR_FILE...

Photographs are reduced to 480 pixels. Panoramas of high dynamic range (.exr, .hdr; twice as wide as high) are cut into 30 views each,
as a camera would expose them. Good sources under free licences: the CC0 panoramas of Debian's blender-data
(datafiles/studiolights/world), the textures of mypaint-data-extras (CC0), the nature pictures of mate-backgrounds and the wallpapers
of lomiri-wallpapers-16.04 and -20.04, and scikit-image's pictures (CC0). Leave out what shows an object of the trained categories.
"""

import os

os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"  # before OpenCV is imported

import argparse
from pathlib import Path

import cv2
import numpy as np

SIDE = 480
WIDE_RANGE = (".exr", ".hdr")


def views(panorama):
    """Cuts (230, 300, 3) uint8 of a panorama (512, 1024, 3) of linear radiance: ten directions, three heights."""
    for direction in range(10):
        turned = np.roll(panorama, -direction * panorama.shape[1] // 10, axis=1)
        for top in (40, 150, 240):
            cut = turned[top : top + 230, :300]
            yield (255 * np.clip(cut / max(np.percentile(cut, 93), 1e-3), 0, 1) ** (1 / 2.2)).astype(np.uint8)


def reduced(picture):
    """The picture with a shorter side of at most 480 pixels."""
    scale = min(1.0, SIDE / min(picture.shape[:2]))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in options.sources:
        for path in sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]:
            wide = path.suffix.lower() in WIDE_RANGE
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED if wide else cv2.IMREAD_COLOR)
            if picture is None:
                continue
            found = views(cv2.resize(picture[..., :3], (1024, 512))) if wide else [reduced(picture)]
            for number, view in enumerate(found):
                cv2.imwrite(str(options.output / f"{path.stem}_{number}.jpg"), view, [cv2.IMWRITE_JPEG_QUALITY, 92])
                count += 1
    print(f"{options.output}: {count} pictures")


if __name__ == "__main__":
    main()
