"""``eval_spair`` and ``semalign3d evaluate`` as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_dataset import make_dataset  # noqa: E402

from semalign3d_core.cli import eval_spair  # noqa: E402
from semalign3d_core.cli.main import main as semalign3d  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data")


def arguments(folder, output="out", *more):
    text = (
        f"--dataset {folder} --split test --categories chair car --backbone precomputed:sim --depth precomputed --masks precomputed "
        f"--models {folder}/MODELS --method nearest_neighbour --alpha 0.01 0.05 0.1 --output {folder.parent / output}"
    )
    return [*text.split(), *more]


def test_the_same_folder_takes_another_evaluation(folder, capsys):
    """Columns of its tables depend on the thresholds; they are replaced all the same. A table of somebody else is not."""
    short = [*arguments(folder), "--gallery", "0", "--limit", "1"]
    assert eval_spair.main(short) == 0
    changed = [word for word in short if word not in ("0.01", "0.05")]
    assert eval_spair.main(changed) == 0
    table = folder.parent / "out" / "pairs.csv"
    assert table.read_text().startswith("pair,category,keypoints,right@0.1,skipped")
    table.write_text("name,points\na,1\n")
    assert eval_spair.main(changed) == 1 and "no result of this program" in capsys.readouterr().err


@pytest.mark.slow
def test_documented_call_writes_all_files_and_a_table(folder, capsys):
    assert eval_spair.main(arguments(folder)) == 0
    output = capsys.readouterr()
    for name in ("results.json", "predictions.jsonl", "results.csv", "pairs.csv", "report.html", "config.json"):
        assert (folder.parent / "out" / name).stat().st_size > 0
        assert name in output.out or name == "config.json"
    assert "chair" in output.out and "mean of categories" in output.out and "@0.05" in output.out
    assert "%|" not in output.err  # bars are for terminals
    results = json.loads((folder.parent / "out" / "results.json").read_text())
    assert list(results["per_category"]["chair"]["pck"]) == ["0.01", "0.05", "0.1"] and results["method"] == "nearest_neighbour"
    line = json.loads((folder.parent / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert set(line) == {"pair", "points"} and all(len(point) == 2 for point in line["points"])


@pytest.mark.slow
def test_predictions_of_a_run_score_the_same(folder):
    assert eval_spair.main(arguments(folder)) == 0
    predictions = str(folder.parent / "out" / "predictions.jsonl")
    assert semalign3d(["evaluate", *arguments(folder, "again", "--predictions", predictions)]) == 0
    first, again = (json.loads((folder.parent / name / "results.json").read_text()) for name in ("out", "again"))
    assert first["per_category"] == again["per_category"] and first["all"] == again["all"]


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_two(folder, capsys):
    (folder / "JPEGImages" / "car" / "img2.jpg").write_bytes(b"\xff\xd8 not really")
    assert eval_spair.main(arguments(folder)) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("eval_spair: ") and "img2.jpg" in message and "--on-bad-input skip" in message
    assert eval_spair.main(arguments(folder, "skip", "--on-bad-input", "skip")) == 0
    assert "pairs skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "message"), [("--alpha", "0", "alpha"), ("--categories", "sofa", "sofa"), ("--limit", "0", "limit")]
)
def test_bad_options_are_reported_without_a_traceback(folder, capsys, option, value, message):
    try:
        code = eval_spair.main(arguments(folder, "out", option, value))
    except SystemExit as stopped:  # what the parser of the command line finds out itself
        code = stopped.code
    assert code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_from_the_shell(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "semalign3d_core.cli.eval_spair", *arguments(folder, "two", "--workers", "2")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert eval_spair.main(arguments(folder, "one")) == 0
    one, two = ((folder.parent / name / "predictions.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
