"""Fetching published data sets: downloads that go on where they broke off, archives unpacked whole or not at all, every file checked."""

import contextlib
import gzip
import http.client
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from semalign3d_core.datasets.published import Archive, PublishedData
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, OutputError
from semalign3d_core.runtime.files import read_json, sha256_of_file, write_json, write_text

RETRIES, PAUSE, TIMEOUT = 4, 1.0, 30.0  # of a download; seconds
CHUNK = 1 << 20
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
RECORD = ".semalign3d.json"  # beside the data: {"archives": {name: sha256}, "files": {path: [size, sha256]}}


def fetch(data: PublishedData, output: Path, source: str = "", partial: bool = False) -> Path:
    """Fetches, unpacks and checks a data set; what is there already is only checked. Returns its folder.

    source: local file or folder, or address of a folder, instead of the official addresses;  partial: other counts are no error
    """
    folder, record = output / data.folder, output / f"{data.folder}{RECORD}"
    if record.is_file() and folder.is_dir():
        check(data, output, partial)
        return folder
    marker = output / f".{data.folder}.unpacking"  # that a killed run leaves
    if folder.exists() and not marker.is_file():
        raise OutputError(f"{folder} exists and was not unpacked by this command; choose another --output, or remove it")
    hashes = {}
    write_text(marker, "", ours=True)
    for archive in data.archives:
        path = _local_copy(archive, output, source)
        hashes[archive.name] = _checked_hash(path, output / ".downloads" / "hashes.json")
        _unpack(path, output / archive.into, archive)
        _record_hash(hashes[archive.name], path.name, output / ".downloads" / "hashes.json")
    if not folder.is_dir():
        raise FileFormatError(f"{', '.join(a.name for a in data.archives)} held no folder {data.folder}: this is not {data.title}")
    files = {str(path.relative_to(folder)): [path.stat().st_size, sha256_of_file(path)] for path in _files(folder)}
    _check_counts(data, folder, partial)
    write_json(record, {"archives": hashes, "files": files}, ours=True)
    marker.unlink(missing_ok=True)
    return folder


def check(data: PublishedData, output: Path, partial: bool = False) -> int:
    """Compares every file with what was unpacked; raises :class:`FileFormatError` for the first that differs. Returns their number."""
    folder, record = output / data.folder, output / f"{data.folder}{RECORD}"
    if not record.is_file():
        raise MissingFileError(f"{record} does not exist: {data.title} was not fetched into {output} by this command")
    files = read_json(record)["files"]
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise MissingFileError(f"{path} is missing; remove {folder} and fetch again")
        if path.stat().st_size != size or sha256_of_file(path) != digest:
            raise FileFormatError(f"{path} was changed after it was unpacked; remove {folder} and fetch again")
    _check_counts(data, folder, partial)
    return len(files)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_counts(data: PublishedData, folder: Path, partial: bool) -> None:
    for pattern, expected in data.counts.items():
        found = sum(1 for _ in folder.glob(pattern))
        if found != expected and not partial:
            raise FileFormatError(
                f"{folder} has {found} files {pattern}, {data.title} has {expected}; fetch again, or accept it with --partial"
            )


def _local_copy(archive: Archive, output: Path, source: str) -> Path:
    """The archive on disk: a local copy, or a finished download."""
    if source and "://" not in source:
        place = Path(source)
        path = place / archive.name if place.is_dir() else place
        if path.is_file() and path.name == archive.name:
            return path
        if not place.is_dir() and place.is_file() and place.name != archive.name and archive.into:
            raise MissingFileError(f"{archive.name} is needed, too: give a folder that holds all files with --source")
        raise MissingFileError(f"{path} does not exist: --source must be {archive.name}, or a folder that holds it")
    if archive.manual and not source:
        raise InputError(f"{archive.name} cannot be fetched by a program: {archive.manual}; get it there and give it with --source FILE")
    address = f"{source.rstrip('/')}/{archive.name}" if source else archive.url
    return download(address, output / ".downloads" / archive.name)


def download(address: str, path: Path) -> Path:
    """Downloads to ``path``; a broken download goes on where it broke off, also in a later run."""
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    problem = ""
    for attempt in range(RETRIES):
        if attempt:
            time.sleep(PAUSE * attempt)
        try:
            if _download_rest(address, part):
                part.replace(path)
                return path
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 416:
                raise MissingFileError(
                    f"{address}: {error.code} {error.reason}; get the file by hand and give it with --source FILE"
                ) from error
            if error.code == 416:  # more is here than there
                part.unlink(missing_ok=True)
            problem = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = str(getattr(error, "reason", "") or error)
    raise OutputError(f"{address} could not be fetched ({problem}); what is here is kept, run the same command again to go on")


def _download_rest(address: str, part: Path) -> bool:
    """Appends what is missing; whether the file is whole then."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        goes_on = have and answer.status == 206
        length = int(answer.headers.get("Content-Length") or -1)
        broken = contextlib.suppress(http.client.IncompleteRead, ConnectionError, TimeoutError)
        with open(part, "ab" if goes_on else "wb") as file, broken:
            shutil.copyfileobj(answer, file, CHUNK)
    expected = (have if goes_on else 0) + length
    return length < 0 or part.stat().st_size == expected


def _checked_hash(path: Path, known: Path) -> str:
    """The hash of an archive; another one than that of the first that could be unpacked is an error."""
    digest = sha256_of_file(path)
    first = (read_json(known) if known.is_file() else {}).get(path.name, digest)
    if first != digest:
        raise FileFormatError(f"{path} has another checksum than its first download ({digest[:12]}, not {first[:12]}); remove one of them")
    return digest


def _record_hash(digest: str, name: str, known: Path) -> None:
    write_json(known, (read_json(known) if known.is_file() else {}) | {name: digest}, ours=True)


def _unpack(path: Path, into: Path, archive: Archive) -> None:
    """Unpacks an archive, or copies another file, beside its place first: what is there is whole."""
    into.mkdir(parents=True, exist_ok=True)
    if not archive.name.endswith(ARCHIVES):
        shutil.copyfile(path, into / archive.name)
        return
    with tempfile.TemporaryDirectory(prefix=".unpacking.", dir=into) as temporary:
        try:
            _extract(path, Path(temporary))
            while inner := _archives_in(Path(temporary)):  # Caltech-101's holds two
                _extract(inner[0], inner[0].parent)
                inner[0].unlink()
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            downloaded = path.parent.name == ".downloads"
            if downloaded:
                path.unlink()
            hint = "it is removed: run the same command again" if downloaded else "get it again"
            raise FileFormatError(f"{path} is damaged or no archive ({error}); {hint}") from error
        for member in sorted(Path(temporary).iterdir()):
            target = into / member.name
            if target.is_dir():
                shutil.rmtree(target)
            member.replace(target)


def _extract(path: Path, folder: Path) -> None:
    """Unpacks an archive."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken:
                raise zipfile.BadZipFile(f"{broken} fails its checksum")
            for name in archive.namelist():
                if name.startswith("/") or ".." in Path(name).parts:
                    raise ValueError(f"{name} leads out of the archive")
            archive.extractall(folder)
        shutil.rmtree(folder / "__MACOSX", ignore_errors=True)  # what a Mac adds
        return
    if path.name.endswith("gz"):
        with gzip.open(path) as stream:
            while stream.read(CHUNK):  # to the end, where the checksum stands
                pass
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")


def _archives_in(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.name.endswith(ARCHIVES)]


def described(name: str, data: PublishedData) -> Iterator[str]:
    """What a user must know before fetching."""
    yield f"{name}: {data.title}"
    yield f"  about {data.megabytes[0]} MB to fetch, {data.megabytes[1]} MB unpacked; licence: {data.licence}"
    for archive in data.archives:
        yield f"  {archive.url}" + (f"  (by hand: {archive.manual})" if archive.manual else "")
    if not data.counts:
        yield "  nobody publishes how many files it has: they are compared with the first download, not counted"
    if data.needs:
        yield f"  needs also: {', '.join(data.needs)}"
