"""What is published is what was measured: the README's rows, and Base rows beside an LLM's."""

import base_rows
import numpy as np
import pandas as pd
import publish
import pytest

from llama4rec_core import paths, tables
from llama4rec_core.data import load, subset_users
from llama4rec_core.data.dataset import write_dataset
from llama4rec_core.files import read_json, write_json
from llama4rec_core.run import Run

FEW_USERS = "data: {users: 30}\nbackbone_settings: {MF: {epochs: 2}, DeepFM: {epochs: 2}}\n"


@pytest.fixture
def published(results):
    """One backbone, three methods, four users: HR@5 1/4, 2/4 and 3/4."""
    frames = []
    for method, hits in (("Base", 1), ("IFT", 2), ("Llama4Rec", 3)):
        values = np.array([1.0] * hits + [0.0] * (4 - hits))
        named = {"dataset": "ml-100k", "protocol": "leave-one-out", "backbone": "LightGCN", "method": method, "seed": 0}
        frames.append(pd.DataFrame({"user": range(4), "HR@5": values}).assign(**named))
    table = tables.build(pd.concat(frames), preset="few", llm="some", draws=200)
    tables.write(table, results / "tables" / "table_2_direct.csv", "A caption.")
    return results


@pytest.fixture
def few(results, tmp_path):
    """A run on 30 users that has its data and nothing else."""
    (tmp_path / "few.yaml").write_text(FEW_USERS, encoding="utf-8")
    run = Run.open(tmp_path / "few.yaml")
    write_dataset(subset_users(load("ml-100k"), 30, seed=0), run.path("data"))
    write_json(run.path("data/split.json"), {"dataset": "ml-100k"})
    return run


def test_the_readme_gets_the_published_rows_between_its_markers(published):
    text = f"Before.\n{publish.MARKERS[0]}old{publish.MARKERS[1]}\nAfter."
    found = publish.with_results(text, "few")
    assert found.startswith("Before.\n") and found.endswith("\nAfter.") and "old" not in found
    (row,) = [line for line in found.splitlines() if "LightGCN" in line]
    assert row.startswith("| LightGCN | HR@5 | 0.2500 [") and "| 0.5000 [" in row and "| 0.7500 [" in row
    assert row.endswith("| 0.0744, 0.0846, 0.0967 |")  # the paper's
    assert publish.with_results(found, "few") == found
    assert "LightGCN" not in publish.with_results(text, "another")


def test_the_committed_readme_shows_the_committed_tables(monkeypatch):
    monkeypatch.delenv("LLAMA4REC_RESULTS", raising=False)
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split(publish.MARKERS[0])[1].split(publish.MARKERS[1])[0]
    presets = set()
    for path in (paths.ROOT / "results" / "tables").glob("table_*.csv"):
        table = tables.read(path)
        presets |= set(table.loc[table["llm"] != "", "preset"])
    assert "| " in shown and any(publish.with_results(readme, preset) == readme for preset in presets)


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
    assert (found["users"] == 30).all() and (found["method"] == "Base").all()

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
    assert set(publish.merge(few)["action"]) == {"unchanged"}


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
