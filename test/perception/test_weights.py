"""Spelling of providers, weights on disk, and what the doctor says. Nothing here reaches the network."""

import re
import shutil
from pathlib import Path

import pytest

from semalign3d_core.cli import doctor
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.providers import create_provider, first_line, parse_spec, require
from semalign3d_core.perception.weights.known import KNOWN, Weights
from semalign3d_core.perception.weights.store import (
    DOWNLOAD_VARIABLE,
    Located,
    download,
    download_command,
    known_weights,
    locate,
    recorded_revisions,
    revisions_file,
    weight_files,
)
from semalign3d_core.runtime.errors import InputError, MissingDependencyError, MissingWeightsError

hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """An empty hub cache, and no network."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(DOWNLOAD_VARIABLE, raising=False)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("compact", ("compact", "", {})),
        ("dinov2:base", ("dinov2", "base", {})),
        ("vit:owner/name,revision=main,device=cpu", ("vit", "owner/name", {"revision": "main", "device": "cpu"})),
        ("geoaware:/a,b/best.PTH,captioner=/c,d.pt", ("geoaware", "/a,b/best.PTH", {"captioner": "/c,d.pt"})),
    ],
)
def test_spellings(spec, expected):
    assert parse_spec(spec) == expected


def test_unknown_families_and_options_are_refused_with_the_legal_ones():
    with pytest.raises(InputError, match="choose one of auto, compact, dinov2"):
        backbones.create("resnet:50")
    with pytest.raises(InputError, match="no option 'size': it has revision, device, dtype, side, runtime"):
        backbones.create("dinov2:base,size=3")
    with pytest.raises(InputError, match="no option 'model'"):
        masks.create("similarity,model=3")
    assert depth.create("none") is None and masks.create("none", model=object()) is None


def test_factories_get_what_they_have_parameters_for():
    registry = {"a": lambda argument, dataset_root=None, size="1": (argument, dataset_root, size), "b": lambda argument: argument}
    assert create_provider("thing", registry, "a:x,size=2", dataset_root="here", model=3) == ("x", "here", "2")
    assert create_provider("thing", registry, "b:y", dataset_root="here") == "y"


def test_missing_packages_name_the_extra():
    with pytest.raises(MissingDependencyError, match=r"pip install 'semalign3d\[hf\]'"):
        require("a_package_that_is_not_there", "hf")
    assert first_line(EOFError()) == "EOFError"


@pytest.mark.parametrize("spec", ["dinov2:base", "sd:1.5", "dinov2:giant"])
def test_missing_weights_give_one_message_with_the_exact_command(empty_cache, spec):
    with pytest.raises(MissingWeightsError) as caught:
        backbones.create(spec)
    assert download_command(KNOWN[spec]) in str(caught.value)
    assert f"hf download {KNOWN[spec].id} --revision {KNOWN[spec].revision}" in str(caught.value)


@pytest.mark.parametrize("create, spec", [(depth.create, "depth_anything_v2"), (masks.create, "sam2"), (masks.create, "sam:huge")])
def test_defaults_of_depth_and_masks(empty_cache, create, spec):
    expected = {"depth_anything_v2": "depth_anything_v2:small", "sam2": "sam2:tiny"}.get(spec, spec)
    with pytest.raises(MissingWeightsError, match=KNOWN[expected].id):
        create(spec)


def test_what_is_a_default_is_free():
    for name in ("dinov2:base", "depth_anything_v2:small", "sam:base", "sam2:tiny"):
        assert KNOWN[name].free and KNOWN[name].licence == "Apache-2.0"
    assert not KNOWN["clip:large_336"].free and not KNOWN["depth_anything_v2:metric_indoor"].free  # no licence is stated


@pytest.mark.parametrize("name", KNOWN)
def test_all_weights_are_pinned_to_a_commit_of_their_own(name):
    assert re.fullmatch(r"[0-9a-f]{40}", KNOWN[name].revision)
    assert [w.revision for w in KNOWN.values()].count(KNOWN[name].revision) == 1


def test_every_known_weight_is_in_the_table_of_licences():
    text = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    for name, weights in KNOWN.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert [cell.strip() for cell in row.split("|")[2:5]] == [weights.id, f"{weights.megabytes:.0f}", weights.licence]


def test_paths_that_do_not_exist_are_not_taken_for_hub_ids(empty_cache):
    with pytest.raises(MissingWeightsError, match=r"folder \./nothing/here does not exist"):
        locate(known_weights("vit", "./nothing/here", "base"))


def fake_cache(root, weights, names):
    folder = root / f"models--{weights.id.replace('/', '--')}" / "snapshots" / weights.revision
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_weights_in_the_cache_are_found_and_half_downloads_are_not(empty_cache):
    weights = Weights("owner/name", "a" * 40, 1, "MIT")
    fake_cache(empty_cache, weights, ["config.json"])
    with pytest.raises(MissingWeightsError):
        locate(weights)
    folder = fake_cache(empty_cache, weights, ["model.safetensors"])
    found = locate(weights)
    assert found.folder == folder and found.revision == "a" * 40
    assert found.digest() == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # SHA-256 of {}


def unpinned_cache(root, hub_id, commit, branch="main"):
    """A download of ``branch`` that was at ``commit`` then."""
    weights = Weights(hub_id, commit, 1, "MIT")
    folder = fake_cache(root, weights, ["config.json", "model.safetensors"])
    references = folder.parents[1] / "refs"
    references.mkdir(exist_ok=True)
    (references / branch).write_text(commit)
    return folder


def test_weights_without_a_pin_keep_the_commit_they_had_first(empty_cache, capsys):
    weights = known_weights("vit", "owner/name", "base")
    with pytest.raises(MissingWeightsError, match="revision main"):
        locate(weights)
    first = unpinned_cache(empty_cache, "owner/name", "a" * 40)
    assert locate(weights, may_download=False).revision == "a" * 40 and recorded_revisions() == {}  # looking records nothing
    assert locate(weights).folder == first
    assert recorded_revisions() == {"owner/name": "a" * 40}
    assert f"commit {'a' * 40} from now on (recorded in {revisions_file()})" in capsys.readouterr().err
    # the branch moves: what was used first is used still
    unpinned_cache(empty_cache, "owner/name", "b" * 40)
    assert locate(weights).folder == first and capsys.readouterr().err == ""
    # another commit only if it is named, and only that once
    assert locate(weights, "b" * 40).revision == "b" * 40 and recorded_revisions() == {"owner/name": "a" * 40}
    # and if it is not there any more, the other commit is refused
    shutil.rmtree(first)
    with pytest.raises(MissingWeightsError, match=f"hf download owner/name --revision {'a' * 40}") as caught:
        locate(weights)
    assert f"the one first used here, see {revisions_file()}" in str(caught.value)


def test_a_home_that_cannot_be_written_does_not_keep_weights_from_being_used(empty_cache, capsys):
    unpinned_cache(empty_cache, "owner/name", "a" * 40)
    revisions_file().parents[1].write_text("a file where the folder should be")
    assert locate(known_weights("vit", "owner/name", "base")).revision == "a" * 40
    assert f"could not be recorded: cannot write {revisions_file()}" in capsys.readouterr().err


def test_pinned_weights_are_not_recorded(empty_cache):
    fake_cache(empty_cache, KNOWN["dinov2:small"], ["config.json", "model.safetensors"])
    assert locate(KNOWN["dinov2:small"]).revision == KNOWN["dinov2:small"].revision
    assert not revisions_file().exists()


def test_other_formats_beside_the_weights_do_not_change_their_hash(tmp_path):
    (tmp_path / "model.safetensors").write_text("{}")
    alone = Located(tmp_path, None, "here").digest()
    (tmp_path / "pytorch_model.bin").write_text("the same, pickled")
    assert Located(tmp_path, None, "here").digest() == alone
    (tmp_path / "model.safetensors").unlink()
    assert weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_text("{}")
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_text("half")
    patterns = known_weights("sd", str(tmp_path), "1.5").patterns
    assert weight_files(tmp_path, patterns) == [tmp_path / "unet" / "diffusion_pytorch_model.safetensors"]


def test_a_download_without_usable_weights_is_an_error(empty_cache, monkeypatch):
    folder = empty_cache / "snapshot"
    folder.mkdir(parents=True)
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **options: str(folder))
    with pytest.raises(MissingWeightsError, match=r"owner/name \(revision main\) holds no \*.safetensors"):
        download(Weights("owner/name", None, 0, "MIT"))


def test_gated_weights_say_how_to_get_access(empty_cache, monkeypatch):
    def refuse(*args, **options):
        raise OSError("401 Client Error")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(MissingWeightsError, match="accept its licence on its page, then run: hf auth login"):
        download(KNOWN["dinov3:base"])


def test_downloads_need_permission_and_respect_offline_mode(empty_cache, monkeypatch):
    weights, asked = Weights("owner/name", "a" * 40, 1, "MIT"), []

    def fake_download(wanted, revision=None):
        asked.append((wanted.id, revision))
        return empty_cache / revision

    monkeypatch.setattr("semalign3d_core.perception.weights.store.download", fake_download)
    for variable, offline, expected in (("0", "0", 0), ("1", "1", 0), ("1", "0", 1)):
        monkeypatch.setenv(DOWNLOAD_VARIABLE, variable)
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        if expected:
            assert locate(weights).revision == "a" * 40
        else:
            with pytest.raises(MissingWeightsError):
                locate(weights)
        assert len(asked) == expected
    with pytest.raises(MissingWeightsError):
        locate(weights, may_download=False)


def test_the_doctor_lists_everything_and_fetches_nothing(empty_cache, capsys, monkeypatch):
    monkeypatch.setenv(DOWNLOAD_VARIABLE, "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    weights = KNOWN["dinov2:small"]
    fake_cache(empty_cache, weights, ["config.json", "model.safetensors"])
    assert doctor.run(doctor.Options()) == 0
    text = capsys.readouterr().out
    for name, known in KNOWN.items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert known.licence in line and f"{known.megabytes:.0f} MB" in line
        assert ("present" if name == "dinov2:small" else "missing") in line
    assert "device: " in text and f"revision {weights.revision[:12]} sha256 44136fa355b3" in text
    assert "semalign3d doctor --download sd:1.5 dinov2:base" in text
    verdict = text.splitlines()[-1]
    assert verdict.startswith("verdict: ready: embedded backbone with models of aeroplane, bottle, car, chair, mug, tvmonitor")
    assert verdict.endswith("pretrained weights: dinov2:small")


def test_the_doctor_shows_weights_used_by_hub_id(empty_cache, capsys):
    unpinned_cache(empty_cache, "owner/name", "a" * 40)
    locate(known_weights("vit", "owner/name", "base"))
    doctor.run(doctor.Options())
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.split()[:1] == ["owner/name"])
    assert f"present  owner/name revision {'a' * 12} sha256 44136fa355b3" in line


def test_the_doctor_pins_what_it_downloads(empty_cache, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "download", lambda weights, revision: unpinned_cache(empty_cache, weights.id, "c" * 40))
    doctor.run(doctor.Options(download=("owner/name",)))
    assert recorded_revisions() == {"owner/name": "c" * 40} and "owner/name: owner/name is at" in capsys.readouterr().out


def test_the_doctor_refuses_unknown_names():
    with pytest.raises(InputError, match="dinov2:base"):
        doctor.run(doctor.Options(download=("dinov4",)))
