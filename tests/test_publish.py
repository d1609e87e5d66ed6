"""What is published is what was measured: the README's rows, looks at test, and Base rows beside an LLM's."""

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


def publish_rows(results, hits, name="few", protocol="leave-one-out", metric="HR@5", table="table_2_direct"):
    """One backbone, four users; a row's HR@5 is as many quarters as it has hits."""
    frames = []
    for row, count in hits.items():
        values = np.array([1.0] * count + [0.0] * (4 - count))
        about = {"dataset": "ml-100k", "protocol": protocol, "backbone": "LightGCN", "row": row, "seed": 0, "cases": 1}
        frames.append(pd.DataFrame({"user": range(4), metric: values}).assign(**about))
    preset = presets.build({"name": name, "llm": "some", "evaluation": {"draws": 200}})
    tables.write(tables.build(pd.concat(frames), preset), results / "tables" / f"{table}.csv", "A caption.")


@pytest.fixture
def published(results):
    publish_rows(results, {"Base": 1, "IFT": 2, "Llama4Rec": 3})
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


def test_the_readme_gets_the_published_rows_between_its_markers(published):
    found = publish.with_results(TEXT)
    assert found.startswith("Before.\n") and found.endswith("\nAfter.") and "old" not in found
    (row,) = shown(found)
    (line,) = tables.read(published / "tables" / "table_2_direct.csv").query("row == 'Llama4Rec'").itertuples()
    assert row == {
        "backbone": "LightGCN", "metric": "HR@5", "Base": "0.2500", "IFT": "0.5000", "Llama4Rec": "0.7500",
        "gain": tables.gain_text(line), "paper: Base, Llama4Rec, gain": "0.0744, 0.0967, +30.0%",
    }  # fmt: skip
    assert row["gain"].startswith("+200.0% [")
    assert "(preset `few`; LLM some, tuned: all parameters; seeds: 1)" in found and "second opinion" not in found
    assert "Test has been looked at 0 times" in found
    assert publish.with_results(found) == found


def test_the_best_second_opinion_on_test_is_shown_and_called_that(published):
    publish_rows(published, {"Base": 1, "Llama4Rec": 2, "Base + item-kNN": 3, "Base + EASE": 2}, protocol="rolling")
    found = publish.with_results(TEXT)
    (row,) = shown(found)
    assert row["best second opinion"] == "item-kNN 0.7500" and row["IFT"] == ""
    assert "came out best on test" in found and "The paper's numbers are of leave-one-out." in found
    errors = {"Base": 2, "Base + biases": 1, "Base + another": 3}
    publish_rows(published, errors, metric="MSE")
    (row,) = shown(publish.with_results(TEXT))
    assert row["best second opinion"] == "biases 0.5000" and row["Llama4Rec"] == row["gain"] == ""


def test_a_readme_without_published_runs_has_no_table_and_smoke_is_none(results):
    assert "|" not in publish.with_results(TEXT)
    publish_rows(results, {"Base": 1}, name="smoke")
    assert "|" not in publish.with_results(TEXT)


def test_each_published_run_has_a_table_of_its_own(published):
    both = [tables.read(published / "tables" / "table_2_direct.csv")]
    publish_rows(published, {"Base": 4, "Llama4Rec": 2}, name="second", protocol="rolling")
    both.append(tables.read(published / "tables" / "table_2_direct.csv"))
    tables.write(pd.concat(both), published / "tables" / "table_2_direct.csv", "c")
    found = publish.with_results(TEXT)
    assert found.count("| backbone |") == 2
    assert found.index("leave-one-out** (preset `few`") < found.index("rolling** (preset `second`")
    assert "| -50.0% [" in found


def test_of_a_preset_under_two_protocols_the_rolling_one_is_shown(published):
    both = [tables.read(published / "tables" / "table_2_direct.csv")]
    publish_rows(published, {"Base": 4, "Llama4Rec": 2}, protocol="rolling")
    both.append(tables.read(published / "tables" / "table_2_direct.csv"))
    tables.write(pd.concat(both), published / "tables" / "table_2_direct.csv", "c")
    found = publish.with_results(TEXT)
    assert found.count("| backbone |") == 1 and "rolling** (preset `few`" in found


def test_a_gain_over_base_is_shown_without_interval_where_another_row_was_compared_with(published):
    table = tables.read(published / "tables" / "table_2_direct.csv")
    table.loc[table["row"] == "Llama4Rec", "compared_with"] = "IFT"
    tables.write(table, published / "tables" / "table_2_direct.csv", "c")
    assert shown(publish.with_results(TEXT))[0]["gain"] == "+200.0%"


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


def test_a_run_without_tables_has_nothing_to_publish(few):
    with pytest.raises(ValueError, match="results/runs/few holds no table to publish: run snakemake"):
        publish.merge(few)


@pytest.mark.data
def test_base_rows_join_the_tables_without_touching_an_llms_rows_or_the_readme(few, published):
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
