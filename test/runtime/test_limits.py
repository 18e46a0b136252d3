"""Files that ask for more than they are are refused before anything is allocated; special files are never opened or replaced."""

import os
import struct
import tempfile
import zlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, OutputError
from semalign3d_core.runtime.files import TEMPORARY, atomic_path, inside, read_arrays, read_json, read_text, read_yaml, write_json
from semalign3d_core.runtime.pictures import picture_of_bytes
from semalign3d_core.runtime.tensors import read_checkpoint, read_tensors, save_tensors


def _png(width, height):
    """A PNG of zeros that is small however many pixels it has."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("size", "name"), [((13_300, 13_300), "MEGAPIXELS"), ((1, 20_000), "SIDE"), ((100, 9_000), "ASPECT")])
def test_pictures_above_a_limit_are_refused_by_their_header(tmp_path, monkeypatch, size, name):
    (tmp_path / "a.png").write_bytes(_png(*size))
    with pytest.raises(FileFormatError, match=f"a.png has .* set SEMALIGN3D_MAX_PICTURE_{name}="):
        read_image(tmp_path / "a.png")
    with pytest.raises(FileFormatError, match=f"SEMALIGN3D_MAX_PICTURE_{name}"):
        picture_of_bytes(_png(*size))


def test_limits_can_be_raised_and_must_be_numbers(tmp_path, monkeypatch):
    Image.new("L", (300, 10)).save(tmp_path / "a.png")
    with pytest.raises(FileFormatError, match="30 : 1"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("SEMALIGN3D_MAX_PICTURE_ASPECT", "40")
    assert read_image(tmp_path / "a.png").width == 300
    monkeypatch.setenv("SEMALIGN3D_MAX_PICTURE_ASPECT", "many")
    with pytest.raises(InputError, match="is 'many', expected a number above 0"):
        read_image(tmp_path / "a.png")


@pytest.mark.slow
def test_packed_arrays_are_refused_by_their_size(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", depth=np.zeros(110_000_000, np.float32))
    assert (tmp_path / "a.npz").stat().st_size < 1e6
    with pytest.raises(FileFormatError, match="440 megabytes of arrays, the limit is 400"):
        read_arrays(tmp_path / "a.npz")


def test_yaml_aliases_and_tags_are_refused(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
    (tmp_path / "a.yaml").write_text(bomb)
    with pytest.raises(FileFormatError, match="aliases"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("!!python/object/apply:os.system [true]")
    with pytest.raises(FileFormatError, match="not valid YAML"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"a": [1, "x"]}))
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, "x"]}


def test_checkpoints_hold_no_code(tmp_path):
    torch.save({"a": os.system}, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=r"a\.pth cannot be read"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("read", [read_text, read_json, read_yaml, read_arrays, read_tensors, read_checkpoint, read_image])
def test_special_files_are_refused_and_missing_ones_named(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (tmp_path / "folder", "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(FileFormatError, match=f"is {kind}, expected a file"):
            read(path)
    for path in (tmp_path / "none", tmp_path / "pipe" / "none", tmp_path / ("x" * 300)):
        with pytest.raises((MissingFileError, FileFormatError)):
            read(path)


def test_special_files_are_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    terminal = os.ttyname(os.openpty()[1])  # a device that no failure can replace: nothing can be made beside it
    for path in (tmp_path / "pipe", tmp_path / "folder", terminal):
        with pytest.raises(OutputError, match="cannot write"):
            write_json(path, {})
    assert (tmp_path / "pipe").is_fifo() and sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.json", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(OutputError, match="cannot write"):
            write_json(path, {})

    def full():
        with atomic_path(tmp_path / "a.json"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*a\.json: No space left on device; make room"):
        full()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path):
    left = tmp_path / f"{TEMPORARY}left.json"
    left.write_text("half")
    with atomic_path(tmp_path / "a.json") as mine:
        assert not left.exists() and mine.exists()
        mine.write_text("{}")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_taken_for_a_leftover_before_its_lock_is_made_again(tmp_path, monkeypatch):
    made, make = [], tempfile.mkstemp

    def taken_once(**options):
        handle, name = make(**options)
        if not made:
            os.unlink(name)
        made.append(name)
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", taken_once)
    write_json(tmp_path / "a.json", {"a": 1})
    assert len(made) == 2 and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_tensors_are_written_into_the_locked_file_itself(tmp_path):
    with atomic_path(tmp_path / "a.safetensors") as mine:
        before = mine.stat().st_ino
        save_tensors({"a": torch.ones(3)}, mine)
        assert mine.stat().st_ino == before  # else a kill in between leaves a file of another name


def test_names_that_are_no_text_are_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "a.json", {"image": name})
    assert read_json(tmp_path / "a.json") == {"image": name}


def test_numbers_and_nests_without_end_are_refused(tmp_path):
    for text in ("1" * 5000, "[" * 100_000, '{"a": 1, "a": 2}', "\x80", "{"):
        (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(FileFormatError, match=r"a\.json"):
            read_json(tmp_path / "a.json")


def test_messages_are_short_and_names_that_no_file_can_have_are_none(tmp_path):
    assert len(str(InputError("x" * 100_000))) < 2000 and str(InputError("short")) == "short"
    for name in ("x" * 300, "é" * 200, "a\0b", "../a", "/etc/passwd", ""):
        assert inside(tmp_path, name) is None
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
