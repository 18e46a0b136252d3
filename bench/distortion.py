"""Does a distorted camera give the keypoints of an undistorted one? Prints the distance in pixels per category.

    python bench/distortion.py [--k1 -0.35] [--images 10]

The same rendering is seen once through a pinhole and once through a lens with radial distortion ``k1`` (plumb_bob). The second picture
is undistorted as the node does it. Both are aligned with the shipped models; compared are the places of the visible keypoints. Beside it
stands how far the keypoints move where every pixel of the first picture changes by at most one grey level: so much is not the lens.
"""

import cv2
import numpy as np
import tyro

from semalign3d_core.datasets.synthetic import CATEGORIES
from semalign3d_core.datasets.synthetic.rendering import sample_rendering
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.distortion import LensDistortion, Undistortion
from semalign3d_core.pipeline import load_pipeline

HEIGHT, WIDTH = 480, 640


def both(category: str, instance: int, k1: float) -> tuple[np.ndarray, np.ndarray, PinholeCamera]:
    """(pinhole picture, distorted and undistorted picture, camera): (480, 640, 3) uint8, resampled once from twice the size."""
    rendering = sample_rendering(category, instance, 1, (2 * HEIGHT, 2 * WIDTH))
    large = cv2.GaussianBlur(rendering.image, (0, 0), 0.8)
    to_small = np.diag([0.5, 0.5, 1.0])
    to_small[:2, 2] = -0.25  # pixel centres are integers
    matrix = to_small @ rendering.matrix
    pixels = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).reshape(-1, 2).astype(np.float64)

    def picture(seen: np.ndarray) -> np.ndarray:
        places = (2 * seen + 0.5).astype(np.float32).reshape(HEIGHT, WIDTH, 2)
        return cv2.remap(large, places, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    camera = PinholeCamera.from_pixels(matrix, HEIGHT, WIDTH)
    lens = np.array([k1, 0.0, 0.0, 0.0])
    straight = cv2.undistortPointsIter(pixels, matrix, lens, np.eye(3), matrix, (cv2.TERM_CRITERIA_COUNT, 50, 0))[:, 0]
    distorted = picture(straight)
    return picture(pixels), Undistortion(camera, LensDistortion.of("plumb_bob", lens)).picture(distorted), camera


def main(k1: float = -0.35, images: int = 10) -> None:
    """Prints the median distance of the keypoints of a category, in pixels, and how often an object was found in one picture only.

    k1: first radial coefficient;  images: per category
    """
    rng = np.random.default_rng(0)
    for category in CATEGORIES:
        pipeline = load_pipeline(category)
        lens: list[np.ndarray] = []
        noise: list[np.ndarray] = []
        unlike = 0
        for instance in range(images):
            plain, through_lens, camera = both(category, 7000 + instance, k1)
            noisy = np.clip(plain.astype(int) + rng.integers(-1, 2, plain.shape), 0, 255).astype(np.uint8)
            one, other, third = (pipeline.process(image, camera=camera).alignment for image in (plain, through_lens, noisy))
            unlike += one.found != other.found
            for moved, distances in ((other, lens), (third, noise)):
                if one.found and moved.found:
                    distances.append((one.keypoints_2d - moved.keypoints_2d)[one.visible].norm(dim=1).numpy())
        print(
            f"{category:10s} lens {np.median(np.concatenate(lens)):.2f} px, one grey level {np.median(np.concatenate(noise)):.2f} px; "
            f"found in one of the two only: {unlike} of {images}",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
