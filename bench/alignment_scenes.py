"""Test images of the alignment benchmarks: rendered once into a folder, and how they are made harder.

Instances of a part are disjoint from those of training (synthetic/writer.py) and of the other part: constants are chosen on
``development``, results are reported on ``test``.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from semalign3d_core.datasets.synthetic.instances import make_instance, shows_its_turn
from semalign3d_core.datasets.synthetic.rendering import RenderConfig, Rendering, sample_rendering
from semalign3d_core.datasets.synthetic.rendering import orbit as render_orbit
from semalign3d_core.datasets.synthetic.scene import SceneConfig
from semalign3d_core.datasets.synthetic.simulated_features import simulated_features
from semalign3d_core.datasets.synthetic.viewpoints import ViewConfig
from semalign3d_core.datasets.synthetic.writer import instance_range
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception import backbones
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageEvidence, ImageInput
from semalign3d_core.perception.look import close_up, look_at
from semalign3d_core.pipeline import align_with_looks
from semalign3d_core.runtime.files import atomic_path

PLAIN = RenderConfig(view=ViewConfig(small_rate=0, truncation_rate=0, upside_down_rate=0), scene=SceneConfig(occluder_rate=0))
# How images are drawn: whole objects of 50-85 % of the image, as in the measurements that the issue quotes; one kind of difficulty each
KINDS = {
    "plain": PLAIN,
    "truncated": replace(PLAIN, view=replace(PLAIN.view, truncation_rate=1.0)),
    "small": replace(PLAIN, view=replace(PLAIN.view, small_rate=1.0)),
    "occluded": replace(PLAIN, scene=SceneConfig(occluder_rate=1.0)),
}
PARTS = {"development": instance_range("val")[0], "test": instance_range("test")[0]}
OUTSIDE_OF_DATA_SETS = 900_000  # first instance of a part for these benchmarks; data set folders draw at random from the whole range


@dataclass(frozen=True)
class Scene:
    """Evidence with its truth.

    keypoints: (K, 2);  visible: (K,);  rotation: (3, 3);  shape: (K, 3);  size: of the visible object's box in pixels;
    rendering: what it was made of
    """

    evidence: ImageEvidence
    keypoints: torch.Tensor
    visible: torch.Tensor
    rotation: torch.Tensor
    shape: torch.Tensor
    size: float
    rendering: Rendering

    @property
    def determined(self):
        """Whether the picture tells the object's turn about its upright axis: a mug's does not while the handle is hidden."""
        return shows_its_turn(self.rendering.category, self.visible)


class SceneStore:
    """Renders scenes into ``folder`` when they are first asked for, and reads them from then on.

    backbone: whose features they have: ``sim``, the simulated ones, which are stored, or the name of a backbone that sees pictures.
    """

    def __init__(self, folder, part, backbone="sim"):
        self.folder, self.first = Path(folder) / part, PARTS[part] + OUTSIDE_OF_DATA_SETS
        self.provider = None if backbone == "sim" else backbones.create(backbone)

    def scenes(self, category, kind, count, offset=0):
        """``count`` :class:`Scene` of a category, each of an instance of its own."""
        numbers = tqdm(range(offset, offset + count), desc=f"{category}, {kind}", unit="image", leave=False, delay=2)
        return [self.seen(self._scene(category, kind, number)) for number in numbers]

    def _scene(self, category, kind, number):
        seed = self.first + 100_000 * list(KINDS).index(kind) // 10 + number
        return scene_of(*self._stored(category, f"{kind}_{number:04d}", lambda: sample_rendering(category, seed, seed, config=KINDS[kind])))

    def orbit(self, category, number, count, turns):
        """``count`` scenes of one instance on a smooth orbit."""
        names = [f"orbit_{number}_{turns}_{count}_{frame:03d}" for frame in range(count)]
        if not all(self._path(category, name).is_file() for name in names):
            instance = make_instance(category, self.first + 90_000 + number)
            for name, rendering in zip(names, render_orbit(instance, count, seed=number, config=PLAIN, turns=turns), strict=True):
                self._stored(category, name, lambda shown=rendering: shown)
        return [self.seen(scene_of(*self._stored(category, name, None))) for name in names]

    def seen(self, scene):
        """A scene with simulated features, with those of this store's backbone."""
        return replace(scene, evidence=self.with_mask(scene.evidence, scene.evidence.mask))

    def without_object(self, scene):
        """The scene's evidence with the features of a picture that its object was removed from; all else is left.

        Not removed as calibration does it (variants.py), which would be tested on what it was fitted to.
        """
        evidence = scene.evidence
        if self.provider is None:
            values = torch.from_numpy(simulated_features(scene.rendering, with_object=False))
            return replace(evidence, features=FeatureMap(values, evidence.features.grid))
        hole = cv2.dilate(evidence.mask.numpy().astype(np.uint8), np.ones((9, 9)))
        picture = cv2.inpaint(np.ascontiguousarray(evidence.image), hole, 5, cv2.INPAINT_TELEA)
        return replace(evidence, features=self._features(picture, evidence), image=picture)

    def with_mask(self, evidence, mask):
        """Evidence with another mask (or None), and the features that the backbone gives of where that is."""
        evidence = replace(evidence, mask=mask)
        return evidence if self.provider is None else replace(evidence, features=self._features(evidence.image, evidence))

    def align(self, aligner, evidence):
        """The alignment as the pipeline makes it: with a wider look where the object reaches beyond what the backbone looked at."""
        picture = ImageInput(evidence.image, name=evidence.name)
        return align_with_looks(aligner, evidence, lambda seen, window: look_at(window, picture, seen, self.provider, None))[0]

    def _features(self, picture, evidence):
        return self.provider.extract(close_up(ImageInput(picture, name=evidence.name), evidence.mask, self.provider))

    def _path(self, category, name):
        return self.folder / category / f"{name}.npz"

    def _stored(self, category, name, render):
        """The rendering and its features, from the file or from ``render()``."""
        path = self._path(category, name)
        if not path.is_file():
            rendering = render()
            with atomic_path(path) as temporary:
                np.savez(temporary, **vars(rendering), features=simulated_features(rendering).astype(np.float16))
        with np.load(path) as stored:
            values = {field.name: stored[field.name] for field in fields(Rendering)}
            features = stored["features"].astype(np.float32)
        return Rendering(**{name: value if value.ndim else value.item() for name, value in values.items()}), features


def scene_of(rendering, features=None, depth="disparity"):
    """:class:`Scene` of a rendering; features (C, cells, cells) are simulated unless given."""

    def real(values):
        return torch.from_numpy(np.asarray(values)).float()

    features = simulated_features(rendering) if features is None else features
    height, width = rendering.mask.shape
    evidence = ImageEvidence(
        features=FeatureMap(torch.from_numpy(features), SquareGrid(height, width, features.shape[-1])),
        camera=PinholeCamera.centred(1.5, height, width),
        mask=torch.from_numpy(rendering.mask),
        depth=DepthMap(torch.from_numpy(rendering.disparity if depth == "disparity" else rendering.depth), depth),
        image=rendering.image,
        name=f"{rendering.category} {rendering.instance_seed}",
    )
    box = rendering.box
    keypoints, rotation, shape = (real(values) for values in (rendering.keypoints_2d, rendering.rotation, rendering.shape))
    size = float(max(box[2] - box[0], box[3] - box[1]))
    return Scene(evidence, keypoints, torch.from_numpy(rendering.visible), rotation, shape, size, rendering)


def cropped(rendering, square, side):
    """The rendering seen through a square (left, top, side) of the picture, enlarged to ``side`` pixels (nearest neighbour)."""
    left, top, length = square
    pixel = np.floor((np.arange(side) + 0.5) * length / side).astype(int)
    rows, columns = top + pixel, left + pixel
    height, width = rendering.mask.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    place = np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)

    def cut(values, outside):
        picked = values[place]
        picked[~inside] = outside
        return picked

    return replace(
        rendering, mask=cut(rendering.mask, False), canonical=cut(rendering.canonical, np.nan), image=cut(rendering.image, 0),
        disparity=cut(rendering.disparity, np.nan), depth=cut(rendering.depth, np.nan),
    )  # fmt: skip


def with_known_focal(scene):
    """The scene with the true intrinsics."""
    height, width = scene.rendering.mask.shape
    camera = PinholeCamera.from_pixels(scene.rendering.matrix, height, width)
    return replace(scene, evidence=replace(scene.evidence, camera=camera))


def with_metric_depth(scene, noise=0.0, holes=0.0, seed=0):
    """The scene with depth in metres.

    noise: relative, per pixel;  holes: share of the pixels that a sensor did not see, or, if negative, that it saw far too near
    """
    rng = np.random.default_rng(seed)
    depth = scene.rendering.depth * (1 + noise * rng.standard_normal(scene.rendering.depth.shape)).astype(np.float32)
    blobs = cv2.GaussianBlur(rng.standard_normal(depth.shape).astype(np.float32), (0, 0), 6)
    depth[blobs > np.quantile(blobs, 1 - abs(holes))] = np.nan if holes >= 0 else 0.6 * np.nanmin(depth)
    return replace(scene, evidence=replace(scene.evidence, depth=DepthMap(torch.from_numpy(depth), "metric")))
