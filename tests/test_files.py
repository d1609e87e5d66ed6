"""Writing results: whole files, and one clear sentence when the system refuses. The refusals are the system's own."""

import os
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from llama4rec_core import files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError), files.whole(path) as aside:
        aside.write_text("half")
        raise RuntimeError("killed")
    assert list(path.parent.iterdir()) == []
    files.write_text(path, "all of it")
    assert path.read_text() == "all of it" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_once_makes_a_file_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return pd.DataFrame({"a": [1.5]})

    for _ in range(3):
        assert files.once(tmp_path / "t.parquet", make)["a"].tolist() == [1.5]
    assert len(calls) == 1


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
