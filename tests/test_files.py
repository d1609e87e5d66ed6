"""Writing results: whole files, and one clear sentence when the system refuses. The refusals are the system's own."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from llama4rec_core import files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError), files.whole(path) as aside:
        aside.write_text("half")
        raise RuntimeError("killed")
    assert list(path.parent.iterdir()) == []
    files.write_text(path, "all of it")
    assert path.read_text() == "all of it" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "adapter"
    with pytest.raises(RuntimeError), files.whole_folder(path) as aside:
        (aside / "a.txt").write_text("half")
        raise RuntimeError("killed")
    assert list(path.parent.iterdir()) == []
    with files.whole_folder(path) as aside:
        (aside / "a.txt").write_text("all of it")
    assert [p.name for p in path.parent.iterdir()] == ["adapter"] and (path / "a.txt").read_text() == "all of it"


@pytest.mark.parametrize("earlier", [[], ["old.txt", "a.txt"]])
def test_a_folder_of_an_earlier_try_is_replaced(tmp_path, earlier):
    path = tmp_path / "adapter"
    path.mkdir()
    for name in earlier:
        (path / name).write_text("of an earlier try")
    with pytest.raises(RuntimeError), files.whole_folder(path):
        raise RuntimeError("killed")
    assert sorted(p.name for p in path.iterdir()) == sorted(earlier)  # until the new one is complete
    with files.whole_folder(path) as aside:
        (aside / "a.txt").write_text("new")
    assert [p.name for p in path.iterdir()] == ["a.txt"] and (path / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_an_earlier_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path, replace = tmp_path / "adapter", os.replace
    path.mkdir()
    (path / "a.txt").write_text("of an earlier try")

    def refused(source, target):
        if target == path and not str(source).endswith(".old"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(files.StorageError, match="the disk is full"), files.whole_folder(path) as aside:
        (aside / "a.txt").write_text("new")
    assert (path / "a.txt").read_text() == "of an earlier try"
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_tensors_are_read_as_they_were_written(tmp_path):
    written = {"a": torch.arange(6, dtype=torch.int64).reshape(2, 3).T, "b": torch.ones(2, requires_grad=True)}
    found = files.read_tensors(files.write_tensors(tmp_path / "t.safetensors", written))
    assert found.keys() == written.keys() and all(torch.equal(found[name], written[name]) for name in written)


def run(code, preexec_fn=None):
    """A process of its own, since limits and rights are the process's."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, preexec_fn=preexec_fn
    )


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(tmp_path, ending):
    done = run(f"""
        import resource, signal
        from pathlib import Path
        import pandas as pd
        from llama4rec_core import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = Path({str(tmp_path)!r})
        files.write_frame(folder / "before.{ending}", pd.DataFrame({{"a": [1]}}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            files.write_frame(folder / "big.{ending}", pd.DataFrame({{"a": [str(n) for n in range(100_000)]}}))
        except files.StorageError as error:
            print(error)
    """)
    assert "could not write" in done.stdout and f"big.{ending}" in done.stdout, done.stderr
    assert "what is already computed is kept" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == [f"before.{ending}"]
    assert files.read_frame(tmp_path / f"before.{ending}")["a"].tolist() == [1]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a system with user ids")
def test_an_unwritable_results_folder_is_one_sentence(tmp_path):
    locked = tmp_path / "results"
    locked.mkdir()
    locked.chmod(0o555)
    become = f"os.setuid({65534})" if os.geteuid() == 0 else "pass"  # root may write anywhere
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
    done = run(f"""
        import os
        from pathlib import Path
        from llama4rec_core import files
        {become}
        try:
            files.write_text(Path({str(locked)!r}) / "runs" / "a.txt", "x")
        except files.StorageError as error:
            print(error)
    """)
    assert "may not be written to" in done.stdout and "LLAMA4REC_RESULTS" in done.stdout, done.stderr
