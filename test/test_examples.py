"""Every script in examples/ runs and does what it says; the notebook is executed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from semalign3d_core.perception.evidence import read_image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
COFFEE, CUP = EXAMPLES / "photographs" / "coffee.jpg", (172, 18, 408, 308)


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small rendered data set of chairs."""
    from semalign3d_core.cli.synth import Options, run

    folder = tmp_path_factory.mktemp("world")
    assert run(Options(folder, ("chair",), train=12, test=4, pairs=6, size=160, workers=1)) == 0
    return folder


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_under_40_lines_and_tested_here(path):
    assert len(path.read_text().splitlines()) < 40
    tests = Path(__file__).read_text() + (Path(__file__).parent / "ros" / "test_example_subscriber.py").read_text()
    assert re.search(rf'"{path.stem}(\.py)?"', tests)


@pytest.mark.slow
def test_align_a_photograph(tmp_path, capsys):
    example("align_photograph").main(output=tmp_path)
    assert "mug, found" in capsys.readouterr().out
    assert read_image(tmp_path / "mug.png").rgb.shape == (400, 600, 3) and (tmp_path / "mug.glb").read_bytes()[:4] == b"glTF"


@pytest.mark.slow
def test_match_two_photographs(tmp_path, capsys):
    example("match_photographs").main(output=tmp_path)
    said = capsys.readouterr().out
    assert "by window_soft_argmax" in said and "by semalign3d" in said
    assert {path.name for path in tmp_path.iterdir()} == {"matched_by_features.png", "matched_by_category.png"}


@pytest.mark.slow
def test_own_category(world, tmp_path, capsys):
    example("own_category").main(world, "chair", tmp_path)
    assert "CategoryModel(chair, " in capsys.readouterr().out
    assert {"chair.safetensors", "chair.report.json", "chair.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_keypoints_in_metres(tmp_path, capsys):
    cut = read_image(COFFEE).rgb[18:308, 172:408]
    Image.fromarray(cut).save(tmp_path / "colour.png")
    depth = np.full(cut.shape[:2], 500, np.uint16)
    depth[:9] = 0
    Image.fromarray(depth).save(tmp_path / "depth.png")
    arguments = [str(tmp_path / "colour.png"), str(tmp_path / "depth.png"), 400.0, 400.0, 118.0, 145.0]
    result = example("keypoints_from_rgbd").main("mug", *arguments)
    assert result.alignment.scale_kind == "metric"
    distance = result.alignment.keypoints_3d[result.alignment.visible, 2].median()
    assert 0.35 < distance < 0.65, distance
    assert " m\n" in capsys.readouterr().out


def test_own_backbone():
    result = example("own_backbone").main()
    assert result.matches.points.shape == (1, 2) and result.source.name == str(COFFEE)


def test_own_matcher():
    result = example("own_matcher").main()
    assert result.method == "mutual" and 0 <= float(result.matches.confidence[0]) <= 1


def test_own_predictions(tmp_path):
    from tiny_dataset import make_dataset

    score = example("evaluate_predictions").main(make_dataset(tmp_path / "data"), tmp_path / "out")
    assert 0 <= score < 60


@pytest.mark.slow
def test_video(tmp_path, capsys):
    cut = np.ascontiguousarray(read_image(COFFEE).rgb[10:318, 162:418, ::-1])
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (256, 308))
    for _ in range(3):
        writer.write(cut)
    writer.release()
    found = example("video").main("mug", str(tmp_path / "in.avi"), str(tmp_path / "out.mp4"))
    drawn = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and f"found in {found} frames" in capsys.readouterr().out


def test_the_listener_in_cpp_reads_fields_that_there_are():
    text = (EXAMPLES / "ros_subscriber.cpp").read_text()
    message, keypoint = ((ROOT / "msg" / f"{name}.msg").read_text() for name in ("SemanticKeypoints", "SemanticKeypoint"))
    assert {"found", "keypoints"} == set(re.findall(r"message\.(\w+)", text)) and {"name", "position"} == set(
        re.findall(r"keypoint\.(\w+)", text)
    )
    for field, definition in (("found", message), ("keypoints", message), ("name", keypoint), ("position", keypoint)):
        assert re.search(rf"^\S+ {field}\b", definition, re.M), field


@pytest.mark.slow
def test_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    for name in ("coffee.jpg", "coffee_turned.jpg"):
        (tmp_path / "photographs").mkdir(exist_ok=True)
        (tmp_path / "photographs" / name).write_bytes((EXAMPLES / "photographs" / name).read_bytes())
    done = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = json.dumps(done)
    assert shown.count("data:image/jpeg;base64,") >= 3 and (tmp_path / "mug.glb").is_file()


@pytest.mark.slow
def test_type_checkers_find_nothing():
    """pyright in strict mode; it needs Node.js, which its package gets by itself."""
    done = subprocess.run([sys.executable, "-m", "pyright", "--pythonpath", sys.executable], cwd=ROOT, capture_output=True, text=True)
    if "error" not in done.stdout and "0 errors" not in done.stdout:
        pytest.skip(f"pyright cannot run here: {done.stderr[-200:]}")
    absent = "ros_to_rerun.py" if importlib.util.find_spec("rerun") is None else None  # an extra of its own, of 170 MB
    errors = [line for line in done.stdout.splitlines() if " - error: " in line and not (absent and absent in line)]
    assert not errors, done.stdout
