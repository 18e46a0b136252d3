"""Vectors of GeoAware-SC's training: losses with their gradients, displacements, learning rate."""

import torch
from compare import difference, exact

from semalign3d_core.learned.geoaware.losses import (
    LossConfig,
    TrainingImage,
    common_rows,
    contrastive_loss,
    dense_loss,
    displacement,
    pair_loss,
    true_displacement,
)
from semalign3d_core.learned.geoaware.schedule import one_cycle


def check_train_displacement(arrays, path):
    source, target = (TrainingImage(torch.from_numpy(arrays[name][0]), torch.zeros(0, 3), 0.0) for name in ("desc_src", "desc_trg"))
    for name, window in (("flow_plain", 0), ("flow_window7", 7)):
        parts = [displacement(source, target, part, window) for part in torch.arange(3600).split(400)]
        yield difference(name, torch.cat(parts).reshape(60, 60, 2), arrays[name], atol=1e-4)


def check_losses(arrays, path):
    t = {name: torch.from_numpy(value) for name, value in arrays.items()}
    tokens = {name: t[name].clone().requires_grad_() for name in ("desc_src", "desc_trg", "desc_src_flip", "desc_trg_flip")}
    ends = [(t["kps_src"], float(t["threshold_src"])), (t["kps_trg"], float(t["threshold_trg"]))] * 2
    images = [TrainingImage(value[0], *end) for value, end in zip(tokens.values(), ends, strict=True)]
    source, target = images[:2]
    rows = common_rows(source, target)
    yield exact("source cells", source.indices(rows), arrays["patch_idx_src"])
    yield exact("target cells", target.indices(rows), arrays["patch_idx_trg"])
    yield difference("flow", true_displacement(source, target, rows), arrays["gt_flow"])
    scale = torch.tensor(1 / 0.07).log().requires_grad_()
    still = LossConfig(noise=0.0, variants=False)
    yield difference("contrastive", contrastive_loss(source, target, scale), arrays["contrastive"])
    yield difference("dense", dense_loss(source, target, still, None), arrays["dense_noiseless"])
    grid = torch.linspace(-1, 1, 60).repeat(2, 1).requires_grad_()
    cases = {
        "loss_sparse_only": LossConfig(dense=False, variants=False),
        "loss_sparse_dense_noiseless": still,
        "loss_sparse_dense_noise": LossConfig(variants=False),
        "loss_default_pair_augment_noiseless": LossConfig(noise=0.0, single=0.0),
        "loss_with_single_flip_noise": LossConfig(),
        "loss_sparse_only_pair_augment": LossConfig(dense=False),
        "loss_default_pair_augment_noise": LossConfig(single=0.0),
    }
    for name, config in cases.items():
        drawn = iter([t[f"noise_{j}"] for j in range(4)])
        counts = []

        def draw(count, drawn=drawn, counts=counts):
            counts.append(count)
            return next(drawn)[:count]

        loss = pair_loss(images, t["permutation"], config, scale, draw, grid)["loss"]
        yield difference(name, loss, arrays[name])
        if name == "loss_with_single_flip_noise":
            yield exact("draws with the single flip", torch.tensor(counts), arrays["noise_rows_single"])
    yield exact("draws", torch.tensor(counts), arrays["noise_rows_default"])
    loss.backward()
    for name, value in tokens.items():
        yield difference(f"grad {name}", value.grad, arrays[f"grad_{name}"])
    yield difference("grad scale", scale.grad, arrays["grad_logit_scale"])
    yield difference("grad x grid", grid.grad[0], arrays["grad_x_grid"])
    yield difference("grad y grid", grid.grad[1], arrays["grad_y_grid"])


def check_lr_schedule(arrays, path):
    found = torch.tensor([one_cycle(int(step), 106_678, 1.25e-3) for step in arrays["step"]], dtype=torch.float64)
    yield difference("rate", found[:, 0], arrays["lr"], atol=1e-12, rtol=1e-9)
    yield difference("beta1", found[:, 1], arrays["beta1"], atol=1e-12, rtol=1e-9)


CHECKS = {"train_displacement": check_train_displacement, "losses": check_losses, "lr_schedule": check_lr_schedule}
