"""Spelling of providers, weights on disk, and what the doctor says. Nothing here reaches the network."""

import pytest

from semalign3d_core import backbones, depth, masks
from semalign3d_core.cli import doctor
from semalign3d_core.errors import InputError, MissingDependencyError, MissingWeightsError
from semalign3d_core.providers import create_provider, first_line, parse_spec, require
from semalign3d_core.weights import DOWNLOAD_VARIABLE, KNOWN, Weights, download_command, known_weights, locate

hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """An empty hub cache, and no network."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
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
    with pytest.raises(InputError, match="choose one of compact, dinov2"):
        backbones.create("resnet:50")
    with pytest.raises(InputError, match="no option 'size': it has revision, device, dtype, cells"):
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


def test_what_is_a_default_is_free_and_pinned():
    for name in ("dinov2:base", "depth_anything_v2:small", "sam:base", "sam2:tiny"):
        assert KNOWN[name].free and KNOWN[name].licence == "Apache-2.0" and len(KNOWN[name].revision) == 40


def test_paths_that_do_not_exist_are_not_taken_for_hub_ids(empty_cache):
    with pytest.raises(MissingWeightsError, match="folder ./nothing/here does not exist"):
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


def test_downloads_need_permission_and_respect_offline_mode(empty_cache, monkeypatch):
    weights, asked = Weights("owner/name", "a" * 40, 1, "MIT"), []

    def fake_download(wanted, revision=None):
        asked.append((wanted.id, revision))
        return empty_cache / revision

    monkeypatch.setattr("semalign3d_core.weights.download", fake_download)
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


def test_the_doctor_refuses_unknown_names():
    with pytest.raises(InputError, match="dinov2:base"):
        doctor.run(doctor.Options(download=("dinov4",)))
