"""The doctor says what there is and what is missing."""

import re
from collections import namedtuple

from llama4rec_core import doctor, paths
from llama4rec_core.__main__ import main


def test_a_machine_that_has_all_is_told_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "MEMORY", 0)
    monkeypatch.setattr(doctor, "DISK", 0)
    monkeypatch.setenv("LLAMA4REC_CACHE", str(tmp_path / "not" / "yet"))
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "Nothing is missing." in said and re.search(r"torch \d", said) and re.search(r"\d+ cores", said)
    assert re.search(r"number format +(bfloat16|float32), \d+ billion operations", said)
    assert re.search("smollm2-135m-instruct +not in the cache", said)
    assert not (tmp_path / "not").exists()  # it only looks


def test_what_is_missing_is_named_all_at_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "MEMORY", 10**6)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(1, 1, 10**9))
    monkeypatch.setattr(doctor.os, "access", lambda path, _: path != tmp_path)
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "of memory: preset `quick` needs 1000000" in said
    assert "0.9 GiB of disk are free for cache" in said and "0.9 GiB of disk are free for results" in said
    assert "cannot be written to: set LLAMA4REC_CACHE to a folder that can" in said
