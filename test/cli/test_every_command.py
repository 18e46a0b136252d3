"""Every command: what it may replace, and what it says where it cannot write, cannot read, has no home, or meets names that are no text."""

import colorsys  # noqa: F401  (imported late, when the tests may no longer read it)
import os
import resource
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from category_folder import CHANNELS, build, write_data_set
from PIL import Image

from semalign3d_core.category.storage import save_model
from semalign3d_core.cli.main import main
from semalign3d_core.learned.spherical_maps.network import SphericalMaps
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps

TABLE = '{"a.png": {"cap": [10, 10], "neck": [20, 20]}, "b.png": {"cap": [12, 10], "neck": [22, 20]}}'


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A data set folder, its model, a mapper, templates, photographs with a table, and two evaluations."""
    root = tmp_path_factory.mktemp("inputs")
    write_data_set(root / "data")
    save_model(build(root / "data")[0], root / "models" / "thing.safetensors")
    save_spherical_maps(SphericalMaps(CHANNELS, 1), root / "mapper.safetensors", MapperFacts("sim", False))
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.png", *(f"templates/set/{side}.png" for side in ("back", "front", "left", "right"))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(root / name)
    (root / "photos" / "labels.json").write_text(TABLE)
    assert main(["import", str(root / "photos" / "labels.json"), "--category", "bottle", "--output", str(root / "imported")]) == 0
    return root


def _image(number):
    return f"IN/data/JPEGImages/thing/im{number:02d}.jpg"


SEEN = "--backbone precomputed:sim --masks precomputed --dataset IN/data"
# command -> (arguments, the files that it writes); IN is the folder of the inputs, OUT where it writes
COMMANDS = {
    "align": (
        f"align {_image(0)} --model IN/models/thing.safetensors {SEEN} --depth precomputed --output OUT", "im00.align.json im00.align.png",
    ),
    "match": (
        f"match {_image(0)} {_image(1)} --points 40,40 --model IN/models/thing.safetensors {SEEN} --depth precomputed --output OUT",
        "im00_im01.match.json im00_im01.match.png",
    ),
    "imd": (f"imd {_image(0)} {_image(1)} {SEEN} --output OUT", "im00_im01.imd.json im00_im01.imd.png"),
    "pose": ("pose IN/photos/a.png --templates IN/templates --cells 8 --device cpu --output OUT", "a.pose.json a.imd.png"),
    "build": (
        f"build --category thing {SEEN} --depth precomputed --preset IN/fast.yaml --output OUT", "thing.safetensors thing.report.json",
    ),
    "inspect": ("inspect IN/models/thing.safetensors --output OUT/page.html", "page.html"),
    "sphere": (f"sphere IN/mapper.safetensors {_image(0)} {SEEN} --output OUT/sphere.html", "sphere.html"),
    "config": ("config --preset align_fast --output OUT/a.yaml", "a.yaml"),
    "import": ("import IN/photos/labels.json --category bottle --output OUT", "import_report.json"),
    "synth": ("synth --categories mug --train 1 --test 0 --pairs 0 --size 48 --workers 1 --output OUT", "synth.json"),
}  # fmt: skip
TRAININGS = {
    "compact": ("train compact --output OUT/net.safetensors", "net.safetensors"),
    "geoaware": ("train geoaware --dataset IN/data --output OUT/net.safetensors", "net.safetensors"),
    "sfnet": ("train sfnet --dataset IN/data --output OUT/net.safetensors", "net.safetensors"),
    "spherical_maps": ("train spherical_maps --dataset IN/data --output OUT/net.safetensors", "net.safetensors"),
}
OTHERS = {
    "evaluate": (
        f"evaluate --method nearest_neighbour {SEEN} --depth precomputed --output OUT".replace("IN/data", "IN/pairs"),
        "results.json results.csv pairs.csv predictions.jsonl report.html config.json",
    ),
    "compare": ("compare a=IN/evaluation1 b=IN/evaluation2 --dataset IN/pairs --output OUT", "compare.json compare.csv compare.html"),
}


@pytest.fixture(scope="session")
def evaluations(inputs):
    """Adds a data set with pairs and two evaluations to the inputs."""
    from tiny_dataset import make_dataset

    make_dataset(inputs / "pairs", images=2)
    for number in (1, 2):
        assert main(_arguments(OTHERS["evaluate"][0], inputs, inputs / f"evaluation{number}")) == 0
    return inputs


@pytest.fixture
def command(request, inputs):
    """(arguments, files) of a command; the inputs are there."""
    (inputs / "fast.yaml").write_text("calibrate: false\nem:\n  rounds: 8\ndense:\n  points: 40\n")
    if request.param in OTHERS:
        request.getfixturevalue("evaluations")
    arguments, files = {**COMMANDS, **TRAININGS, **OTHERS}[request.param]
    return arguments, files.split()


def _arguments(text, inputs, output):
    return [part.replace("IN/", f"{inputs}/").replace("OUT", str(output)) for part in text.split()]


def _one_sentence(capsys):
    error = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "are guesses" not in line]
    assert len(error) == 1 and "Traceback" not in error[0] and error[0].startswith("semalign3d"), error
    return error[0]


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if not path.is_dir())


def commands(*tables):
    return pytest.mark.parametrize("command", [name for table in tables for name in table], indirect=True)


@pytest.mark.slow
@commands(COMMANDS, OTHERS)
def test_results_replace_themselves_and_nothing_else(command, inputs, tmp_path, capsys):
    text, files = command
    arguments = _arguments(text, inputs, tmp_path / "out")
    assert main(arguments) == 0
    assert set(files) <= set(_files(tmp_path / "out"))
    assert main(arguments) == 0, "its own results may be replaced"
    foreign = b'{"version": "5.5.0", "shapes": ["hours of labelling"]}'
    for name in files:
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_bytes(foreign)
        capsys.readouterr()
        assert main(arguments) in (1, 2)
        assert name in _one_sentence(capsys) and (tmp_path / "out" / name).read_bytes() == foreign
    if text.startswith(("align", "imd", "inspect")):
        assert main([*arguments, "--overwrite"]) == 0 and (tmp_path / "out" / name).read_bytes() != foreign


@pytest.mark.slow
@commands(COMMANDS, TRAININGS, OTHERS)
def test_special_files_are_never_replaced(command, inputs, tmp_path, capsys):
    text, files = command
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / files[0])
    assert main([*_arguments(text, inputs, tmp_path / "out"), "--overwrite"]) in (1, 2)
    assert "a named pipe" in _one_sentence(capsys) and (tmp_path / "out" / files[0]).is_fifo()


@commands(TRAININGS)
def test_nothing_is_trained_for_a_place_that_is_taken(command, inputs, tmp_path, capsys):
    text, files = command
    (tmp_path / files[0]).write_bytes(b"months of work")
    assert main(_arguments(text, inputs, tmp_path)) == 1
    assert "--overwrite" in _one_sentence(capsys) and (tmp_path / files[0]).read_bytes() == b"months of work"


@pytest.mark.parametrize("link", ["itself", "symlink", "hard link", "relative"])
def test_an_input_is_never_replaced(inputs, tmp_path, capsys, monkeypatch, link):
    picture, model = tmp_path / "a.align.png", tmp_path / "model.html"
    shutil.copyfile(inputs / "photos" / "a.png", picture)
    shutil.copyfile(inputs / "models" / "thing.safetensors", model)
    other = tmp_path / "out" / "x"
    other.parent.mkdir()
    names = {"itself": model, "relative": Path("out") / ".." / "model.html", "symlink": other, "hard link": other}
    if link == "symlink":
        other.symlink_to(model)
    elif link == "hard link":
        other.hardlink_to(model)
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    assert main(["sphere", str(model), str(picture), "--output", str(names[link]), "--overwrite"]) != 0
    assert model.read_bytes() == before
    capsys.readouterr()
    safetensors = tmp_path / "m.safetensors"
    model.rename(safetensors)
    if link in ("symlink", "hard link"):
        other.unlink()
        (other.symlink_to if link == "symlink" else other.hardlink_to)(safetensors)
    target = {"itself": safetensors, "relative": Path("out") / ".." / "m.safetensors"}.get(link, other)
    assert main(["inspect", str(safetensors), "--output", str(target), "--overwrite"]) == 1
    assert "it is an input of this command" in _one_sentence(capsys) and safetensors.read_bytes() == before


def test_an_input_that_has_the_name_of_a_result(inputs, tmp_path, capsys):
    """The second image is called as the result of the first one."""
    for name in ("x.png", "x.imd.png"):
        shutil.copyfile(inputs / "photos" / "a.png", tmp_path / name)
    before = (tmp_path / "x.imd.png").read_bytes()
    arguments = ["pose", str(tmp_path / "x.png"), str(tmp_path / "x.imd.png"), "--templates", str(inputs / "templates"), "--cells", "8"]
    assert main([*arguments, "--output", str(tmp_path), "--overwrite"]) == 1
    assert "is an input of this command" in capsys.readouterr().err and (tmp_path / "x.imd.png").read_bytes() == before


# Places that cannot be written or read


@contextmanager
def full_disk(most=150):
    """Files cannot grow beyond ``most`` bytes, as on a disk that is full or over its quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@commands(COMMANDS, OTHERS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(command, inputs, tmp_path, capsys):
    with full_disk():
        assert main(_arguments(command[0], inputs, tmp_path / "out")) == 1
    assert "cannot write" in _one_sentence(capsys)
    left = _files(tmp_path / "out")
    assert not [name for name in left if Path(name).name.startswith(".") or (tmp_path / "out" / name).stat().st_size >= 150], left


@pytest.mark.slow
@commands(COMMANDS, TRAININGS, OTHERS)
def test_a_folder_that_cannot_be_made_is_one_sentence(command, inputs, capsys):
    assert main(_arguments(command[0], inputs, "/proc/nowhere")) == 1
    assert "cannot write" in _one_sentence(capsys)


@contextmanager
def nobody():
    """Without the rights of root, which no folder is closed to."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def closed(tmp_path_factory):
    """A folder that nobody may list or enter."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        folder = Path(name) / "closed"
        folder.mkdir()
        (folder / "a.png").write_bytes(b"")
        folder.chmod(0)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize(
    "text",
    [
        "align CLOSED --category mug", "align CLOSED/a.png --category mug", "match CLOSED/a.png CLOSED/a.png --points 1,1",
        "imd CLOSED/a.png CLOSED/a.png", "pose CLOSED --category mug", "build --dataset CLOSED --output CLOSED/x",
        "inspect CLOSED/m.safetensors", "sphere CLOSED/m.safetensors CLOSED/a.png", "config --preset align_fast --output CLOSED/a.yaml",
        "import CLOSED/l.json --output CLOSED/x", "synth --output CLOSED/x", "evaluate --dataset CLOSED --output CLOSED/x",
        "compare CLOSED/a CLOSED/b", "data spair71k --source CLOSED", "reproduce --dataset CLOSED",
        "train compact --output CLOSED/x.safetensors", "train sfnet --dataset CLOSED", "train geoaware --dataset CLOSED",
        "train spherical_maps --dataset CLOSED",
    ],
)  # fmt: skip
def test_a_closed_folder_is_one_sentence(text, closed, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir("/tmp")
    with nobody():
        assert main(text.replace("CLOSED", str(closed)).split()) == 1
    assert _one_sentence(capsys)


@pytest.mark.slow
@commands(COMMANDS, OTHERS)
def test_names_that_are_no_text(command, inputs, tmp_path, capsys):
    """Latin-1 letters in the names of all inputs and outputs."""
    copy = tmp_path / os.fsdecode(b"caf\xe9 inputs")
    shutil.copytree(inputs, copy)
    text, files = command
    arguments = [part.replace("IN/", f"{copy}/").replace("OUT", str(tmp_path / os.fsdecode(b"r\xe9sultats"))) for part in text.split()]
    assert main(arguments) == 0, capsys.readouterr().err
    assert set(files) <= set(_files(tmp_path / os.fsdecode(b"r\xe9sultats")))


@pytest.mark.slow
@commands(COMMANDS, OTHERS)
def test_nobody_has_a_home(command, inputs, tmp_path, capsys, monkeypatch):
    """A container with a user that the system does not know."""
    import pwd

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert main(_arguments(command[0], inputs, tmp_path / "out")) == 0, capsys.readouterr().err


@pytest.mark.parametrize("text", ["doctor", "data"])
def test_what_looks_around_needs_no_home(text, monkeypatch, capsys):
    import pwd

    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert main([text]) == 0, capsys.readouterr().err


def test_the_rest_of_a_batch_goes_on(inputs, tmp_path, capsys):
    """One picture cannot be read, the result of another cannot be written; the third is there."""
    photos = tmp_path / "photos"
    shutil.copytree(inputs / "photos", photos)
    shutil.copyfile(photos / "a.png", photos / "c.png")
    (photos / "d.png").write_bytes(b"no picture")
    os.mkfifo(photos / "e.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.pose.json").mkdir()
    arguments = ["pose", str(photos), "--templates", str(inputs / "templates"), "--cells", "8", "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 3 and "Traceback" not in error
    assert {"b.pose.json", "c.pose.json"} <= set(_files(tmp_path / "out"))
