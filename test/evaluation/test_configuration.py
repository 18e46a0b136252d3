"""The resolved configuration beside the results, and faults of the configuration: these end a run, whatever the policy for bad input."""

import json
from pathlib import Path

import pytest
from tiny_category import tiny_model
from tiny_dataset import make_dataset

from semalign3d_core.category.storage import save_model
from semalign3d_core.evaluation.run import images
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.evaluation.run.worker import Worker
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.runtime.errors import InputError, MissingFileError, OutputError, SemAlign3DError


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data", noise=0.4)


@pytest.fixture
def models(tmp_path):
    for category in ("car", "chair"):
        save_model(tiny_model(category), tmp_path / "models" / f"{category}.safetensors")
    return tmp_path / "models"


def configuration(folder, **changes):
    options = {"backbone": "precomputed:sim", "depth": "precomputed", "masks": "precomputed", "gallery": 0, "on_bad_input": "skip"}
    return EvaluationConfig(folder, folder.parent / "out", **options | changes)


def test_everything_that_was_left_open_is_filled_in(folder):
    evaluate(configuration(folder, method="window_soft_argmax"))
    resolved = json.loads((folder.parent / "out" / "results.json").read_text())["config"]
    assert resolved == json.loads((folder.parent / "out" / "config.json").read_text())
    assert resolved["kind"] == "folder" and resolved["categories"] == ["car", "chair"] and resolved["threshold"] == "bbox"
    assert resolved["cache"] == str(folder.parent / "out" / "cache") and resolved["device"] == "cpu"
    assert resolved["method_settings"] == {"readout": "window_soft_argmax", "width": 7, "chunk": 1024}
    assert set(EvaluationConfig.__dataclass_fields__) <= set(resolved)


@pytest.mark.slow
def test_settings_of_presets_are_written_out(folder, models):
    evaluate(configuration(folder, method="semalign3d", models=models, limit=1))
    settings = json.loads((folder.parent / "out" / "results.json").read_text())["config"]["method_settings"]
    assert settings["alignment"]["solver"] == "gauss_newton" and settings["alignment"]["gauss_newton"]["modes"] > 0
    assert settings["transfer"]["sigma"] > 0


def test_a_model_of_other_features_ends_the_run(folder, models):
    (folder / "Features" / "sim").rename(folder / "Features" / "other")
    for changes in ({"method": "semalign3d"}, {"masks": "similarity"}):
        with pytest.raises(InputError, match="built with the backbone 'sim', not with 'other'"):
            evaluate(configuration(folder, backbone="precomputed:other", models=models, **changes))


def test_models_come_from_the_named_folder_only(folder, models):
    (models / "chair.safetensors").unlink()  # there is a shipped model of chairs
    with pytest.raises(MissingFileError, match=r"models/chair\.safetensors does not exist"):
        evaluate(configuration(folder, method="semalign3d", models=models))


@pytest.mark.parametrize("method", ["nearest_neighbour", "semalign3d"])
def test_a_cache_that_cannot_be_written_ends_the_run(folder, models, method):
    (folder.parent / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        evaluate(configuration(folder, cache=folder.parent / "file" / "cache", method=method, models=models))


def test_a_full_disk_is_named(folder, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--cache"):
        evaluate(configuration(folder))
    assert not list((folder.parent / "out").rglob("*.safetensors"))


def test_devices_that_are_not_there():
    assert choose_device("cpu").type == "cpu" and choose_device("auto") == choose_device() and choose_device().type in ("cpu", "cuda")
    with pytest.raises(InputError, match="'cuda:99' is not available here: choose one of auto, cpu"):
        choose_device("cuda:99")


@pytest.mark.parametrize("study", [{"ablation": True}, {"other_backbone": "compact"}, {"training_images": (5,)}])
def test_studies_are_of_semalign3d(folder, study):
    with pytest.raises(InputError, match="--method semalign3d"):
        configuration(folder, **study)


@pytest.mark.parametrize("option", ["preset", "transfer"])
def test_presets_of_methods_without_presets(folder, option):
    with pytest.raises(SemAlign3DError, match=f"nearest_neighbour has no presets, found --{option}"):
        evaluate(configuration(folder, **{option: "fast"}))


@pytest.mark.slow
def test_a_method_with_templates_asks_for_them(folder):
    with pytest.raises(InputError, match="use a real backbone"):  # the shipped templates are images, of which no features are stored
        evaluate(configuration(folder, method="template_pose"))
    with pytest.raises(MissingFileError, match="nowhere"):
        evaluate(configuration(folder, method="template_pose", templates=folder / "nowhere"))


@pytest.mark.slow
def test_a_process_holds_a_bounded_number_of_images(folder, monkeypatch):
    monkeypatch.setattr(images, "IMAGES_IN_MEMORY", 3)
    evaluation = evaluate(configuration(folder, categories=("car",)))
    worker = Worker(evaluation.config)
    for pair in evaluation.scores:
        for record in (pair.pair.record.source, pair.pair.record.target):
            worker.images.image("car", record)
            assert len(worker.images._images) <= 3
    monkeypatch.undo()
    again = evaluate(configuration(folder, categories=("car",), cache=folder.parent / "fresh")).results
    assert again["all"] == evaluation.results["all"]
