"""Get the raw files of a data set into a cache folder: from a folder, the official archive, or a wheel.

Nothing that comes over the network is opened before its SHA-256 is checked (an archive) or used before it is (a member
of a wheel). Files appear whole: they are written under a name of their own and renamed, so several processes may
fill one cache. Only named members of an archive are read, and never written to a path that the archive chose.
"""

import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from llama4rec_core.files import explained, whole

CHUNK = 1 << 20  # bytes

ML100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ML100K_ARCHIVE_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
ML100K_OFFICIAL = ("u.data", "u.item", "u.user")
ML100K_RECBOLE = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
ML100K_RECBOLE_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
ML1M_URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
ML1M_ARCHIVE_SHA256 = "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"
ML1M_FILES = ("ratings.dat", "movies.dat", "users.dat")
BOOKCROSSING_FILES = ("BX-Book-Ratings.csv", "BX-Books.csv", "BX-Users.csv")


class SourceError(ValueError):
    """A source could not give the files; the message says why in one sentence."""


@dataclass(frozen=True)
class RawFiles:
    folder: Path  # holds the files of one layout
    source: str  # "folder" | "archive" | "wheel"


def ml100k(
    cache: Path | str,
    folder: Path | str | None = None,
    url: str = ML100K_URL,
    sha256: str = ML100K_ARCHIVE_SHA256,
    timeout: float = 5.0,
) -> RawFiles:
    """MovieLens 100K from the folder the user names, the official archive, or the wheel of RecBole 1.2.1.

    A source that fails is followed by the next (with a warning if it was the user's folder). What the cache already
    holds comes before anything that needs the network. timeout: seconds for the connection and for each silence.
    Raises SourceError, listing every source and why it failed.
    """
    from_archive, from_wheel = Path(cache) / "ml-100k" / "archive", Path(cache) / "ml-100k" / "wheel"

    def archive_files() -> RawFiles:
        return RawFiles(archive(url, sha256, ML100K_OFFICIAL, from_archive, timeout), "archive")

    def wheel_files() -> RawFiles:
        for name, digest in ML100K_RECBOLE_SHA256.items():
            wheel_member("recbole", "1.2.1", f"recbole/dataset_example/ml-100k/{name}", digest, from_wheel)
        return RawFiles(from_wheel, "wheel")

    sources = [("archive", archive_files), ("wheel", wheel_files)]
    if _holds(from_wheel, ML100K_RECBOLE) and not _holds(from_archive, ML100K_OFFICIAL):
        sources.reverse()
    return _first_of("ML-100K", _named_folder(folder, ML100K_OFFICIAL, ML100K_RECBOLE) + sources)


def ml1m(
    cache: Path | str,
    folder: Path | str | None = None,
    url: str = ML1M_URL,
    sha256: str = ML1M_ARCHIVE_SHA256,
    timeout: float = 5.0,
) -> RawFiles:
    """MovieLens 1M from the folder the user names, or the official archive. As `ml100k`; there is no wheel."""
    into = Path(cache) / "ml-1m" / "archive"
    sources = [("archive", lambda: RawFiles(archive(url, sha256, ML1M_FILES, into, timeout), "archive"))]
    return _first_of("ML-1M", _named_folder(folder, ML1M_FILES) + sources)


def bookcrossing(
    cache: Path | str,
    folder: Path | str | None = None,
    url: str | None = None,
    sha256: str | None = None,
    timeout: float = 5.0,
) -> RawFiles:
    """BookCrossing from the folder the user names, or an archive whose address and SHA-256 the user gives.

    Its official archive has left the net, so there is no default address. Raises SourceError as `ml100k`.
    """
    if (url is None) != (sha256 is None) or (folder is None and url is None):
        raise SourceError(
            "BookCrossing has no official archive any more; name a folder that holds "
            f"{', '.join(BOOKCROSSING_FILES)}, or give both url and sha256 of an archive"
        )
    into = Path(cache) / "bookcrossing" / "archive"
    sources = _named_folder(folder, BOOKCROSSING_FILES)
    if url is not None:
        members = BOOKCROSSING_FILES
        sources.append(("archive", lambda: RawFiles(archive(url, sha256, members, into, timeout), "archive")))
    return _first_of("BookCrossing", sources)


def layout(folder: Path | str, *layouts: tuple[str, ...]) -> tuple[str, ...]:
    """The first of the layouts (tuples of file names) of which the folder holds every file, else SourceError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; name the folder that holds {_either(layouts)}")
    for names in layouts:
        if _holds(folder, names):
            return names
    raise SourceError(f"the folder {folder} lacks the files; it must hold {_either(layouts)}")


def archive(url: str, sha256: str, members: tuple[str, ...], into: Path | str, timeout: float = 5.0) -> Path:
    """Download the zip at `url` into `into` unless it is there, check it, and write `members` beside it.

    members: file names without folders; each must occur once in the archive, in whatever folder. Returns `into`.
    Raises SourceError: unreachable, cut short, wrong SHA-256, not a zip, a member missing.
    """
    into = Path(into)
    path = into / (PurePosixPath(urlsplit(url).path).name or "archive.zip")
    if path.exists():
        with _removed_if_bad(path):
            verify(path, sha256)
    else:
        download(url, path, sha256, timeout)
    for name in members:
        if not (into / name).exists():
            _extract(path, lambda inner, name=name: PurePosixPath(inner).name == name, name, None, into / name)
    return into


def wheel_member(package: str, version: str, member: str, sha256: str, into: Path | str) -> Path:
    """The path of one file out of a wheel on the package index, written to `into` and checked against its SHA-256.

    The wheel is fetched with pip (never installed, and nothing of it is run) and stays in `into`; a file or wheel that
    is there already is not fetched again. member: the path inside the wheel. Raises SourceError: pip failed, the wheel
    is damaged (it is removed, so the next try fetches anew), the member is missing, or it has another SHA-256.
    """
    into = Path(into)
    target = into / PurePosixPath(member).name
    if target.exists():
        with _removed_if_bad(target):
            verify(target, sha256)
        return target
    wheel = _wheel_in(into, package, version) or _pip_download(package, version, into)
    _extract(wheel, lambda inner: inner == member, member, sha256, target)
    return target


def download(url: str, path: Path | str, sha256: str, timeout: float = 5.0) -> None:
    """Stream `url` to `path`, which appears only when its SHA-256 is right. Raises SourceError, or StorageError."""
    path = Path(path)
    try:
        answer = urllib.request.urlopen(url, timeout=timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:  # no connection, an HTTP error, no address
        raise SourceError(f"{url} could not be fetched: {error}") from error
    with answer, whole(path) as aside:
        size = int(answer.headers.get("Content-Length") or 0) or None  # bytes
        bar = tqdm(total=size, unit="B", unit_scale=True, desc=path.name, leave=False, disable=None)
        with bar, aside.open("wb") as file:
            for chunk in _chunks(answer, url):
                file.write(chunk)
                bar.update(len(chunk))
        received = aside.stat().st_size
        if size is not None and received < size:
            raise SourceError(f"{url} broke off after {received} of {size} bytes; nothing was kept, so try again")
        verify(aside, sha256, name=url)


def verify(path: Path | str, sha256: str, name: str | None = None) -> None:
    """Raise SourceError unless the file has this SHA-256. name: what the message calls the file (default: its path)."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != sha256.lower():
        found = digest.hexdigest()
        raise SourceError(f"{name or path} is not the file it should be: SHA-256 {sha256} expected, {found} found")


def _chunks(answer: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := answer.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:  # time-outs are OSErrors
        raise SourceError(f"{url} broke off ({error}); nothing was kept, so try again") from error


def _first_of(name: str, sources: list[tuple[str, Callable[[], RawFiles]]]) -> RawFiles:
    reasons = []
    for label, get in sources:
        try:
            return get()
        except SourceError as error:
            reasons.append(f"{label}: {error}")
            if label == "folder" and len(sources) > 1:
                warnings.warn(f"{name}: the named folder was passed over, for {error}", stacklevel=3)
    raise SourceError(f"{name} could not be had from any source; " + "; ".join(reasons))


def _named_folder(folder: Path | str | None, *layouts: tuple[str, ...]) -> list[tuple[str, Callable[[], RawFiles]]]:
    """The user's folder as the first source, or no source where none was named."""

    def files() -> RawFiles:
        layout(folder, *layouts)
        return RawFiles(Path(folder), "folder")

    return [] if folder is None else [("folder", files)]


def _holds(folder: Path, names: tuple[str, ...]) -> bool:
    return all((folder / name).is_file() for name in names)


def _either(layouts: tuple[tuple[str, ...], ...]) -> str:
    return " or ".join(", ".join(names) for names in layouts)


@contextmanager
def _removed_if_bad(path: Path) -> Iterator[None]:
    """Remove a cached file that turns out damaged, so that the next try fetches it anew."""
    try:
        yield
    except (SourceError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        path.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, SourceError) else f"{path} is cut short or damaged ({error})"
        raise SourceError(f"{reason}; it was removed, so try again to fetch it anew") from error


def _extract(path: Path, wanted: Callable[[str], bool], name: str, sha256: str | None, target: Path) -> None:
    """Write the one member of the zip that is `wanted` (called `name` in messages) to `target`."""
    with _removed_if_bad(path), zipfile.ZipFile(path) as zipped:
        inner = [each for each in zipped.namelist() if wanted(each)]
        if len(inner) != 1:
            raise SourceError(f"{path} holds {len(inner)} files called {name} where it should hold one")
        with whole(target) as aside:
            with zipped.open(inner[0]) as source, aside.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            if sha256 is not None:
                verify(aside, sha256, name=f"{name} in {path}")


def _wheel_in(folder: Path, package: str, version: str) -> Path | None:
    """The wheel of this package and version in the folder, by the file naming of PEP 427."""
    start = f"{re.sub(r'[-_.]+', '_', package)}-{version}-".lower()
    return next((path for path in sorted(folder.glob("*.whl")) if path.name.lower().startswith(start)), None)


def _pip_download(package: str, version: str, into: Path) -> Path:
    """Fetch the wheel into a folder of its own, then move it to `into`."""
    with explained(into):
        into.mkdir(parents=True, exist_ok=True)
    aside = into / f".{uuid.uuid4().hex}.part"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(aside), f"{package}=={version}"]
    progress = None if sys.stdout.isatty() else subprocess.DEVNULL  # pip draws its bar on a terminal
    try:
        done = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True)
        wheel = _wheel_in(aside, package, version)
        if done.returncode != 0 or wheel is None:
            lines = [line for line in done.stderr.strip().splitlines() if line] or ["pip gave no reason"]
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            raise SourceError(f"pip could not download the wheel {package}=={version}: {reason}")
        os.replace(wheel, into / wheel.name)
        return into / wheel.name
    finally:
        shutil.rmtree(aside, ignore_errors=True)
