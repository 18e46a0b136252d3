"""From one image to named keypoints and correspondences: what the command line and the ROS node both run."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.tracking import last_seen
from semalign3d_core.alignment.zoom import align_with_wider_look, align_with_zoom, crop_extractor
from semalign3d_core.category.storage import check_backbone, find_model, load_model
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.evidence import ImageEvidence, ImageInput, gather
from semalign3d_core.perception.images import read_image
from semalign3d_core.perception.providers import on_device, sees_any_picture
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import FileFormatError, MissingFileError
from semalign3d_core.transfer.aligned_image import aligned_image, category_surface
from semalign3d_core.transfer.matches import Matches
from semalign3d_core.transfer.transfer import Transfer, lift_points, place_points


def option(default, text):
    """A field of a configuration with one line about it, for whoever lists or declares the options."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class PipelineConfig:
    """What a pipeline is made of, spelled as on the command line."""

    category: str = option("bottle", "category to look for: name of a model, or path of a model file")
    models: str = option("", "folder of category models; empty: only those that come with the package")
    backbone: str = option("compact", "feature backbone, the one that the category model was built with")
    depth: str = option("none", "depth source for images that come without a depth image")
    masks: str = option("auto", "mask source for images that come without a mask; auto: the embedded backbone's own, or similarity")
    preset: str = option("fast", "preset of the alignment, or path of a YAML file")
    transfer: str = option("fast", "preset of the transfer of points, or path of a YAML file")
    demonstration: str = option("", "YAML file with a demonstration image and named points in it; empty: none")
    device: str = option("auto", "where features are extracted and objects aligned: cpu, cuda, cuda:1; auto: a GPU where there is one")


@dataclass(frozen=True)
class Demonstration:
    """An image with named query points: ``labels`` (Q names), ``points`` (Q, 2) float32 pixels."""

    image: ImageInput
    labels: tuple
    points: np.ndarray


@dataclass(frozen=True)
class FrameResult:
    """What was found in one image; ``matches`` are the demonstration's points in it, or None without a demonstration."""

    evidence: ImageEvidence
    alignment: Alignment
    matches: Matches | None = None


class Pipeline:
    """Providers, aligner and transfer for one category.

    model: :class:`CategoryModel`; backbone, depth, segmenter: providers, the last two may be None;
    aligner: :class:`Aligner` of the model; demonstration: :class:`Demonstration` or None; transfer: :class:`Transfer`.
    The demonstration is aligned once, here; ``demonstration_alignment`` tells how well that went. Its points whose label is the name of a
    keypoint of the category are that keypoint, whatever the alignment says.
    """

    def __init__(self, model, backbone, aligner, depth=None, segmenter=None, demonstration=None, transfer=None):
        check_backbone(model, backbone.name)
        self.model, self.backbone, self.aligner, self.depth, self.segmenter = model, backbone, aligner, depth, segmenter
        self.transfer = transfer or Transfer()
        self.surface = category_surface(model)
        self.demonstration, self.demonstration_alignment, self._lifted = demonstration, None, None
        if demonstration is not None:
            shown = self.process(demonstration.image)
            self.demonstration_alignment = shown.alignment
            source = aligned_image(self.surface, shown.evidence, shown.alignment)
            known = _known_keypoints(model, demonstration.labels)
            self._lifted = lift_points(self.surface, source, demonstration.points, self.transfer, known)

    def process(self, image, camera=None, depth=None, mask=None, previous=None):
        """The :class:`FrameResult` of an :class:`ImageInput`.

        camera: a measured :class:`PinholeCamera`; depth: :class:`DepthMap`; mask: (h, w) bool tensor of the object.
        Each replaces what the provider of that name would have said. previous: :class:`Alignment` to start from.
        """
        segmenter = self.segmenter if mask is None else None
        near = last_seen(previous, max(image.height, image.width))
        evidence = gather(image, self.backbone, self.depth if depth is None else None, segmenter, camera, mask=mask, near=near)
        if depth is not None:
            evidence = replace(evidence, depth=depth)
        with torch.no_grad():
            alignment, evidence = self._align(image, evidence, segmenter, previous)
            return FrameResult(evidence, alignment, self._place(evidence, alignment))

    def _align(self, image, evidence, segmenter, previous):
        """The :class:`Alignment`, and the evidence that it is of."""
        if not sees_any_picture(self.backbone):
            return self.aligner.align(evidence, previous), evidence
        if evidence.features.grid.window is not None:  # close enough, however small the object is
            return align_with_wider_look(self.aligner, evidence, partial(self._look, image), previous)
        anew = segmenter if sees_any_picture(segmenter) else None
        return align_with_zoom(self.aligner, evidence, crop_extractor(image, self.backbone, evidence, segmenter=anew), previous), evidence

    def _look(self, image, window):
        return self.backbone.extract(replace(image, window=window))

    def _place(self, evidence, alignment):
        if self._lifted is None:
            return None
        return place_points(self.surface, self._lifted, aligned_image(self.surface, evidence, alignment), self.transfer)


def _known_keypoints(model, labels):
    """[Q] which present keypoint of the category every label names, -1 for labels of the user's own."""
    index = {name: k for k, name in enumerate(model.keypoint_names) if model.present[k]}
    return [index.get(label, -1) for label in labels]


def create_pipeline(config, dataset_root=None):
    """The :class:`Pipeline` that a :class:`PipelineConfig` describes; every file it names is read and checked here.

    dataset_root: data set folder whose precomputed files the providers may read.
    """
    model, device = load_model(find_model(config.category, config.models or None)), choose_device(config.device)
    backbone = backbones.create(on_device(config.backbone, backbones.BACKBONES, device), dataset_root)
    return Pipeline(
        model,
        backbone,
        Aligner(model.to(device), config.preset),
        depth.create(on_device(config.depth, depth.DEPTHS, device), dataset_root),
        masks.create(on_device(config.masks, masks.MASKS, device), dataset_root, model, backbone),
        load_demonstration(config.demonstration) if config.demonstration else None,
        load_preset(Transfer, "transfer", config.transfer),
    )


def load_demonstration(path):
    """Reads a demonstration: YAML with ``image`` (a path, relative to the file) and ``points`` ({label: [x, y]}, pixels)."""
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"demonstration {path} does not exist; it is a YAML file with the keys image and points")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or set(content) != {"image", "points"} or not isinstance(content["points"], dict):
        raise FileFormatError(f"{path}: expected exactly the keys image (a path) and points (a mapping of labels to [x, y])")
    image = read_image(path.parent / str(content["image"]))
    points = [_point(path, label, value, image) for label, value in content["points"].items()]
    if not points:
        raise FileFormatError(f"{path}: points is empty; name at least one, for example  cap: [120, 80]")
    return Demonstration(image, tuple(str(label) for label in content["points"]), np.array(points, dtype=np.float32))


def _point(path, label, value, image):
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if not numbers or not (0 <= value[0] <= image.width - 1 and 0 <= value[1] <= image.height - 1):
        size = f"{image.width} x {image.height}"
        raise FileFormatError(f"{path}: point {label!r} is {value!r}, expected [x, y] inside the {size} pixels of the image")
    return value
