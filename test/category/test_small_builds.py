"""Small cases of the build at their limits: maps, volumes, empty tables, and what is said of images that are left out."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from category_folder import FAST, IMAGES, SIDE, build, write_data_set
from PIL import Image
from random_category import random_category
from values import check_values

from semalign3d_core.category.config import BuildConfig, DataPolicy
from semalign3d_core.category.published.barycentric import relative_volumes
from semalign3d_core.category.published.dense_cloud import _surface
from semalign3d_core.category.shape.factor_model import rigid_model
from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.category.surface.surface_map import SurfaceMap, best_plane, is_flat, surface_map
from semalign3d_core.runtime.errors import InputError


def test_values_do_not_change():
    check_values("semalign3d_core.category", mutable=("Problems",))


@pytest.mark.parametrize("flat", [False, True])
def test_a_map_knows_its_keypoints_its_labels_and_its_derivative(flat):
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(6, 3, generator=generator).double() * torch.tensor([1, 1, 0.0 if flat else 1])
    points = torch.randn(9, 3, generator=generator).double()
    surface = surface_map(points, shape, best_plane(shape) if flat else torch.zeros(2, 6).double())
    whole = surface.with_keypoints() @ shape
    torch.testing.assert_close(whole, torch.cat([surface @ shape, shape]))
    labels = torch.tensor([7, 0, 3, 4, 2, 6])
    spread = torch.zeros(8, 3).double()
    spread[labels] = shape
    torch.testing.assert_close(surface.among(labels, 8) @ spread, surface @ shape)
    directions = torch.randn(2, 6, 3, generator=generator).double()
    step = 1e-6
    numeric = torch.stack([(surface @ (shape + step * d) - surface @ (shape - step * d)) / (2 * step) for d in directions])
    torch.testing.assert_close(surface.derivative(shape, directions), numeric, atol=1e-6, rtol=1e-5)
    assert surface.derivative(shape, directions[:0]).shape == (0, 9, 3)


def test_virtual_corners_become_offsets():
    """Of a flat category's weights over keypoints and two virtual corners: what they add to the keypoints and to the height."""
    shape = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1, 1, 0.0])
    weights = torch.rand(4, 7, generator=torch.Generator().manual_seed(1)).double()
    weights = weights / weights.sum(1, keepdim=True)
    model = SimpleNamespace(shape=shape, plane=best_plane(shape))
    surface = _surface(weights, model)
    torch.testing.assert_close(surface.weights.sum(1), torch.ones(4).double())
    plain = _surface(weights[:, :5], model)
    assert isinstance(plain, SurfaceMap) and torch.equal(plain.weights, weights[:, :5]) and not plain.offsets.any()
    assert torch.equal(surface.offsets.sign(), (weights[:, 5] - weights[:, 6]).sign())
    torch.testing.assert_close(surface.weights, weights[:, :5] + (weights[:, 5] + weights[:, 6])[:, None] / 5)


def test_relative_volumes_have_no_unit():
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [0, 0, 1]]).double()
    tets = torch.tensor([[0, 1, 2, 3], [0, 0, 2, 3]])
    for scale in (1.0, 0.01):
        torch.testing.assert_close(relative_volumes(scale * corners, tets), torch.tensor([2**0.5 / 12, 0.0]).double())


def test_an_empty_table_is_empty():
    table = BetaTable.empty()
    shapes = {name: tuple(value.shape) for name, value in vars(table).items()}
    assert shapes == {"edge1": (0, 2), "edge2": (0, 2), "edge_beta": (0, 4), "triangle": (0, 3), "vertex": (0,), "tet_beta": (0, 6)}
    assert [tuple(each.shape) for each in table.log_normalisers] == [(0, 2), (0, 3)]


def test_a_rigid_model_reports_its_errors():
    data, truth = random_category(images=6, keypoints=8, seed=1)
    turned = truth.rotation.new_zeros(6, 3)
    turned[:, 2] = 3.0
    model = rigid_model(truth.shape, torch.eye(24).double(), truth.rotation, turned, data)
    camera = truth.shape @ truth.rotation.transpose(1, 2) + turned[:, None]
    beside = data.focal[:, None, None] * camera[..., :2] / camera[..., 2:] - data.points
    expected = torch.stack([b[v].square().sum(-1).mean().sqrt() / s for b, v, s in zip(beside, data.visible, data.size, strict=True)])
    torch.testing.assert_close(model.error, expected)
    assert (model.weight == 1).all() and not model.displacement.any()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("few"))


def test_images_without_object_are_counted_and_the_first_are_named(source, tmp_path, caplog):
    """A mask of fewer than thirty pixels shows no object; of many such images three are named, the others counted."""
    import shutil

    root = shutil.copytree(source, tmp_path / "set")
    for n in range(IMAGES):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[40:45, 40:46] = 1
        mask[40, 40] = n == 0  # 30 pixels in the first image, 29 in the others
        Image.fromarray(mask).save(root / f"Segmentation/thing/im{n:02d}.png")
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="the mask is empty"):
        build(root)
    named = [text for text in caplog.messages if "the mask is empty" in text]
    assert len(named) == 3 and "im00" not in " ".join(named)
    assert any(text.startswith(f"left out: {IMAGES - 1 - 3} more images") for text in caplog.messages)
    with pytest.raises(InputError, match="im01: the mask is empty"):
        build(root, replace(FAST, policy=DataPolicy(on_bad_image="error")))


def test_few_images_tell_less_exactly_whether_a_shape_is_flat():
    """The limit falls with the root of the number of images, from 10 to 20 of them."""
    shape = torch.tensor([[0.5, 0, 1], [-0.5, 0, 1], [0, 0.3, -1], [0, -0.3, -1.0]]).double()

    def is_flat_at(thickness, images):
        return is_flat(shape * torch.tensor([1, 1, thickness]), images)

    for images, limit in ((5, 0.02 * 2**0.5), (10, 0.02 * 2**0.5), (15, 0.02 * (20 / 15) ** 0.5), (20, 0.02), (40, 0.02)):
        assert is_flat_at(0.999 * limit, images) and not is_flat_at(1.001 * limit, images)


def test_settings_are_checked():
    for wrong in ({"method": "magic"}, {"start": "random"}):
        with pytest.raises(InputError, match="must be one of"):
            BuildConfig(**wrong)
    with pytest.raises(InputError):
        DataPolicy(on_bad_image="ignore")
