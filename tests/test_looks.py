"""Every look at test is on record, once, and says which configuration was looked at."""

import hashlib
from datetime import UTC, datetime

import pytest

from llama4rec_core import looks, paths
from llama4rec_core.files import read_json
from llama4rec_core.run import Run


def record(what="LightGCN-s0", date="2026-11-25", **other):
    return {"date": date, "commit": "abc", "preset": "quick", "configuration": "f00", "what": what, "why": "w"} | other


def test_a_look_says_when_with_which_code_and_settings_at_what_and_why(results, tmp_path):
    (tmp_path / "mine.yaml").write_text("backbones: [MF]\n", encoding="utf-8")
    run = Run.open(tmp_path / "mine.yaml")
    before = datetime.now(UTC).date().isoformat()
    found = looks.look(run, "MF-s0", "a row of the tables")
    assert list(found) == looks.COLUMNS and before <= found["date"] <= datetime.now(UTC).date().isoformat()
    settings = hashlib.sha256(run.path("settings.json").read_bytes()).hexdigest()
    assert found | {"date": ""} == {
        "date": "", "commit": paths.commit(), "preset": "mine", "configuration": settings[:12], "what": "MF-s0",
        "why": "a row of the tables",
    }  # fmt: skip
    (tmp_path / "other.yaml").write_text("name: mine\nprompts: {candidates: 10}\n", encoding="utf-8")
    run.path("settings.json").unlink()
    other = looks.look(Run.open(tmp_path / "other.yaml"), "MF-s0", "a row of the tables")
    assert other["configuration"] != found["configuration"]
    kept = [read_json(path) for path in run.path("looks").glob("*.json")]  # a row that is made again is another look
    assert sorted(kept, key=str) == sorted([found, other], key=str)


def test_looks_are_merged_sorted_by_date_and_each_stands_once(tmp_path):
    path = tmp_path / "test_looks.csv"
    looks.merge([record("SASRec-s0"), record(date="2026-12-01"), record()], path)
    first = path.read_bytes()
    assert first.decode().splitlines() == [
        "date,commit,preset,configuration,what,why",
        "2026-11-25,abc,quick,f00,LightGCN-s0,w",
        "2026-11-25,abc,quick,f00,SASRec-s0,w",
        "2026-12-01,abc,quick,f00,LightGCN-s0,w",
    ]
    looks.merge([record()], path)
    assert path.read_bytes() == first
    table = looks.merge([record("MF-s0", "2026-11-01")], path)
    assert table["what"].tolist() == ["MF-s0", "LightGCN-s0", "SASRec-s0", "LightGCN-s0"]


def test_smoke_is_exempt_and_no_look_makes_no_file(tmp_path):
    table = looks.merge([record(preset="smoke")], tmp_path / "test_looks.csv")
    assert table.empty and not (tmp_path / "test_looks.csv").exists()


def test_seeds_are_one_look_and_another_commit_configuration_or_row_is_another(tmp_path):
    path = tmp_path / "test_looks.csv"
    assert looks.count(looks.read(path)) == 0
    assert looks.count(looks.merge([record("MF-s0"), record("MF-s1"), record("MF-s12 Base, rolling")], path)) == 2
    assert looks.count(looks.merge([record("MF-s0 Base, rolling", "2026-12-01")], path)) == 2
    more = [record("MF-s0", commit="def"), record("MF-s0", configuration="f01"), record("SASRec-s0")]
    assert looks.count(looks.merge(more, path)) == 5


def test_a_record_or_a_file_of_another_form_is_refused(tmp_path):
    path = tmp_path / "test_looks.csv"
    with pytest.raises(ValueError, match="a look at test has the keys date, commit, .*, not date, commit"):
        looks.merge([record() | {"more": 1}], path)
    path.write_text("date,what\n2026-11-25,MF\n", encoding="utf-8")
    with pytest.raises(ValueError, match="test_looks.csv: the columns are date, commit, .*, not date, what"):
        looks.merge([record()], path)


def test_the_committed_looks_can_be_read_and_merging_nothing_changes_nothing(tmp_path):
    committed = paths.ROOT / "results" / "test_looks.csv"
    (tmp_path / "copy.csv").write_bytes(committed.read_bytes())
    assert looks.count(looks.merge([], tmp_path / "copy.csv")) > 0
    assert (tmp_path / "copy.csv").read_bytes() == committed.read_bytes()
