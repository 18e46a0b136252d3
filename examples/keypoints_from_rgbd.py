"""Keypoints in metres from a colour image with registered depth and a calibrated camera.

python examples/keypoints_from_rgbd.py CATEGORY COLOUR DEPTH_PNG FX FY CX CY        (depth: 16 bit, millimetres)
"""

import sys

import numpy as np
import torch
from PIL import Image

from semalign3d_core import DepthMap, FrameResult, PinholeCamera, load_pipeline, read_image


def main(category: str, colour: str, depth: str, fx: float, fy: float, cx: float, cy: float) -> FrameResult:
    image = read_image(colour)
    metres = np.array(Image.open(depth), dtype=np.float32) / 1000
    metres[metres == 0] = np.nan  # holes of the sensor

    camera = PinholeCamera.from_pixels([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], image.height, image.width)
    result = load_pipeline(category).process(image, camera=camera, depth=DepthMap(torch.tensor(metres), "metric"))
    print(result)
    for keypoint in result.to_dict()["keypoints"]:
        print(f"{keypoint['name']:20s} x, y, z = {keypoint['position']} m")
    return result


if __name__ == "__main__":
    category, colour, depth, fx, fy, cx, cy = sys.argv[1:8]
    main(category, colour, depth, float(fx), float(fy), float(cx), float(cy))
