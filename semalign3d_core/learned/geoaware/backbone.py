"""Features through the trained GeoAware post-processor, which tells left from right.

Source: GeoAware-SC (CVPR 2024), section 3.3.
"""

import logging
from typing import Any

import torch

from semalign3d_core.learned.geoaware.network import AggregationNetwork, load_network, read_header
from semalign3d_core.perception.backbones import BACKBONES, FeatureBackbone, create
from semalign3d_core.perception.backbones.fused import FusedBackbone, to_tokens, unit_norm
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.backbones.stable_diffusion import load_diffusion
from semalign3d_core.perception.backbones.transformers_vit import load_transformer
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.providers import on_device
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import sha256_of_file


def load_geoaware(
    checkpoint: str,
    captioner: str = "",
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    base: str = "",
    dataset_root: Any = None,
) -> "GeoAwareBackbone":
    """The :class:`GeoAwareBackbone` of a checkpoint file.

    base: spelling of the backbone whose features it reads; empty: what the file says, else as published Stable Diffusion 1.5 and
    DINOv2 base, of which the other options are: captioner, ODISE's checkpoint, with which the official post-processor was trained
    (:mod:`.captioner`); revision, of Stable Diffusion; device and dtype, see :mod:`.precision`.
    """
    network = load_network(checkpoint)
    base = base or read_header(checkpoint).get("backbone", "")
    if base:
        features = create(on_device(base, BACKBONES, device or "cpu"), dataset_root)
    else:
        if not captioner:
            warning = "the official post-processor expects ODISE's captioner: add ,captioner=FILE to the backbone"
            logging.getLogger(__name__).warning(warning)
        diffusion = load_diffusion("", revision, device, dtype, captioner)
        features = FusedBackbone(diffusion, load_transformer("dinov2", "base", device=device, dtype=dtype))
    return GeoAwareBackbone(features, network, sha256_of_file(checkpoint)[:8], choose_device(device))


def raw_features(backbone: FeatureBackbone, image: ImageInput) -> FeatureMap:
    """What the post-processor reads of ``image``, as a :class:`FeatureMap` whose values are not of unit norm.

    Of Stable Diffusion and DINOv2 the levels side by side as they are (published); of other backbones features whose mean square is 1.
    """
    if isinstance(backbone, FusedBackbone):
        return FeatureMap(backbone.raw(image)[0], backbone.transformer.grid(image))
    found = backbone.extract(image)
    return FeatureMap(found.values * found.values.shape[0] ** 0.5, found.grid)


class GeoAwareBackbone(FeatureBackbone):
    """Another backbone's features through the post-processor.

    base: the backbone, its channels are those of ``network``; label: what identifies the checkpoint.
    """

    def __init__(self, base: FeatureBackbone, network: AggregationNetwork, label: str, device: Any = "cpu") -> None:
        if base.channels != sum(network.feature_dims):
            raise InputError(f"{base.name} gives {base.channels} channels, the checkpoint {label} expects {sum(network.feature_dims)}")
        self.base, self.network, self.device = base, network.to(device).eval(), device
        self.name = f"geoaware-{label}({base.name})"
        self.channels = network.width
        self.any_image, self.close_up = base.any_image, base.close_up

    @torch.no_grad()
    def extract(self, image: ImageInput) -> FeatureMap:
        """Post-processed features (width, cells, cells), unit norm; see the backbone protocol."""
        raw = raw_features(self.base, image)
        output = self.network(raw.values[None].to(self.device))
        return FeatureMap(unit_norm(to_tokens(output))[0].T.reshape(output.shape[1:]).cpu().clone(), raw.grid)
