"""What is published is what was measured: the README's rows, looks at test, and Base rows beside an LLM's."""

import dataclasses

import base_rows
import numpy as np
import pandas as pd
import publish
import pytest

from llama4rec_core import looks, paths, presets, tables
from llama4rec_core.data import load, subset_users
from llama4rec_core.data.dataset import write_dataset
from llama4rec_core.files import read_json, write_json
from llama4rec_core.run import Run

FEW_USERS = "data: {users: 30, protocol: leave-one-out}\nbackbone_settings: {MF: {epochs: 2}, DeepFM: {epochs: 2}}\n"


def publish_gains(results, *lines):
    """Lines of mean gains, beside those that are there."""
    path = results / "tables" / "gains.csv"
    zero = dict.fromkeys(tables.GAIN_COLUMNS, 0.0)
    about = {"preset": "few", "commit": "", "llm": "some", "dataset": "ml-100k", "protocol": "rolling"}
    about |= {"task": "direct", "row": "Llama4Rec", "metric": "NDCG@5", "backbones": 2, "seeds": 1, "paper_gain": 0.2}
    frame = pd.DataFrame([zero | about | line for line in lines])
    tables.write(pd.concat([*([tables.read(path)] if path.exists() else []), frame]), path)


LLAMA4REC = {"gain": 0.18, "ci_low": 0.09, "ci_high": 0.27, "better": 2}


@pytest.fixture
def published(results):
    publish_gains(results, LLAMA4REC, {"row": "IFT", "gain": -0.05, "ci_low": -0.1, "ci_high": 0.01})
    return results


@pytest.fixture
def few(results, tmp_path):
    """A run on 30 users that has its data and nothing else."""
    (tmp_path / "few.yaml").write_text(FEW_USERS, encoding="utf-8")
    run = Run.open(tmp_path / "few.yaml")
    write_dataset(subset_users(load("ml-100k"), 30, seed=0), run.path("data"))
    write_json(run.path("data/split.json"), {"dataset": "ml-100k"})
    return run


TEXT = f"Before.\n{publish.MARKERS[0]}old{publish.MARKERS[1]}\nAfter."


def shown(text):
    """The README's cells, by heading."""
    head, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    return [
        dict(zip(*([cell.strip() for cell in each.split("|")[1:-1]] for each in (head, line)), strict=True))
        for line in lines
    ]


def test_the_readme_gets_the_mean_gains_between_its_markers(published):
    found = publish.with_results(TEXT)
    assert found.startswith("Before.\n") and found.endswith("\nAfter.") and "old" not in found
    assert shown(found) == [{
        "data set": "ml-100k", "task": "direct recommendation", "metric": "NDCG@5", "backbones": "2",
        "IFT": "-5.0% [-10.0%, +1.0%]", "Llama4Rec": "+18.0% [+9.0%, +27.0%]", "better, interval without 0": "2 of 2",
        "best second opinion": "", "the paper's Llama4Rec": "+20.0%", "preset, seeds": "few, 1",
    }]  # fmt: skip
    assert "Test has been looked at 0 times" in found and publish.with_results(found) == found


def test_the_second_opinion_that_came_out_best_on_test_is_shown_for_errors_the_lowest(published):
    publish_gains(published, {"row": "Base + EASE", "gain": 0.3}, {"row": "Base + item-kNN", "gain": 0.2})
    rating = {"task": "rating", "metric": "RMSE"}
    more = [{"row": "Base + biases", "gain": -0.02}, {"row": "Base + another", "gain": 0.1}, {"gain": -0.01}]
    publish_gains(published, *(rating | each for each in more))
    direct, rating = shown(publish.with_results(TEXT))
    assert direct["best second opinion"].startswith("EASE +30.0%")
    assert rating["best second opinion"].startswith("biases -2.0%") and rating["task"] == "rating prediction"


def test_of_several_runs_that_of_most_backbones_is_shown_and_other_metrics_and_smoke_are_not(published):
    publish_gains(
        published,
        LLAMA4REC | {"preset": "whole", "backbones": 4, "gain": 0.1},
        LLAMA4REC | {"preset": "whole", "backbones": 4, "gain": 0.7, "metric": "HR@5"},
        LLAMA4REC | {"preset": "whole", "backbones": 4, "gain": 0.6, "protocol": "leave-one-out"},
        LLAMA4REC | {"preset": "smoke", "backbones": 9, "gain": 0.9},
        LLAMA4REC | {"dataset": "other", "gain": 0.5},
    )
    first, second = shown(publish.with_results(TEXT))
    assert (first["preset, seeds"], first["Llama4Rec"]) == ("whole, 1", "+10.0% [+9.0%, +27.0%]")
    assert (second["data set"], second["Llama4Rec"]) == ("other", "+50.0% [+9.0%, +27.0%]")


def test_a_readme_without_published_runs_has_no_table(results):
    assert "|" not in publish.with_results(TEXT)
    publish_gains(results, {"preset": "smoke"})
    assert "|" not in publish.with_results(TEXT)


def test_the_committed_readme_shows_the_committed_tables(monkeypatch):
    monkeypatch.delenv("LLAMA4REC_RESULTS", raising=False)
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert "| --- " in readme and publish.with_results(readme) == readme


def test_looks_of_rows_and_of_base_rows_are_published(few):
    frame = pd.DataFrame({"user": [0, 1], "HR@5": [1.0, 0.0], "row": "Base", "seed": 0, "cases": 1})
    frame = frame.assign(dataset="ml-100k", protocol="leave-one-out", backbone="MF")
    tables.write(tables.build(frame, few.preset), few.path("tables/table_2_direct.csv"), "c")
    for path, what in (("rows/MF-s0/look.json", "MF-s0"), ("base/rolling/MF-s1.json", "MF-s1 Base, rolling")):
        write_json(few.path(path), looks.look(few, what, "why"))
    write_json(few.path("base/record.json"), {})  # no look
    publish.merge(few)
    publish.merge(few)
    assert looks.read(paths.results() / "test_looks.csv")["what"].tolist() == ["MF-s0", "MF-s1 Base, rolling"]
    assert "Test has been looked at 2 times" in publish.with_results(TEXT)


def test_a_replay_publishes_the_looks_of_the_run_that_it_repeats_and_none_of_its_own(few):
    frame = pd.DataFrame({"user": [0, 1], "HR@5": [1.0, 0.0], "row": "Base", "seed": 0, "cases": 1})
    frame = frame.assign(dataset="ml-100k", protocol="leave-one-out", backbone="MF")
    tables.write(tables.build(frame, few.preset), few.path("tables/table_2_direct.csv"), "c")
    write_json(few.path("rows/MF-s0/look.json"), looks.look(few, "MF-s0", "why"))
    write_json(few.path("looks/unpacked.json"), looks.look(few, "MF-s0", "why") | {"preset": "laptop"})
    replay = dataclasses.replace(few, preset=dataclasses.replace(few.preset, published="somewhere"))
    publish.merge(replay)
    assert looks.read(paths.results() / "test_looks.csv")["preset"].tolist() == ["laptop"]


def test_a_run_without_tables_has_nothing_to_publish(few):
    with pytest.raises(ValueError, match="results/runs/few holds no table to publish: run snakemake"):
        publish.merge(few)


@pytest.mark.data
def test_base_rows_join_the_tables_without_touching_an_llms_rows_or_the_readme(few, published):
    values = pd.DataFrame({"user": range(4), "HR@5": 0.5, "row": "Base", "seed": 0, "cases": 1, "backbone": "LightGCN"})
    preset = presets.build({"name": "quick", "llm": "some", "evaluation": {"draws": 200}})
    llms = tables.build(values.assign(dataset="ml-100k", protocol="rolling"), preset)
    tables.write(llms, published / "tables" / "table_2_direct.csv", "A caption.")
    llms = tables.read(published / "tables" / "table_2_direct.csv")
    rows = [("as-set", "MF", 0), ("as-set", "MF", 1), ("as-set", "DeepFM", 0)]
    for variant, name, seed in [*rows, ("as-set", "Popularity", 0), ("rolling", "MF", 0)]:
        base_rows.row(few, variant, name, seed)
    base_rows.all_tables(few)
    made = {path.stem: tables.read(path) for path in few.path("base").glob("table_*.csv")}
    assert set(made) == {"table_2_direct", "table_4_rating"}
    found = made["table_2_direct"].set_index(["protocol", "backbone", "metric"])
    assert found.loc[("leave-one-out", "MF", "HR@5"), "seeds"] == 2
    assert found.loc[("rolling", "MF", "HR@5"), "seeds"] == 1
    assert found.loc[("leave-one-out", "MF", "HR@5"), "paper_value"] == 0.0690
    assert np.isnan(found.loc[("rolling", "MF", "HR@5"), "paper_value"])
    assert ("leave-one-out", "Popularity", "HR@5") in found.index
    assert (found["users"] == 30).all() and (found["row"] == "Base").all()
    assert found.loc[("leave-one-out", "MF", "HR@5"), "cases"] == 30
    assert found.loc[("rolling", "MF", "HR@5"), "cases"] == 300  # ten each
    looked = read_json(few.path("base/rolling/MF-s0.json"))
    assert (looked["what"], looked["preset"]) == ("MF-s0 Base, rolling", "few")

    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    done = publish.merge(few)
    assert set(done["action"]) == {"added"}
    assert (paths.ROOT / "README.md").read_text(encoding="utf-8") == readme  # results elsewhere are not the README's
    joined = tables.read(published / "tables" / "table_2_direct.csv")
    assert len(joined) == len(found) + len(llms)
    kept = joined[joined["llm"] == "some"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, llms.reset_index(drop=True))
    assert read_json(published / "recorded" / "base-few.json")["preset"]["name"] == "few"
    assert few.path("figures/base_curves.png").exists()
    assert len(looks.read(published / "test_looks.csv")) == 5
    assert set(publish.merge(few)["action"]) == {"unchanged"}
    with pytest.raises(ValueError, match="preset few is leave-one-out as set: ask for the variant as-set"):
        base_rows.row(few, "leave-one-out", "MF", 0)


@pytest.mark.data
def test_the_order_of_ties_can_change_what_is_measured_and_says_so_in_the_protocol(few):
    for variant in ("as-set", "ties-reverse", "ties-random"):
        base_rows.row(few, variant, "Popularity", 0)
    found = [pd.read_parquet(path) for path in sorted(few.path("base").glob("*/Popularity-s0.parquet"))]
    assert {each["protocol"].iloc[0] for each in found} == {
        "leave-one-out",
        "leave-one-out, ties reversed",
        "leave-one-out, ties at random",
    }
