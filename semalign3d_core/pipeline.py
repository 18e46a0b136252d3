"""From one image to named keypoints and correspondences: what the command line and the ROS node both run."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import numpy as np
import torch
from typing_extensions import Doc

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.result import Alignment, last_seen
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.storage import check_backbone, find_model, load_model
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.learned.spherical_maps.inference import TrainedMapper
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import (
    ChannelOrder,
    DepthMap,
    ImageEvidence,
    ImageInput,
    UserImage,
    UserImages,
    as_image,
    read_image,
    several,
)
from semalign3d_core.perception.look import Box, Window, look, look_at, window_after, window_of_small_mask
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.perception.providers import ProviderOptions, on_device
from semalign3d_core.results import FrameResult
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import read_yaml, shown
from semalign3d_core.runtime.threads import in_parallel
from semalign3d_core.transfer.aligned_image import aligned_image, category_surface
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import Lifting
from semalign3d_core.transfer.matches import Matches
from semalign3d_core.transfer.place import place_points

Up = Sequence[float] | np.ndarray
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PipelineConfig(ProviderOptions):
    """What a pipeline is made of, spelled as on the command line."""

    category: Annotated[str, Doc("category to look for: name of a model, or path of a model file")] = "bottle"
    models: Annotated[str, Doc("folder of category models; empty: only those that come with the package")] = ""
    mapper: Annotated[str, Doc("file of a sphere mapper of the model's features, whose colours the overlay then shows; empty: none")] = ""
    preset: Annotated[str, Doc("preset of the alignment, or path of a YAML file")] = "fast"
    transfer: Annotated[str, Doc("preset of the transfer of points, or path of a YAML file")] = "fast"
    demonstration: Annotated[str, Doc("YAML file with a demonstration image and named points in it; empty: none")] = ""
    diameter: Annotated[float, Doc("the object's diameter in metres, the largest distance between keypoints; 0: not known")] = 0.0
    category_size: Annotated[bool, Doc("without depth or diameter, take the category's mean diameter where its model holds it")] = False


@dataclass(frozen=True)
class Demonstration:
    """An image with named query points: ``labels`` (Q names), ``points`` (Q, 2) float32 pixels."""

    image: ImageInput
    labels: tuple[str, ...]
    points: np.ndarray


class Pipeline:
    """Providers, aligner and transfer for one category.

    model: :class:`CategoryModel`;  backbone: :class:`FeatureBackbone`, the one that the model was built with
    aligner: :class:`Aligner` of the model;  transfer: :class:`Transfer`
    depth_source, mask_source: asked where an image comes without depth or mask; may be None
    demonstration: :class:`Demonstration` or None. It is aligned once, here; ``demonstration_alignment`` tells how well that went. Its
        points whose label is the name of a keypoint of the category are that keypoint, whatever the alignment says.
    mapper: :class:`TrainedMapper` of the backbone's features, with which pictures show the object on its sphere, or None
    """

    def __init__(
        self,
        model: CategoryModel,
        backbone: FeatureBackbone,
        aligner: Aligner,
        depth_source: DepthSource | None = None,
        mask_source: MaskSource | None = None,
        demonstration: Demonstration | None = None,
        transfer: Transfer | None = None,
        mapper: TrainedMapper | None = None,
    ):
        check_backbone(model, backbone.name)
        self.model, self.backbone, self.aligner = model, backbone, aligner
        self.depth_source, self.mask_source, self.mapper = depth_source, mask_source, mapper
        self.transfer = transfer or Transfer()
        self.surface = category_surface(model)
        self.demonstration, self.demonstration_alignment, self._lifted = demonstration, None, None
        if demonstration is not None:
            shown = self.process(demonstration.image)
            self.demonstration_alignment = shown.alignment
            source = aligned_image(self.surface, shown.evidence, shown.alignment)
            known = _known_keypoints(model, demonstration.labels)
            self._lifted = Lifting(self.surface, source, demonstration.points, self.transfer, known).together

    @overload
    def process(  # type: ignore[overload-overlap]  # what is iterable may still be one image
        self,
        image: UserImage,
        camera: PinholeCamera | None = None,
        depth: DepthMap | None = None,
        mask: torch.Tensor | None = None,
        previous: Alignment | None = None,
        box: Box | None = None,
        channel_order: ChannelOrder = "rgb",
        up: Up | None = None,
        search: bool = True,
    ) -> FrameResult: ...

    @overload
    def process(
        self, image: UserImages, camera: PinholeCamera | None = None, *, channel_order: ChannelOrder = "rgb", up: Up | None = None
    ) -> list[FrameResult]: ...

    def process(
        self,
        image: UserImage | UserImages,
        camera: PinholeCamera | None = None,
        depth: DepthMap | None = None,
        mask: torch.Tensor | None = None,
        previous: Alignment | None = None,
        box: Box | None = None,
        channel_order: ChannelOrder = "rgb",
        up: Up | None = None,
        search: bool = True,
    ) -> FrameResult | list[FrameResult]:
        """Finds the category's object in an image, or in each image of a list.

        image: a path, the bytes of an image file, a Pillow image, a NumPy array (h, w, 3), a torch tensor (3, h, w), an
            :class:`ImageInput`, or a list of these (or an array (B, h, w, 3), a tensor (B, 3, h, w)). Arrays are uint8, or 0..1.
        camera, depth, mask ((h, w) bool): what is known of the image; each replaces what the source of that name would have said.
            Images of a list may share a camera; what else is known belongs to one image.
        previous: the alignment of the frame before, to start from.
        box: (x0, y0, x1, y1) in pixels, where somebody else detected the object.
        channel_order: of arrays and tensors, ``rgb`` or ``bgr`` (as OpenCV has it).
        up: (3,) the direction against gravity in the camera's frame (x right, y down, z ahead), where it is known: then the object is
            taken to stand upright, however the camera is held; without it, to be seen as in the training images.
        search: whether the mask source is asked for another place where nothing is found; it takes several times as long as a frame.
        Returns a :class:`FrameResult`, or a list of them. Raises :class:`InputError` for what is no image.

        >>> result = load_pipeline("mug").process("examples/photographs/coffee.jpg", box=(172, 18, 408, 308))
        >>> result.alignment.found, result.alignment.keypoint_names[:2]
        (True, ('rim_handle', 'rim_far'))
        """
        images = several(image)
        if images is None:
            return self._process(as_image(image, channel_order), camera, depth, mask, previous, box, up, search)  # type: ignore[arg-type]
        if any(value is not None for value in (depth, mask, previous, box)):
            raise InputError(
                "depth, mask, previous and box belong to one image; process_batch takes a box of each, process the others alone"
            )
        return self.process_batch(images, camera, None, channel_order, up)

    def process_batch(
        self,
        images: UserImages,
        camera: PinholeCamera | None = None,
        boxes: Sequence[Box | None] | None = None,
        channel_order: ChannelOrder = "rgb",
        up: Up | None = None,
    ) -> list[FrameResult]:
        """The results of :meth:`process` for several images, in their order, as many at a time as there are processors.

        images, camera, channel_order, up: as of :meth:`process`; all images share what is one value
        boxes: where somebody else detected the object, one of every image, None for an image in which nobody did; None: in none
        Raises :class:`InputError` for another number of boxes than of images.
        """
        where = [None] * len(images) if boxes is None else boxes
        if len(where) != len(images):
            raise InputError(f"there are {len(images)} images and {len(where)} boxes; give one box, or None, for every image")

        def processed(number: int) -> FrameResult:
            image = as_image(images[number], channel_order, f"image {number}")  # read when it is its turn
            return self._process(image, camera, None, None, None, where[number], up)

        with closing(self.each(processed, range(len(images)))) as results:
            return list(results)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """``function(item)`` of all items in their order, for functions that process an image with this pipeline: folders, data sets.

        As many at a time as there are processors; one at a time, with all processors, where a provider has to be asked by one thread
        only. Close it (``contextlib.closing``) where you may stop before the end.
        """
        if all(provider is None or provider.concurrent for provider in (self.backbone, self.depth_source, self.mask_source)):
            yield from in_parallel(function, items)
        else:
            yield from map(function, items)

    def _process(
        self,
        image: ImageInput,
        camera: PinholeCamera | None,
        depth: DepthMap | None,
        mask: torch.Tensor | None,
        previous: Alignment | None,
        box: Box | None,
        up: Up | None = None,
        search: bool = True,
    ) -> FrameResult:
        _check_known(camera, depth, mask, previous)
        mask_source = self.mask_source if mask is None else None
        depth_source = self.depth_source if depth is None else None
        last_box = last_seen(previous, self.aligner.model_hash, max(image.height, image.width))

        def aligned(quick: bool, previous: Alignment | None, **where: Box) -> tuple[Alignment, ImageEvidence]:
            known = {"mask": mask, "last_box": last_box, "detection": box, **where}
            seen = look(image, self.backbone, depth_source, mask_source, camera, quick=quick, **known)  # type: ignore[arg-type]
            seen = replace(seen, depth=seen.depth if depth is None else depth, up=None if up is None else _unit(up))
            if not self.backbone.any_image:
                return self.aligner.align(seen, previous), seen
            return align_with_looks(self.aligner, seen, partial(self._look_at, image, mask_source), previous)

        with torch.no_grad():
            alignment, evidence = aligned(self._lifted is None, previous)  # points are carried over by what all views say
            if evidence.features.quick and (alignment.tracking is None or not alignment.tracking.warm_frames):
                alignment, evidence = aligned(False, None)  # viewpoints had to be searched: not by a quick look
            if search and not alignment.found and mask_source is not None and box is None:
                place = mask_source.search(image)
                # Around the place, and as if it were a detector's box: masks of things that touch the object reach beyond it.
                others = [] if place is None else [aligned(False, None, place=place), aligned(False, None, detection=place)]
                alignment, evidence = max([(alignment, evidence), *others], key=lambda result: result[0].confidence)
            labels = () if self._lifted is None or self.demonstration is None else self.demonstration.labels
            return FrameResult(evidence, alignment, self._place(evidence, alignment), labels)

    def with_demonstration(self, demonstration: Demonstration | None) -> "Pipeline":
        """The same pipeline with another demonstration, which is aligned now."""
        parts = self.model, self.backbone, self.aligner, self.depth_source, self.mask_source
        return Pipeline(*parts, demonstration, self.transfer, self.mapper)

    def _look_at(self, image: ImageInput, mask_source: MaskSource | None, evidence: ImageEvidence, window: Window) -> ImageEvidence:
        return look_at(window, image, evidence, self.backbone, mask_source)

    def _place(self, evidence: ImageEvidence, alignment: Alignment) -> Matches | None:
        if self._lifted is None:
            return None
        return place_points(self.surface, self._lifted, aligned_image(self.surface, evidence, alignment), self.transfer)


def align_with_looks(
    aligner: Aligner,
    evidence: ImageEvidence,
    look_again: Callable[[ImageEvidence, Window], ImageEvidence],
    previous: Alignment | None = None,
) -> tuple[Alignment, ImageEvidence]:
    """Aligns an image, and looks at a window of it where that shows more of the object, or shows it larger.

    evidence: of a look at the whole image or at the surroundings of the object's mask
    look_again: gives the evidence of another window; see :func:`~semalign3d_core.perception.look.look_at`
    Returns the more confident of up to two alignments, and the evidence that it is of.
    """
    window = window_of_small_mask(evidence)
    if window is not None:
        evidence = look_again(evidence, window)
    first = aligner.align(evidence, previous)
    window = window_after(evidence.camera.to_pixels(first.camera.project(first.cloud_3d)), first.found, evidence)
    if window is None:
        return first, evidence
    again = look_again(evidence, window)
    second = aligner.align(again)
    return (second, again) if second.confidence >= first.confidence else (first, evidence)


def _check_known(camera: Any, depth: Any, mask: Any, previous: Any) -> None:
    """Raises :class:`InputError` for values of other types than :meth:`Pipeline.process` takes: they fail far from here."""
    for name, value, kind, remedy in (
        ("camera", camera, PinholeCamera, "PinholeCamera.from_pixels(matrix, height, width)"),
        ("depth", depth, DepthMap, "DepthMap(values, kind), values a torch tensor"),
        ("mask", mask, torch.Tensor, "a torch tensor (h, w) of bool: torch.from_numpy(mask)"),
        ("previous", previous, Alignment, "the alignment of the result of the frame before"),
    ):
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name} is a {type(value).__name__}; give {remedy}")


def _unit(up: Up) -> np.ndarray:
    direction = np.asarray(up, dtype=float)
    if direction.shape != (3,) or not np.isfinite(direction).all() or not direction.any():
        raise InputError(f"up is {up}; give the direction against gravity in the camera's frame as three numbers, for example (0, -1, 0)")
    return direction / np.linalg.norm(direction)


def _known_keypoints(model: CategoryModel, labels: Sequence[str]) -> list[int]:
    """[Q] which present keypoint of the category every label names, -1 for labels of the user's own."""
    index = {name: k for k, name in enumerate(model.keypoint_names) if model.present[k]}
    return [index.get(label, -1) for label in labels]


def create_pipeline(config: PipelineConfig, dataset_root: Path | None = None, backbone: FeatureBackbone | None = None) -> Pipeline:
    """The :class:`Pipeline` that a :class:`PipelineConfig` describes; every file it names is read and checked here.

    dataset_root: data set folder whose precomputed files the providers may read;  backbone: one that is there already.
    """
    model, device = load_model(find_model(config.category, config.models or None)), choose_device(config.device)
    if backbone is None:
        backbone = backbones.create(on_device(model.backbone_spec(config.backbone), backbones.BACKBONES, device), dataset_root)
    typical = _typical_diameter(model) if config.category_size else None
    return Pipeline(
        model,
        backbone,
        Aligner(model.to(device), config.preset, config.diameter or None, typical),
        depth.create(on_device(config.depth, depth.DEPTHS, device), dataset_root),
        masks.create(on_device(config.masks, masks.MASKS, device), dataset_root, model, backbone, load_model),
        load_demonstration(config.demonstration) if config.demonstration else None,
        load_preset(Transfer, "transfer", config.transfer),
        TrainedMapper.for_pictures(config.mapper, backbone) if config.mapper else None,
    )


def _typical_diameter(model: CategoryModel) -> float:
    """The mean diameter of a category in metres; raises :class:`InputError` where its model holds none."""
    metres = float(model.diameter_metres[0])
    if not metres > 0:
        raise InputError(f"the model of {model.category!r} was built without metric depth and holds no size; give the diameter instead")
    return metres


def load_pipeline(category: str = "bottle", **options: Any) -> Pipeline:
    """The :class:`Pipeline` of a category: the name of a shipped model, or the path of a model file.

    options: further fields of :class:`PipelineConfig`, for example ``device="cpu"``.
    Raises :class:`MissingFileError` that lists the categories there are, :class:`InputError` for an option that there is not.

    >>> load_pipeline("mug").model.category
    'mug'
    """
    legal = [field.name for field in fields(PipelineConfig)]
    unknown = sorted(set(options) - set(legal))
    if unknown:
        raise InputError(f"load_pipeline has no option {unknown[0]!r}: choose one of {', '.join(legal)}")
    return create_pipeline(PipelineConfig(category=category, **options))


def load_demonstration(path: str | Path) -> Demonstration:
    """Reads a demonstration: YAML with ``image`` (a path, relative to the file) and ``points`` ({label: [x, y]}, pixels)."""
    path = Path(path)
    content = read_yaml(path, "a demonstration is a YAML file with the keys image and points")
    if not isinstance(content, dict) or set(content) != {"image", "points"} or not isinstance(content["points"], dict):
        raise FileFormatError(f"{path}: expected exactly the keys image (a path) and points (a mapping of labels to [x, y])")
    image = read_image(path.parent / str(content["image"]))
    points = [_point(path, label, value, image) for label, value in content["points"].items()]
    if not points:
        raise FileFormatError(f"{path}: points is empty; name at least one, for example  cap: [120, 80]")
    return Demonstration(image, tuple(str(label) for label in content["points"]), np.array(points, dtype=np.float32))


def _point(path: Path, label: object, value: Any, image: ImageInput) -> list[float]:
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if not numbers or not (0 <= value[0] <= image.width - 1 and 0 <= value[1] <= image.height - 1):
        size = f"{image.width} x {image.height}"
        raise FileFormatError(f"{path}: point {shown(label)!r} is {shown(value)}, expected [x, y] inside the {size} pixels of the image")
    return value
