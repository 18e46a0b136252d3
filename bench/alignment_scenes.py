"""Test images of the alignment benchmark, and how they are made harder."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from semalign3d_core.alignment.variants import rolled, scrambled, with_cut_mask, with_noisy_features
from semalign3d_core.camera import PinholeCamera
from semalign3d_core.datasets.synthetic.instances import make_instance
from semalign3d_core.datasets.synthetic.rendering import RenderConfig, sample_rendering
from semalign3d_core.datasets.synthetic.rendering import orbit as render_orbit
from semalign3d_core.datasets.synthetic.scene import SceneConfig
from semalign3d_core.datasets.synthetic.simulated_features import simulated_evidence
from semalign3d_core.datasets.synthetic.viewpoints import ViewConfig
from semalign3d_core.datasets.synthetic.writer import instance_range
from semalign3d_core.evidence import DepthMap, ImageEvidence

PLAIN = RenderConfig(view=ViewConfig(small_rate=0, truncation_rate=0, upside_down_rate=0), scene=SceneConfig(occluder_rate=0))


@dataclass(frozen=True)
class Scene:
    """Evidence with its truth: keypoints (K, 2), visible (K,), rotation (3, 3), shape (K, 3), size of the box in pixels, and
    where it came from (category, seed), so that it can be rendered again in another way."""

    evidence: ImageEvidence
    keypoints: torch.Tensor
    visible: torch.Tensor
    rotation: torch.Tensor
    shape: torch.Tensor
    size: float
    origin: tuple


def _scene(rendering, origin, **options):
    def real(values):
        return torch.from_numpy(np.asarray(values)).float()

    box, visible = rendering.box, torch.from_numpy(rendering.visible)
    size = float(max(box[2] - box[0], box[3] - box[1]))
    evidence = simulated_evidence(rendering, **options)
    return Scene(evidence, real(rendering.keypoints_2d), visible, real(rendering.rotation), real(rendering.shape), size, origin)


def scenes(category, count, config=PLAIN, **options):
    """``count`` images of instances that no training set holds."""
    first = instance_range("test")[0]
    return [again((category, first + n), config, **options) for n in range(count)]


def again(origin, config=PLAIN, **options):
    """The scene of the same instance and view under another rendering configuration."""
    category, seed = origin
    return _scene(sample_rendering(category, seed, seed, config=config), origin, **options)


def orbit(category, count):
    """A smooth orbit of one instance, then, after a cut, of another."""
    first = instance_range("test")[0]
    for part in range(2):
        instance = make_instance(category, first + 500 + part)
        for rendering in render_orbit(instance, count // 2, seed=part, config=PLAIN, turns=0.25):
            yield _scene(rendering, (category, instance.seed))


def impossible_evidence(tests):
    """Evidence without the object: features scrambled in blocks, or other things below the mask."""
    generator = torch.Generator().manual_seed(1)
    for number, scene in enumerate(tests):
        yield (scrambled, rolled)[number % 2](scene.evidence, generator)


def _evidence(change):
    """A case that changes the evidence; every image has its own random numbers."""
    return lambda scene, number: replace(scene, evidence=change(scene.evidence, torch.Generator().manual_seed(number)))


def _view(**changes):
    config = replace(PLAIN, view=replace(PLAIN.view, **changes))
    return lambda scene, number: again(scene.origin, config)


def _eroded(evidence, generator):
    mask = cv2.erode(evidence.mask.numpy().astype(np.uint8), np.ones((9, 9))) > 0
    return replace(evidence, mask=torch.from_numpy(mask))


def _random_depth(evidence, generator):
    values = torch.rand(evidence.depth.values.shape, generator=generator)
    return replace(evidence, depth=DepthMap(values, evidence.depth.kind))


def _known_focal(scene, number):
    rendering = sample_rendering(*scene.origin, scene.origin[1], config=PLAIN)
    height, width = rendering.mask.shape
    return replace(scene, evidence=replace(scene.evidence, camera=PinholeCamera.from_pixels(rendering.matrix, height, width)))


# name -> (scene, number) -> scene
HARD_CASES = {
    "as it is": lambda scene, number: scene,
    "truncated": _view(truncation_rate=1.0),
    "small (16-30 % of the image)": _view(small_rate=1.0),
    "35 % of the mask cut off": _evidence(with_cut_mask),
    "mask eroded by 4 pixels": _evidence(_eroded),
    "no mask": _evidence(lambda evidence, generator: replace(evidence, mask=None)),
    "features with added noise": _evidence(with_noisy_features),
    "depth is noise": _evidence(_random_depth),
    "no depth": _evidence(lambda evidence, generator: replace(evidence, depth=None)),
    "focal length known": _known_focal,
}
