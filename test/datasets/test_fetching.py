"""Fetching data sets from a local server: broken downloads go on, damaged archives and missing files are named."""

import io
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from published_format import write_caltech, write_spair

from semalign3d_core.cli.main import main
from semalign3d_core.datasets import fetching, open_dataset, published
from semalign3d_core.datasets.published import Archive, PublishedData
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, OutputError

TINY = {"JPEGImages/*/*.jpg": 3, "ImageAnnotation/*/*.json": 3, "PairAnnotation/test/*.json": 2}


@pytest.fixture
def archive(tmp_path):
    """A tar file of a tiny SPair-71k."""
    write_spair(tmp_path / "made" / "SPair-71k")
    path = tmp_path / "made" / "SPair-71k.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "made" / "SPair-71k", "SPair-71k")
    return path


@pytest.fixture
def server(archive, monkeypatch):
    """A server of the archive: {"breaks": after so many bytes each time, "ranges": honoured, "damage": a byte}; logs the requests."""
    settings = {"breaks": None, "ranges": True, "content": archive.read_bytes(), "log": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content, start = settings["content"], 0
            settings["log"].append((self.path, self.headers.get("Range")))
            if not self.path.endswith("/SPair-71k.tar.gz"):
                self.send_error(404)
                return
            if self.headers.get("Range") and settings["ranges"]:
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = len(content) if settings["breaks"] is None else start + settings["breaks"]
            self.wfile.write(content[start:end])

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}/data"
    data = PublishedData("tiny", "SPair-71k", (Archive(f"{address}/SPair-71k.tar.gz"),), (1, 1), "none", TINY)
    monkeypatch.setitem(published.PUBLISHED, "spair71k", data)
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    yield settings, address, data
    running.shutdown()
    running.server_close()


def test_download_unpack_check(server, tmp_path, capsys):
    settings, _, _ = server
    assert main(["data", "spair71k", "--output", str(tmp_path / "out")]) == 0
    assert "nothing was fetched: add --download" in capsys.readouterr().out and not settings["log"]
    assert main(["data", "spair71k", "--output", str(tmp_path / "out"), "--download"]) == 0
    assert len(list(open_dataset(tmp_path / "out" / "SPair-71k").pairs("test"))) == 2
    assert main(["data", "spair71k", "--output", str(tmp_path / "out")]) == 0
    assert "files are as they were unpacked" in capsys.readouterr().out and len(settings["log"]) == 1
    image = next((tmp_path / "out" / "SPair-71k" / "JPEGImages").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    assert main(["data", "spair71k", "--output", str(tmp_path / "out")]) == 2
    assert f"{image} was changed" in capsys.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server, tmp_path, ranges):
    settings, _, data = server
    size = len(settings["content"])
    settings |= {"breaks": size // 3 + 1, "ranges": ranges}
    if ranges:
        fetching.fetch(data, tmp_path / "out")
        assert [span for _, span in settings["log"]] == [None, f"bytes={size // 3 + 1}-", f"bytes={2 * (size // 3 + 1)}-"]
        return
    with pytest.raises(OutputError, match=r"broke off.*run the same command again"):  # a server that always starts anew
        fetching.fetch(data, tmp_path / "out")
    settings |= {"breaks": None}
    fetching.fetch(data, tmp_path / "out")


def test_an_interrupted_run_goes_on_in_the_next(server, tmp_path, monkeypatch):
    settings, _, data = server
    settings["breaks"] = len(settings["content"]) // 2
    monkeypatch.setattr(fetching, "RETRIES", 1)
    with pytest.raises(OutputError):
        fetching.fetch(data, tmp_path / "out")
    settings["breaks"] = None
    fetching.fetch(data, tmp_path / "out")
    assert settings["log"][1][1] == f"bytes={len(settings['content']) // 2}-"


def test_damage_and_absence_are_named(server, tmp_path):
    settings, address, data = server
    settings["content"] = settings["content"][:-40] + bytes(40)
    with pytest.raises(FileFormatError, match=r"damaged or no archive.*removed"):
        fetching.fetch(data, tmp_path / "out")
    assert not (tmp_path / "out" / "SPair-71k").exists() and not (tmp_path / "out" / ".downloads" / "SPair-71k.tar.gz").exists()
    gone = PublishedData("gone", "x", (Archive(f"{address}/none.zip"),), (1, 1), "none", {})
    with pytest.raises(MissingFileError, match=r"404.*--source FILE"):
        fetching.fetch(gone, tmp_path / "out")
    with pytest.raises(InputError, match=r"cannot be fetched by a program.*Google Drive"):
        fetching.fetch(published.PUBLISHED["ap10k"], tmp_path / "out")


def test_local_copies_and_counts(server, archive, tmp_path):
    settings, address, data = server
    for number, source in enumerate((str(archive), str(archive.parent), address)):
        assert fetching.fetch(data, tmp_path / str(number), source).is_dir()
    assert len(settings["log"]) == 1  # only the address asked the server
    more = PublishedData("tiny", "SPair-71k", data.archives, (1, 1), "none", {"JPEGImages/*/*.jpg": 1800})
    with pytest.raises(FileFormatError, match=r"3 files JPEGImages.*has 1800.*--partial"):
        fetching.fetch(more, tmp_path / "few", str(archive))
    assert fetching.fetch(more, tmp_path / "few", str(archive), partial=True).is_dir()


def test_what_cannot_be_checked_is_said():
    """SPair-U: no counts are published, so that an incomplete archive of somebody else's is not noticed."""
    lines = {name: " ".join(fetching.described(name, data)) for name, data in published.PUBLISHED.items()}
    assert [name for name, text in lines.items() if "not counted" in text] == ["spair_u"]
    assert "needs also: spair71k" in lines["spair_u"] and "licence" in lines["pf_pascal"]


def test_archives_in_archives_are_unpacked(tmp_path):
    """As the official archive of Caltech-101: a zip of a compressed and of a plain tar, with what a Mac adds."""
    made, source = write_caltech(tmp_path / "made"), tmp_path / "source"
    source.mkdir()
    packed = {"101_ObjectCategories.tar.gz": "w:gz", "Annotations.tar": "w"}
    with zipfile.ZipFile(source / "caltech-101.zip", "w") as file:
        for name, mode in packed.items():
            with tarfile.open(tmp_path / name, mode) as tar:
                tar.add(made / name.partition(".")[0], name.partition(".")[0])
            file.write(tmp_path / name, f"caltech-101/{name}")
            file.writestr(f"__MACOSX/caltech-101/._{name}", b"x")
    shutil.copy(made / "test_pairs_caltech_with_category.csv", source)
    folder = fetching.fetch(published.PUBLISHED["caltech101"], tmp_path / "out", str(source))
    assert next(open_dataset(folder).pairs("test")).source.path.is_file() and (folder / "Annotations" / "Faces_2").is_dir()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith((".tar", ".gz")) or "MACOSX" in path.name]


def test_archives_cannot_write_elsewhere(tmp_path):
    path = tmp_path / "SPair-71k.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../outside.txt", "x")
    data = PublishedData("bad", "SPair-71k", (Archive("https://nowhere/SPair-71k.zip"),), (1, 1), "none", {})
    with pytest.raises(FileFormatError, match=r"leads out of the archive"):
        fetching.fetch(data, tmp_path / "out", str(path))
    with tarfile.open(tmp_path / "SPair-71k.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    data = PublishedData("bad", "SPair-71k", (Archive("https://nowhere/SPair-71k.tar.gz"),), (1, 1), "none", {})
    with pytest.raises(FileFormatError, match=r"damaged or no archive"):
        fetching.fetch(data, tmp_path / "out", str(tmp_path / "SPair-71k.tar.gz"))
    assert not (tmp_path / "outside.txt").exists()


def test_a_folder_of_somebody_else_is_not_replaced(server, archive, tmp_path, capsys):
    mine = tmp_path / "out" / "SPair-71k" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("months of work")
    assert main(["data", "spair71k", "--output", str(tmp_path / "out"), "--source", str(archive)]) == 1
    assert "was not unpacked by this command" in capsys.readouterr().err and mine.read_text() == "months of work"
    mine.unlink()
    mine.parent.rmdir()
    assert main(["data", "spair71k", "--output", str(tmp_path / "out"), "--source", str(archive)]) == 0
    assert not [path.name for path in (tmp_path / "out").iterdir() if "unpacking" in path.name]
