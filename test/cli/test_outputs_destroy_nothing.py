"""Commands replace nothing but their own results; what they cannot write is one sentence."""

import os

import pytest
from PIL import Image

from semalign3d_core.category.storage import shipped_models
from semalign3d_core.cli.main import main
from semalign3d_core.results import write_picture
from semalign3d_core.runtime.errors import OutputError
from semalign3d_core.runtime.outputs import check_replaceable


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
