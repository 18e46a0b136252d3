"""``semalign3d build``: where masks come from when there is no model yet."""

import pytest

from semalign3d_core.cli.main import main

pytest.importorskip("trimesh", reason="needs the extra synth")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("build") / "world"
    assert main(["synth", "--output", str(root), "--categories", "chair", "--train", "8", "--test", "2"]) == 0
    return root


def build(world, output, masks):
    return main(["build", "--dataset", str(world), "--category", "chair", "--output", str(output), "--masks", masks])


def test_similarity_masks_need_a_model_that_was_built_earlier(world, tmp_path, capsys):
    assert build(world, tmp_path / "none", "similarity") == 2
    assert "similarity:FILE), or another mask source (sam2, precomputed)" in capsys.readouterr().err
    assert build(world, tmp_path / "first", "precomputed") == 0
    first = tmp_path / "first" / "chair.safetensors"
    assert build(world, tmp_path / "second", f"similarity:{first}") == 0
    assert (tmp_path / "second" / "chair.safetensors").is_file()
    assert build(world, tmp_path / "third", f"similarity:{tmp_path / 'nothing.safetensors'}") == 2
    assert "nothing.safetensors does not exist" in capsys.readouterr().err
