"""Follow an object through a video: each frame starts from the one before.

python examples/video.py CATEGORY VIDEO OUTPUT.mp4
"""

import sys

import cv2

from semalign3d_core import Alignment, load_pipeline


def main(category: str, video: str, output: str) -> int:
    pipeline, capture = load_pipeline(category), cv2.VideoCapture(video)
    if not capture.isOpened():
        sys.exit(f"{video} cannot be read as a video")
    writer: cv2.VideoWriter | None = None
    previous: Alignment | None = None
    found = 0
    while True:
        there, frame = capture.read()
        if not there:
            break
        result = pipeline.process(frame, previous=previous, channel_order="bgr")  # OpenCV's order
        previous = result.alignment
        found += previous.found
        picture = result.draw()
        if writer is None:
            writer = cv2.VideoWriter(output, cv2.VideoWriter.fourcc(*"mp4v"), 10, (picture.shape[1], picture.shape[0]))
        writer.write(picture[..., ::-1].copy())
    if writer is not None:
        writer.release()
    print(f"found in {found} frames -> {output}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:4])
