"""What is of another kind than asked for is refused with a sentence that says what to give."""

import numpy as np
import pytest

from semalign3d_core import load_pipeline, match
from semalign3d_core.runtime.errors import InputError

CUP = "examples/photographs/coffee.jpg"


@pytest.mark.parametrize(
    ("known", "named"),
    [
        ({"mask": np.ones((400, 600), bool)}, "mask is a ndarray; give a torch tensor"),
        ({"depth": np.ones((400, 600), np.float32)}, "depth is a ndarray; give DepthMap"),
        ({"camera": np.eye(3)}, "camera is a ndarray; give PinholeCamera"),
        ({"previous": "the result"}, "previous is a str; give the alignment"),
        ({"box": (float("nan"), 0, 10, 10)}, "the box is .*give x0, y0, x1, y1"),
    ],
)
def test_what_is_known_of_an_image_has_its_kind(known, named):
    with pytest.raises(InputError, match=named):
        load_pipeline("mug").process(np.zeros((400, 600, 3), np.uint8), **known)


def test_boxes_of_a_match_are_two():
    with pytest.raises(InputError, match="give two, one of each image"):
        match(CUP, CUP, [[300, 22]], boxes=(172, 18, 408, 308))
