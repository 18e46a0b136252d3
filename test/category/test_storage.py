"""The file of a category model: nothing is lost, and nothing that is not a sound model is read."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from semalign3d_core.category import storage
from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.category.storage import find_model, load_model, model_hash, save_model
from semalign3d_core.category.value_ranges import value_problem
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, OutputError


def make_model(keypoints=6, points=40, channels=32, modes=3, poses=5, pairs=10, seed=0):
    """A random but consistent model."""
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    index = lambda *shape: torch.randint(keypoints, shape, generator=g)  # noqa: E731
    betas = BetaTable(index(pairs, 2), index(pairs, 2), rand(pairs, 4).exp(), index(pairs, 3), index(pairs), rand(pairs, 6).exp())
    flip = tuple(range(keypoints)[::-1])
    weights, modes = rand(points, keypoints).softmax(1), normalize(rand(modes, keypoints * 3), dim=1).reshape(modes, keypoints, 3)
    rotations = torch.linalg.qr(rand(poses, 3, 3))[0]
    return CategoryModel(
        "chair", tuple(f"k{i}" for i in range(keypoints)), flip, "sim", torch.ones(keypoints, dtype=torch.bool),
        rand(keypoints, 3), normalize(rand(keypoints, channels), dim=1), rand(keypoints).sigmoid(), rand(keypoints).sigmoid(),
        normalize(rand(points, channels), dim=1), rand(points).sigmoid(), rand(points).sigmoid(), weights,
        betas, modes, rand(len(modes)).abs(), rotations * torch.linalg.det(rotations)[:, None, None], torch.tensor([1.5, 0.2]),
        torch.full((2,), torch.nan), {"slope": 1.25}, {"images": ["a", "b"], "report": {"rms": 0.1}},
    )  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    model = make_model()
    save_model(model, tmp_path / "chair.safetensors")
    return model, tmp_path / "chair.safetensors"


def test_nothing_but_feature_precision_is_lost(saved):
    model, path = saved
    loaded = load_model(path)
    for f in fields(model):
        before, after = getattr(model, f.name), getattr(loaded, f.name)
        if f.name == "betas":
            for g in fields(before):
                assert torch.equal(getattr(before, g.name), getattr(after, g.name)), g.name
                assert getattr(before, g.name).dtype == getattr(after, g.name).dtype
        elif isinstance(before, torch.Tensor):
            assert before.dtype == after.dtype
            tolerance = 1e-3 if "features" in f.name else 0
            assert torch.allclose(before, after, rtol=tolerance, atol=tolerance, equal_nan=True), f.name
        else:
            assert before == after, f.name


def test_half_precision_features_keep_the_similarities():
    """C = 768 as in practice: similarities move by less than 1e-3, while the smallest s_j is 0.05."""
    model = make_model(channels=768, points=300)
    stored = model.dense_features.half().float()
    image = normalize(torch.randn(768, 3600, generator=torch.Generator().manual_seed(5)) + 0.5, dim=0)
    assert (stored @ image - model.dense_features @ image).abs().max() < 1e-3


def test_hash_is_the_same_before_and_after_and_changes_with_any_field(saved, tmp_path):
    model, path = saved
    reference = model_hash(model)
    assert model_hash(load_model(path)) == reference == save_model(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    changed = [
        replace(model, category="car"),
        replace(model, shape=model.shape + 1e-6),
        replace(model, calibration={"slope": 1.26}),
        replace(model, built_from={}),
        replace(model, betas=replace(model.betas, vertex=(model.betas.vertex + 1) % 6)),
    ]
    assert len({reference, *map(model_hash, changed)}) == 6


def test_hash_ignores_the_device_type_of_the_provenance():
    """NumPy numbers and tuples in the report are the same content as plain ones."""
    plain = replace(make_model(), built_from={"rms": 0.5, "names": ["a"]})
    wrapped = replace(plain, built_from={"rms": np.float64(0.5), "names": ("a",)})
    assert model_hash(plain) == model_hash(wrapped)


def test_truncated_file_is_refused_at_any_length(saved):
    path = saved[1]
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"chair\.safetensors cannot be read .*truncated or not"):
            load_model(path)


def test_every_edited_byte_is_noticed(saved):
    path = saved[1]
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(8, len(content), 40):
        edited = bytearray(content)
        edited[position] ^= 1
        path.write_bytes(edited)
        with pytest.raises(FileFormatError, match=r"chair\.safetensors"):
            load_model(path)


def _rewrite(path, change_header=None, change_tensors=None):
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[storage.HEADER_KEY])
    tensors = load_file(path)
    if change_header:
        change_header(header)
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, path, metadata={storage.HEADER_KEY: json.dumps(header)})


def test_edited_header_and_tensor_are_refused_with_the_reason(saved):
    model, path = saved
    _rewrite(path, lambda header: header.update(category="car"))
    with pytest.raises(FileFormatError, match="hash does not fit"):
        load_model(path)
    save_model(model, path)
    _rewrite(path, change_tensors=lambda tensors: tensors["shape"].add_(1e-3))
    with pytest.raises(FileFormatError, match="hash does not fit"):
        load_model(path)
    save_model(model, path)
    _rewrite(path, change_tensors=lambda tensors: tensors.pop("weights"))
    with pytest.raises(FileFormatError, match="lacks \\['weights'\\]"):
        load_model(path)
    save_model(model, path)
    _rewrite(path, change_tensors=lambda tensors: tensors.update(shape=tensors["shape"].double()))
    with pytest.raises(FileFormatError, match=r"float64, expected torch\.float32"):
        load_model(path)


def test_models_of_the_first_version_are_read(saved, monkeypatch):
    """They had no offsets, which is what zeros say."""
    model, path = saved
    with monkeypatch.context() as old:
        old.setattr(storage, "FORMAT_VERSION", 1)
        old.setattr(storage, "TENSORS", {n: v for n, v in storage.TENSORS.items() if n not in ("offsets", "plane")})
        save_model(model, path)
    loaded = load_model(path)
    assert (loaded.offsets == 0).all() and (loaded.plane == 0).all() and torch.equal(loaded.weights, model.weights)


def test_other_version_foreign_file_and_missing_file_are_named(saved, tmp_path):
    _rewrite(saved[1], lambda header: header.update(format_version=99))
    with pytest.raises(FileFormatError, match="version 99, this program reads 1 to 2"):
        load_model(saved[1])
    save_file({"features": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FileFormatError, match="not a category model"):
        load_model(tmp_path / "foreign.safetensors")
    torch.save({"shape": torch.zeros(3)}, tmp_path / "pickle.safetensors")
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        load_model(tmp_path / "pickle.safetensors")
    with pytest.raises(MissingFileError, match=r"nowhere\.safetensors does not exist"):
        load_model(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, shape=m.shape * torch.nan), "shape contains NaN"),
        (lambda m: replace(m, weights=m.weights[:, :-1]), "weights has shape"),
        (lambda m: replace(m, flip_permutation=(1, 2, 0, 3, 4, 5)), "does not pair"),
        (lambda m: replace(m, keypoint_names=m.keypoint_names[:-1]), "5 keypoint names for 6"),
        (lambda m: replace(m, betas=replace(m.betas, edge1=m.betas.edge1 + 9)), "betas.edge1 names keypoints outside"),
        (lambda m: replace(m, built_from={"x": object()}), "cannot be written as JSON"),
    ],
)
def test_unsound_model_is_not_written(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        save_model(change(make_model()), tmp_path / "chair.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(saved, monkeypatch):
    model, path = saved
    content = path.read_bytes()

    def fail(path, data):
        with open(path, "wb") as file:
            file.write(data[:5])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match="disk full"):
        save_model(replace(model, category="car"), path)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_thirty_keypoints_stay_small(tmp_path):
    """The largest category of SPair-71k: 94 395 edge pairs, 27 405 x 4 tetrahedra."""
    path = tmp_path / "big.safetensors"
    model = make_model(keypoints=30, points=300, channels=768, pairs=100)
    betas = BetaTable(*(t.repeat(1000, *[1] * (t.ndim - 1)) for t in (getattr(model.betas, f.name) for f in fields(BetaTable))))
    save_model(replace(model, betas=betas), path)
    assert path.stat().st_size < 8e6
    assert load_model(path).betas.edge1.dtype == torch.int64


def test_find_model_prefers_the_folder_and_lists_what_there_is(saved, tmp_path, monkeypatch):
    path = saved[1]
    assert find_model("chair", tmp_path) == path
    assert find_model(str(path)) == path
    monkeypatch.setattr(storage, "shipped_models", lambda: tmp_path)
    assert find_model("chair") == path
    assert find_model("chair", tmp_path / "empty") == path
    with pytest.raises(MissingFileError, match=r"no model of category 'sofa'.*there are models of: chair"):
        find_model("sofa", tmp_path)
    with pytest.raises(MissingFileError, match=r"x/sofa\.safetensors does not exist"):
        find_model("x/sofa.safetensors")


@pytest.mark.parametrize("name", ["keypoint_features", "dense_features", "keypoint_mu", "dense_mu", "modes"])
def test_cosines_and_parts_of_unit_vectors_are_at_most_one(name):
    sound = {"focal": torch.tensor([1.5, 0.2]), "diameter_metres": torch.full((2,), torch.nan), "pose_rotations": torch.eye(3)[None]}
    for value in (1.0, -1.0):
        assert value_problem({**sound, name: torch.tensor([0.0, value])}, {}) is None
        assert name in value_problem({**sound, name: torch.tensor([0.0, 1.05 * value])}, {})
