"""Views of training samples: cropped, turned, mirrored, partly covered, before other backgrounds, in other colours.

Batched, on their own device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

GREY = 0.5  # what lies beyond a picture; the backbone pads with it too


@dataclass(frozen=True)
class Augmentation:
    """How views are drawn; rates are shares of views, windows are in picture sides, angles in degrees."""

    close_rate: float = 0.0  # of views of the object's surroundings, as the backbone looks where the object's mask is known
    close_margin: tuple = (0.02, 0.25)  # of those, in object sizes
    window: tuple = (0.4, 1.15)  # of the others
    wide_rate: float = 0.7  # of windows of at least ``wide`` instead of any size
    wide: float = 0.75
    turn: float = 10.0  # standard deviation
    any_turn_rate: float = 0.08
    paste_rate: float = 0.3  # another sample's object in front
    paste_window: tuple = (1.8, 5.0)
    photograph_rate: float = 0.0  # a piece of a photograph behind the object, where there are photographs
    studio_rate: float = 0.0  # a plain, mostly light background
    texture_rate: float = 0.0  # a piece of a photograph on the object, through which its shading shows
    grey_rate: float = 0.08
    blur_rate: float = 0.3
    gamma: float = 0.0  # standard deviation of its logarithm
    jpeg_rate: float = 0.0


def views(
    samples: Any, index: torch.Tensor, side: int, cell: int, config: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws one view of each sample ``index`` (B,).

    Returns images (B, 3, side, side) in [0, 1], canonical (B, 3, side / cell, side / cell), NaN off the objects, and the
    category index of every cell (B, side / cell, side / cell), -1 for the background.
    """
    device, count = samples.labels.device, len(index)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand((count, *shape), generator=generator, device=device)

    wide = uniform(0, 1) < config.wide_rate
    window = torch.where(wide, uniform(config.wide, config.window[1]), uniform(*config.window))
    shift = uniform(-1, 1, 2) * (1 - window).abs()[:, None]
    close, margin, box = uniform(0, 1) < config.close_rate, uniform(*config.close_margin), samples.boxes[index]
    window = torch.where(close, box[:, 2] * (1 + 2 * margin), window)
    shift = torch.where(close[:, None], box[:, :2] + uniform(-1, 1, 2) * (margin * box[:, 2])[:, None], shift)
    placement = _placement(window, shift, _turn(config, uniform, generator))
    image, canonical, labels, opaque = _look(samples, index, placement, side, cell)
    image = _before_another_background(image, opaque, samples.photographs, config, uniform, generator)
    pasted = uniform(0, 1) < config.paste_rate
    window = uniform(*config.paste_window)
    shift = uniform(-1, 1, 2) * (0.9 * window[:, None])
    other = index[torch.randperm(count, generator=generator, device=device)]
    front = _look(samples, other, _placement(window, shift, _turn(config, uniform, generator)), side, cell)
    covers = (pasted[:, None, None] & (front[2] >= 0))[:, None]
    image = torch.where(pasted[:, None, None, None] & (front[3] > 0.5), front[0], image)
    canonical, labels = torch.where(covers, front[1], canonical), torch.where(covers[:, 0], front[2], labels)
    image = change_colours(_blurred(image, config, uniform), config, uniform, generator)
    return _compressed(image, uniform(0, 1) < config.jpeg_rate, uniform(25, 85)), canonical, labels


def _turn(config, uniform, generator):
    """Angle (B,) in radians of every view, and its handedness (B,), -1 for mirrored ones."""
    normal = torch.randn(uniform(0, 1).shape, generator=generator, device=generator.device) * math.radians(config.turn)
    angle = torch.where(uniform(0, 1) < config.any_turn_rate, uniform(-math.pi, math.pi), normal)
    return angle, torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)


def _placement(window, shift, turn):
    """(B, 2, 3) maps from places in the view to places in the picture, both from -1 to 1; and the handedness (B,)."""
    angle, hand = turn
    cosine, sine = angle.cos() * window, angle.sin() * window
    rows = [torch.stack([hand * cosine, -sine, shift[:, 0]], 1), torch.stack([hand * sine, cosine, shift[:, 1]], 1)]
    return torch.stack(rows, 1), hand


def _look(samples, index, placement, side, cell):
    """(image, canonical, labels) of a placed view, see :func:`views`, and (B, 1, side, side) how far every pixel is the object's."""
    transform, hand = placement
    grid = affine_grid(transform, [len(index), 3, side, side], align_corners=False)
    picture = samples.pictures[index].float() / 255 - GREY
    image = grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY
    places = samples.canonical[index].float()
    known = ~torch.isnan(places[:, :1])
    stored = torch.cat([places.nan_to_num(), known.float()], 1)
    cells = affine_grid(transform, [len(index), 4, side // cell, side // cell], align_corners=False)
    seen = grid_sample(stored, cells, mode="nearest", padding_mode="zeros", align_corners=False)
    on_object = seen[:, 3] > 0.5
    canonical = torch.where(on_object[:, None], seen[:, :3], torch.nan)
    canonical = torch.cat([canonical[:, :1] * hand[:, None, None, None], canonical[:, 1:]], 1)  # a mirror image exchanges the sides
    labels = torch.where(on_object, samples.labels[index][:, None, None], -1)
    return image, canonical, labels, grid_sample(known.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _before_another_background(image, opaque, photographs, config, uniform, generator):
    """A share of the images (B, 3, h, w) with another background where ``opaque`` (B, 1, h, w) is small, and textures on the object."""
    kind, plain = uniform(0, 1), _studio(image, uniform)
    studio = kind < config.studio_rate
    behind, replaced = plain, studio
    if len(photographs):
        replaced = kind < config.studio_rate + config.photograph_rate
        behind = torch.where(studio[:, None, None, None], plain, _pieces_of(photographs, len(image), image.shape[-1], generator))
        textured = (uniform(0, 1) < config.texture_rate)[:, None, None, None] & (opaque > 0.5)
        cloth = _pieces_of(photographs, len(image), image.shape[-1], generator)
        shading = image.mean(1, keepdim=True) / 0.5
        image = torch.where(textured, (cloth * shading).clamp(0, 1), image)
    return torch.where(replaced[:, None, None, None], opaque * image + (1 - opaque) * behind, image)


def _studio(image, uniform):
    """Plain backgrounds (B, 3, h, w), most of them nearly white, with a slight gradient."""
    light, tint = uniform(0, 1, 1, 1, 1), 0.05 * (uniform(0, 1, 3, 1, 1) - 0.5)
    level = torch.where(light < 0.7, uniform(0.85, 1.02, 1, 1, 1), uniform(0, 1, 1, 1, 1))
    slope = torch.linspace(-0.5, 0.5, image.shape[2], device=image.device)[:, None] * uniform(-0.3, 0.1, 1, 1, 1)
    return (level + tint + slope).clamp(0, 1).expand_as(image)


def _pieces_of(photographs, count, side, generator):
    """Random squares (count, 3, side, side) in [0, 1] of photographs (N, 3, H, H) uint8, of any size down to a fifth of their side."""
    device = photographs.device
    chosen = torch.randint(len(photographs), (count,), generator=generator, device=device)
    size = 0.2 + 0.8 * torch.rand(count, generator=generator, device=device)
    place = torch.zeros(count, 2, 3, device=device)
    place[:, 0, 0] = place[:, 1, 1] = size
    place[:, :, 2] = (2 * torch.rand(count, 2, generator=generator, device=device) - 1) * (1 - size)[:, None]
    grid = affine_grid(place, [count, 3, side, side], align_corners=False)
    return grid_sample(photographs[chosen].float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _compressed(images, chosen, quality):
    """Images (B, 3, h, w), the ``chosen`` (B,) as JPEG with the given quality (B,) shows them."""
    images = images.clone()
    for index in chosen.nonzero()[:, 0].tolist():
        pixels = (255 * images[index]).round().byte().permute(1, 2, 0).cpu().numpy()
        stored = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(quality[index])])[1]
        images[index] = torch.from_numpy(np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.float32) / 255).permute(2, 0, 1).to(images)
    return images


def _blurred(images, config, uniform):
    """A share of the images (B, 3, h, w), out of focus: convolved with a Gaussian of up to 1.2 pixels."""
    sigma = uniform(0.4, 1.2)[:, None]
    line = torch.exp(-0.5 * (torch.arange(-2, 3, device=images.device) / sigma) ** 2)
    line = line / line.sum(1, keepdim=True)
    kernel = (line[:, :, None] * line[:, None]).repeat_interleave(3, 0)[:, None]
    count, channels, height, width = images.shape
    flat = pad(images.reshape(1, count * channels, height, width), (2, 2, 2, 2), mode="replicate")
    blurred = conv2d(flat, kernel, groups=count * channels).reshape(images.shape)
    return torch.where((uniform(0, 1) < config.blur_rate)[:, None, None, None], blurred, images)


def change_colours(images: torch.Tensor, config: Augmentation, uniform: Callable, generator: torch.Generator) -> torch.Tensor:
    """Other brightness, contrast, tint, order of colours and noise for images (B, 3, h, w) in [0, 1]: colours carry no meaning."""
    order = torch.rand((len(images), 3), generator=generator, device=images.device).argsort(1)
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    grey = (uniform(0, 1) < config.grey_rate)[:, None, None, None]
    images = torch.where(grey, images.mean(1, keepdim=True), images)
    tint = 0.06 * torch.randn((len(images), 3), generator=generator, device=images.device) + uniform(-0.14, 0.14, 1)
    if config.gamma:
        exponent = torch.exp(config.gamma * torch.randn(len(images), generator=generator, device=images.device))
        images = images.clamp(min=1e-4) ** exponent[:, None, None, None]
    noise = torch.randn(images.shape, generator=generator, device=images.device) * uniform(0, 0.04, 1, 1, 1)
    return ((images - GREY) * uniform(0.6, 1.4, 1, 1, 1) + GREY + tint[:, :, None, None] + noise).clamp(0, 1)
