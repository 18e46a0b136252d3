"""Vectors of SFNet about the network, its losses and its training pairs."""

import numpy as np
import torch
from compare import difference, exact
from torch import nn

from semalign3d_core.learned.sfnet.losses import Direction, LossWeights, directions, loss_terms, smoothness
from semalign3d_core.learned.sfnet.network import READOUTS, SFNet, SFNetConfig, correlation, kernel_weighted, positions, unit_norm
from semalign3d_core.learned.sfnet.samples import resized, training_pair

WAYS = ("S2T", "T2S")


class GivenLevels(nn.Module):
    """Stands for a pyramid of 12 and 16 channels; the vectors hold its outputs."""

    channels = (12, 16)


def near(label, actual, expected, share=1e-4):
    """A comparison within ``share`` of the largest magnitude that is expected; gradients that must be zero are rounding errors."""
    return difference(label, actual, expected, atol=share * max(float(np.abs(expected).max()), 1e-3), rtol=0)


def tensors(data):
    return {name: torch.from_numpy(np.array(array)) for name, array in data.items()}


def stored_network(data, config):
    """The network with the parameters of a file, loaded strictly by their official names."""
    network = SFNet(GivenLevels(), config)
    state = {name.removeprefix("w:"): value for name, value in tensors(data).items() if name.startswith("w:")}
    network.load_state_dict({k: v.long() if k.endswith("num_batches_tracked") else v for k, v in state.items()})
    return network


def buffers(network, data, prefix):
    state = network.state_dict()
    for name in data:
        if name.startswith(prefix):
            yield near(name, state[name.removeprefix(prefix)].float(), data[name])


def _adaptation_layers(data, path):
    network, v = stored_network(data, SFNetConfig()), tensors(data)
    for mode in ("eval", "train"):
        network.train(mode == "train")
        for level in (3, 4):
            adapted = getattr(network, f"adap_layer_feat{level}")(v[f"feat{level}"])
            yield near(f"{mode} {level}", adapted, data[f"{mode}_out{level}"])
    yield from buffers(network, data, "after:")


def _matching_layer(data, path):
    source, target = (unit_norm(torch.from_numpy(data[name])) for name in ("feat_src", "feat_trg"))
    yield near("src_unit", source, data["src_unit"])
    yield near("corr", correlation(source, target), data["corr"])


def _kernel_soft_argmax(data, path):
    size = data["corr"].shape[2:]
    for name, config in (("b50_s5", SFNetConfig()), ("b20_s2", SFNetConfig(beta=20, sigma=2))):
        scores = torch.from_numpy(data["corr"]).requires_grad_()
        yield exact("argmax", scores.argmax(1), data["argmax_channel"])
        weighted = kernel_weighted(scores, size, config.sigma)
        yield near(f"{name} weighted", weighted, data[f"{name}_weighted_corr"])
        yield near(f"{name} prob", torch.softmax(config.beta * weighted, 1), data[f"{name}_prob"])
        grid = READOUTS["kernel"](scores, size, config)
        yield near(f"{name} grid", grid, data[f"{name}_grid"])
        yield near(f"{name} flow", (grid - positions(size, grid)).movedim(3, 1), data[f"{name}_flow"])
        (grid.flatten() * torch.arange(grid.numel()) / grid.numel()).sum().backward()
        yield near(f"{name} gradient", scores.grad, data[f"{name}_grad_corr"], 1e-3)


def _flow_smoothness(data, path):
    yield near("smoothness", smoothness(torch.from_numpy(data["flow"]), torch.from_numpy(data["mask"])), data["smoothness"])


def _loss_terms(data, path):
    v = tensors(data)
    both = [
        Direction(v[f"mask_{own}"], v[f"est_{own}_mask"], v[f"flow_{way}"], v[f"warped_flow_{way}"], v[f"smoothness_{way}"])
        for own, way in zip(("src", "tgt"), WAYS, strict=True)
    ]
    terms = loss_terms(both, LossWeights(*data["lambdas"].tolist()))
    for name, value in terms.items():
        yield near(name, value, data[f"{name}_term"])
    yield near("loss", sum(terms.values()), data["loss"])


def _full_forward(data, path):
    v, config = tensors(data), SFNetConfig()
    levels = [[v[f"{side}_feat{level}"] for level in (3, 4)] for side in ("src", "trg")]
    found = stored_network(data, config).eval().match(*levels)
    for way, scores, grid, flow in zip(WAYS, found.scores, found.grids, found.flows, strict=True):
        for name, value in (("corr", scores), ("grid", grid), ("flow", flow)):
            yield near(f"eval {name} {way}", value, data[f"eval_{name}_{way}"])
    for align_corners, name in ((True, "train_ac1"), (False, "train_ac0")):
        network = stored_network(data, config).train()
        found = network.match(*levels)
        both = directions(found, v["mask_src"], v["mask_tgt"], align_corners)
        for own, way, grid, direction in zip(("src", "tgt"), WAYS, found.grids, both, strict=True):
            parts = {
                f"est_{own}_mask": direction.seen_mask,
                f"smoothness_{way}": direction.differences,
                f"grid_{way}": grid,
                f"flow_{way}": direction.flow,
                f"warped_flow_{way}": direction.returning,
            }
            for part, value in parts.items():
                if f"{name}_{part}" in data:
                    yield near(f"{name} {part}", value, data[f"{name}_{part}"])
        terms = loss_terms(both, LossWeights())
        total = sum(terms.values())
        yield near(f"{name} losses", torch.stack([total, *terms.values()]), data[f"{name}_losses"])
        total.backward()
        gradients = {parameter: value.grad for parameter, value in network.named_parameters()}
        for key in data:
            if key.startswith(f"{name}_g:"):
                yield near(key, gradients[key.removeprefix(f"{name}_g:")], data[key], 1e-3)
        yield from buffers(network, data, "train_after:")


def _training_synthesis(data, path):
    size = [16 * int(n) for n in data["feature_hw"]]
    for case in ("noflip", "flip"):
        image, mask = (data[name].astype(np.uint8) for name in ("image", "mask"))
        if case == "flip":
            image, mask = image[:, ::-1].copy(), mask[:, ::-1].copy()
        picture, outline = resized(image, mask, size)
        for align_corners, corner in ((True, "ac1"), (False, "ac0")):
            noises = data[f"{case}_noise1"], data[f"{case}_noise2"]
            images, masks = training_pair((picture, picture), outline, noises, align_corners)
            for number in (1, 2):
                name = f"{case}_{corner}"
                yield exact(f"{name} mask {number}", masks[number - 1], data[f"{name}_mask{number}"])
                if f"{name}_image{number}_rgb" in data:
                    yield near(f"{name} image {number}", images[number - 1], data[f"{name}_image{number}_rgb"])


CHECKS = {
    "adaptation_layers": _adaptation_layers,
    "matching_layer": _matching_layer,
    "kernel_soft_argmax": _kernel_soft_argmax,
    "flow_smoothness": _flow_smoothness,
    "loss_terms": _loss_terms,
    "full_forward": _full_forward,
    "training_synthesis": _training_synthesis,
}
