"""Vectors of SphericalMaps about networks, losses, samples and the fused similarity."""

import numpy as np
import torch
from compare import difference, exact

from semalign3d_core.learned.spherical_maps.losses import (
    LossWeights,
    distance_loss,
    grid_positions,
    image_turns,
    orientation_loss,
    reconstruction_loss,
    viewpoint_loss,
    weighted_sum,
)
from semalign3d_core.learned.spherical_maps.network import PrototypeDecoder, SphericalMaps, sphere_mapper, sphere_points
from semalign3d_core.learned.spherical_maps.samples import mask_to_cells
from semalign3d_core.learned.spherical_maps.viewpoint import BINS, azimuth_bins, mean_directions
from semalign3d_core.matchers.spherical_maps import MEASURES, fused_similarity

MEASURE_NAMES = {"cos": "cosine", "l2": "l2", "l1": "l1", "l2norm": "l2norm"}  # as the vectors call them, as we do


def _mapper_forward(data, path):
    mapper = _with_weights(sphere_mapper(256), data, "w:sphere_mapper.")
    raw = mapper(_tensor(data, "features"))
    yield difference("raw", raw, data["raw"])
    yield difference("unit", sphere_points(raw), data["unit"])
    yield difference("sph", sphere_points(raw, _tensor(data, "mask")), data["sph"])


def _prototype_decoder(data, path):
    decoder = _with_weights(PrototypeDecoder(128, 5), data, "w:prototypes.")
    points = _tensor(data, "sph")
    condition = _tensor(data, "cond")[:, None].expand(-1, points.shape[1], -1)
    yield difference("cross_attn_first", decoder.blocks[0].attn(condition), data["cross_attn_first"])
    yield difference("out", decoder(points, condition), data["out"])


def _reconstruction_loss(data, path):
    decoder = _with_weights(PrototypeDecoder(128, 5), data, "w:prototypes.")
    points, condition = _tensor(data, "sph").requires_grad_(), _tensor(data, "cond")
    loss = reconstruction_loss(_tensor(data, "feats"), points, condition, decoder)
    yield difference("recons", decoder(points, condition[:, None].expand(-1, 24, -1)), data["recons"])
    yield difference("loss", loss, data["loss"])
    yield _gradient("grad_sph", loss, points, data["grad_sph"])


def _distance_loss(data, path):
    yield from _triplet_loss(data, lambda *a, arcs: distance_loss(*a, margin=float(data["hyper"][1]), arcs=arcs))


def _orientation_loss(data, path):
    yield from _triplet_loss(data, orientation_loss)
    rows, triplets = _triplets(data)
    turns = image_turns(_positions(data).expand(4, -1, -1), rows, triplets)
    yield difference("det", turns, data["det"])
    yield exact("n_kept", (turns.abs() > 0.7).sum(), data["n_kept"])


def _triplet_loss(data, loss_of):
    rows, triplets = _triplets(data)
    for suffix, arcs in (("", False), ("_corrected", True)):
        points = _tensor(data, "sph").requires_grad_()
        loss = loss_of(points, _positions(data), rows, triplets, arcs=arcs)
        yield difference(f"loss{suffix}", loss, data[f"loss{suffix}"])
        yield _gradient(f"grad_sph{suffix}", loss, points, data[f"grad_sph{suffix}"])
    nothing = loss_of(torch.zeros(4, 48, 3), _positions(data), rows[:0], triplets[:0], arcs=False)
    yield difference("loss_all_background", nothing, data["loss_all_background"])


def _viewpoint_loss(data, path):
    points, degrees = _tensor(data, "sph").requires_grad_(), _tensor(data, "vp") * (360 / float(data["n_bins"]))
    mean, loss = mean_directions(points), viewpoint_loss(points, degrees)
    yield difference("avg_dir", mean, data["avg_dir"])
    yield difference("corr", mean @ mean.T, data["corr"])
    yield difference("loss", loss, data["loss"])
    yield _gradient("grad_sph", loss, points, data["grad_sph"])
    yield difference("loss_one_empty", viewpoint_loss(_tensor(data, "sph_one_empty"), degrees), data["loss_one_empty"])


def _total_loss(data, path):
    model = SphericalMaps(128, 4)
    state = {name[2:]: torch.from_numpy(value) for name, value in data.items() if name.startswith("w:")}
    model.load_state_dict(state | {k.replace("blocks.0", "blocks.1"): v for k, v in state.items() if "blocks.0" in k})
    features, mask = _tensor(data, "features"), _tensor(data, "mask")
    points, positions = sphere_points(model.sphere_mapper(features), mask), grid_positions(6, 8)
    condition, rows = torch.nn.functional.one_hot(_tensor(data, "cats").long(), 4).float(), torch.arange(4)
    losses = {
        "viewpoint": viewpoint_loss(points, _tensor(data, "vp") * (360 / BINS)),
        "reconstruction": reconstruction_loss(features, points, condition, model.prototypes),
        "orientation": orientation_loss(points, positions, rows, _tensor(data, "orientation_idx").long()),
        "distance": distance_loss(points, positions, rows, _tensor(data, "distance_idx").long()),
    }
    total = weighted_sum(losses, LossWeights())
    yield difference("sph", points, data["sph"])
    for name, value in {**losses, "total": total}.items():
        yield difference(f"loss_{name}", value, data[f"loss_{name}"])
    total.backward()
    parameters = dict(model.named_parameters())
    for name in (name for name in data if name.startswith("g:")):
        yield _relative(name, parameters[name[2:]].grad, data[name])
    for name in ("q", "k"):  # no gradient at all is as good as a zero one
        gradient = parameters[f"prototypes.blocks.0.attn.{name}.weight"].grad
        yield exact(f"grad_attn_{name}_absmax", 0 if gradient is None else gradient.abs().max(), data[f"grad_attn_{name}_absmax"])


def _similarity_fusion(data, path):
    sphere, share = (_tensor(data, "sph_src"), _tensor(data, "sph_trg")), float(data["mixing_ratio"])
    for name, measure in MEASURE_NAMES.items():
        suffix = "_unit" if name in ("l1", "l2") else ""
        features = tuple(_tensor(data, f"feat_{side}{suffix}") for side in ("src", "trg"))
        fused = fused_similarity(features, sphere, measure, share)
        yield difference(f"{name}_feat", MEASURES[measure](*features), data[f"{name}_feat"])
        yield difference(f"{name}_sph", MEASURES[measure](*sphere), data[f"{name}_sph"])
        yield difference(f"{name}_fused", fused, data[f"{name}_fused"])
        yield exact(f"{name}_argmax", fused.argmax(1), data[f"{name}_argmax"])


def _mask_downsample(data, path):
    yield difference("tokens", mask_to_cells(_tensor(data, "mask")[:, 0], (6, 8)).flatten(1)[..., None], data["tokens"])


def _azimuth_bins(data, path):
    yield exact("bin", azimuth_bins(data["azimuth_deg"], int(data["n_bins"])), data["bin"])


def _tensor(data, name):
    return torch.from_numpy(data[name])


def _with_weights(module, data, prefix):
    module.load_state_dict({name.removeprefix(prefix): torch.from_numpy(v) for name, v in data.items() if name.startswith(prefix)})
    return module


def _positions(data):
    return grid_positions(*data["fm_shape"].astype(int).tolist())


def _triplets(data):
    return _tensor(data, "image_of_row").long(), _tensor(data, "triplet_idx").long()


def _gradient(label, loss, points, expected):
    return _relative(label, torch.autograd.grad(loss, points, retain_graph=True)[0], expected)


def _relative(label, gradient, expected):
    """Gradients agree to a thousandth of their largest entry."""
    return difference(label, gradient / np.abs(expected).max(), expected / np.abs(expected).max(), atol=1e-3, rtol=0)


CHECKS = {
    "azimuth_bins": _azimuth_bins,
    "distance_loss": _distance_loss,
    "mapper_forward": _mapper_forward,
    "mask_downsample": _mask_downsample,
    "orientation_loss": _orientation_loss,
    "prototype_decoder": _prototype_decoder,
    "reconstruction_loss": _reconstruction_loss,
    "similarity_fusion": _similarity_fusion,
    "total_loss": _total_loss,
    "viewpoint_loss": _viewpoint_loss,
}
