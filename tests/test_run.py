"""A run's folder: what it was made with, what a notebook may ask for, and who may write in it."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import paths, run
from llama4rec_core.run import INSIDE, STREAMS, Run, lock, rng


def preset(folder, text, name="mine"):
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_refuses_other_settings_but_takes_more_seeds_backbones_and_prices(results, tmp_path):
    Run.open(preset(tmp_path, "seeds: [0]"))
    Run.open(preset(tmp_path, "seeds: [0, 1]\nbackbones: [MF]\nprices: {read: 9}"))
    with pytest.raises(ValueError, match="was made with instructions.tokens = 200000, the preset now says 5"):
        Run.open(preset(tmp_path, "instructions: {tokens: 5}"))


def test_settings_of_the_command_line_make_the_same_run_of_other_seeds_or_backbones(results, tmp_path):
    content = "backbones: [MF, LightGCN, SASRec]\nablations: [LightGCN, SASRec]\nevaluation: {untuned_users: 7}\n"
    whole = Run.open(preset(tmp_path, content))
    part = whole.but({"backbones": ["LightGCN"], "seeds": ["3", "4"]})  # Snakemake hands lists on as text
    assert part.folder == whole.folder and Run.open(part.asked).preset == part.preset
    assert [list(part.preset.backbones), list(part.preset.seeds)] == [["LightGCN"], [3, 4]]
    assert list(part.preset.ablations) == ["LightGCN"] and part.preset.evaluation.untuned_users == 7
    same = whole.but({"backbones": ["LightGCN"], "seeds": [3, 4]})
    assert same.asked == part.asked != whole.but({"seeds": ["3", "4"]}).asked


def test_settings_of_the_command_line_are_checked_as_a_preset_s_are(results, tmp_path):
    whole = Run.open(preset(tmp_path, "seeds: [0]"))
    with pytest.raises(ValueError, match="--config has an unknown key 'sedes': the known ones are name, data, llm"):
        whole.but({"sedes": ["1"]})
    with pytest.raises(ValueError, match="was made with tuning.layers = 10, the preset now says 4: delete that folder"):
        whole.but({"tuning": {"layers": "4"}})
    other = whole.but({"name": "other", "instructions": {"tokens": "70", "trunk": {"tokens": "80", "history": 9}}})
    found = other.preset.instructions
    assert [other.folder.name, found.tokens, found.trunk.tokens, found.trunk.history] == ["other", 70, 80, 9]
    assert (
        found.trunk.rated == whole.preset.instructions.trunk.rated and found.shares == whole.preset.instructions.shares
    )


def test_a_section_of_the_command_line_leaves_the_rest_of_the_section_to_the_preset(results, tmp_path):
    whole = Run.open(preset(tmp_path, "instructions: {window_users: 0.5, trunk: {history: 9, rated: 0.7}}"))
    found = whole.but({"name": "other", "instructions": {"trunk": {"rated": "0.2"}}}).preset.instructions
    assert (found.window_users, found.trunk.history, found.trunk.rated) == (0.5, 9, 0.2)


def test_a_setting_that_was_not_there_yet_had_its_default(results, tmp_path):
    record = Run.open(preset(tmp_path, "seeds: [0]")).path("settings.json")
    content = json.loads(record.read_text())
    del content["instructions"]["trunk"]["rated"]
    record.write_text(json.dumps(content))
    Run.open(preset(tmp_path, "seeds: [0]"))
    with pytest.raises(ValueError, match="made with instructions.trunk.rated = 0.15, the preset now says 0.5"):
        Run.open(preset(tmp_path, "instructions: {trunk: {rated: 0.5}}"))


def own(folder, rows=((1, 2, 3),)):
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=["user", "item", "rating"]).to_csv(folder / "plays.csv", index=False)
    (folder / "songs.csv").write_text("item,title\n2,A song\n", encoding="utf-8")
    return preset(folder, "data: {name: own, interactions: plays.csv, items: songs.csv}")


def test_a_moved_folder_reopens_since_no_path_is_part_of_what_a_run_is(results, tmp_path):
    first = Run.open(own(tmp_path / "here"))
    assert str(tmp_path) not in first.path("settings.json").read_text()
    (tmp_path / "here").rename(tmp_path / "there")
    assert Run.open(tmp_path / "there" / "mine.yaml").folder == first.folder


def test_changed_own_data_are_noted_and_the_same_data_are_not(results, tmp_path):
    opened = Run.open(own(tmp_path))
    (record,) = opened.note_raw_files()
    before = record.stat().st_mtime_ns
    own(tmp_path)  # written again, with the same content
    assert opened.note_raw_files() == [record] and record.stat().st_mtime_ns == before
    own(tmp_path, rows=((1, 2, 3), (1, 3, 4)))
    opened.note_raw_files()
    assert record.stat().st_mtime_ns > before


def test_a_file_that_a_preset_names_and_is_not_there_is_one_sentence(results, tmp_path):
    path = own(tmp_path)
    (tmp_path / "songs.csv").unlink()
    with pytest.raises(FileNotFoundError, match="songs.csv is not there, but the preset's data section names it"):
        Run.open(path)


@pytest.fixture
def asked(monkeypatch):
    """What Snakemake would have been asked for."""
    calls = []
    monkeypatch.setattr(run, "_ask_snakemake", lambda name, files: calls.append((name, files)))
    return calls


def test_what_is_there_is_not_asked_for_and_what_is_missing_is(results, tmp_path, asked, monkeypatch):
    monkeypatch.delenv(INSIDE, raising=False)
    opened = Run.open(preset(tmp_path, "seeds: [0]"))
    opened.path("a.csv").write_text("x")
    opened.require("a.csv")
    assert asked == []
    opened.require("a.csv", "b.csv", makes=["c.csv"])
    assert asked == [(opened.asked, [str(opened.path(name)) for name in ("b.csv", "c.csv")])]


def test_inside_a_rule_a_missing_file_is_an_error_and_its_own_output_is_not(results, tmp_path, asked, monkeypatch):
    monkeypatch.setenv(INSIDE, "1")
    opened = Run.open(preset(tmp_path, "seeds: [0]"))
    opened.require(makes=["c.csv"])
    with pytest.raises(FileNotFoundError, match="results/runs/mine lacks b.csv: the rule that runs this notebook must"):
        opened.require("b.csv", makes=["c.csv"])
    assert asked == []


def test_changed_raw_data_are_asked_for_anew(results, tmp_path, asked, monkeypatch):
    monkeypatch.delenv(INSIDE, raising=False)
    opened = Run.open(own(tmp_path))
    for name in ("data/dataset.json", "a.csv"):
        opened.path(name).parent.mkdir(exist_ok=True)
        opened.path(name).write_text("x")
    opened.require("a.csv")
    assert asked == []
    time.sleep(0.02)
    own(tmp_path, rows=((1, 2, 5),))
    opened.require("a.csv")
    assert [len(files) for _, files in asked] == [1]


def test_a_workflow_that_fails_says_what_snakemake_said(results, tmp_path, monkeypatch):
    monkeypatch.delenv(INSIDE, raising=False)
    opened = Run.open(preset(tmp_path, "seeds: [0]"))
    with pytest.raises(RuntimeError, match="(?s)Snakemake could not make what this notebook needs.*MissingRuleExcept"):
        opened.require("no/such/file")


HOLD = """
import sys, time
from pathlib import Path
from llama4rec_core.run import lock
held = lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holder(folder, seconds):
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_workflow_waits_for_the_first_and_a_killed_one_holds_nothing(tmp_path):
    first = holder(tmp_path, 60)
    assert first.stdout.readline() == "held\n"
    second = holder(tmp_path, 0)
    assert "another workflow is at work" in second.stderr.readline()
    assert second.poll() is None
    first.kill()
    assert second.communicate(timeout=20)[0] == "held\n" and second.returncode == 0
    os.close(lock(tmp_path))


def test_each_stream_has_its_own_numbers_and_they_do_not_change():
    assert len(set(STREAMS.values())) == len(STREAMS)
    assert rng("P1 couples", 3).integers(10**6) == np.random.default_rng([3, 41]).integers(10**6)
    assert rng("measured users").integers(10**6) == np.random.default_rng([51]).integers(10**6)
    assert rng("memorization probe").integers(10**6) == np.random.default_rng(61).integers(10**6)
    with pytest.raises(KeyError):
        rng("P9 couples", 0)


def test_users_are_drawn_without_repeats_and_sorted():
    drawn = run.draw_users(5, 30, rng("P1 users", 0))
    assert drawn == sorted(set(drawn)) and len(drawn) == 5
    assert run.draw_users(99, 7, rng("P1 users", 0)) == list(range(7))
