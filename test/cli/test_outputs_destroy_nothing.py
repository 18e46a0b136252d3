"""Commands replace nothing but their own results; what they cannot write is one sentence; Ctrl-C is one line."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from semalign3d_core.category.storage import shipped_models
from semalign3d_core.cli.main import main
from semalign3d_core.results import write_picture
from semalign3d_core.runtime.errors import OutputError
from semalign3d_core.runtime.outputs import check_replaceable

COMMAND = "import sys; sys.argv[0] = 'semalign3d'; from semalign3d_core.cli.main import main; sys.exit(main())"


def test_only_results_may_be_replaced(tmp_path):
    mine, own = tmp_path / "photo.png", tmp_path / "result.png"
    Image.new("RGB", (8, 8)).save(mine)
    for path in (own, tmp_path / "result.jpg"):
        write_picture(path, __import__("numpy").zeros((8, 8, 3), "uint8"))
        check_replaceable(path, overwrite=False)
    with pytest.raises(OutputError, match="is no result of this program; choose another name, or give --overwrite"):
        check_replaceable(mine, overwrite=False)
    check_replaceable(mine, overwrite=True)
    check_replaceable(tmp_path / "new.png", overwrite=False)
    check_replaceable(shipped_models() / "mug.safetensors", overwrite=False)


def test_config_and_inspect_replace_their_own_pages_only(tmp_path, capsys):
    for arguments, name in ((["config", "--preset", "align_fast"], "a.yaml"), (["inspect", "mug"], "mug.html")):
        path = tmp_path / name
        path.write_text("hours of work")
        assert main([*arguments, "--output", str(path)]) == 1
        assert "is no result of this program" in capsys.readouterr().err and path.read_text() == "hours of work"
        assert main([*arguments, "--output", str(path), "--overwrite"]) == 0
        assert main([*arguments, "--output", str(path)]) == 0


def test_what_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["config", "--preset", "align_fast", "--output", str(tmp_path / "file" / "a.yaml")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot write" in error
    assert main(["config", "--preset", "align_fast", "--output", os.ttyname(os.openpty()[1])]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.3, 1.0, 2.5])
def test_an_interrupt_is_one_line_and_code_130(tmp_path, wait):
    """While modules load, and while it works."""
    arguments = [sys.executable, "-c", COMMAND, "synth", "--output", str(tmp_path / "out"), "--train", "500"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not os.path.exists(f"/proc/{process.pid}/fd/2"):
        time.sleep(0.01)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.strip() and "image/s" not in line and "synth:" not in line[:6]]
    if wait < 1 and "site.py" in error or process.returncode == -signal.SIGINT:
        return  # the interpreter itself had not begun
    assert process.returncode == 130 and "Traceback" not in error, error
    assert sum("interrupted" in line for line in lines) == 1, error
