"""What is shown is what was measured."""

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import presets, report, rows, stages, tables


@pytest.fixture
def published(results):
    """One backbone, three methods, four users: HR@5 1/4, 2/4 and 3/4."""
    frames = []
    for method, hits in (("Base", 1), ("IFT", 2), ("Llama4Rec", 3)):
        values = np.array([1.0] * hits + [0.0] * (4 - hits))
        named = {"dataset": "ml-100k", "protocol": "leave-one-out", "backbone": "LightGCN", "method": method, "seed": 0}
        frames.append(pd.DataFrame({"user": range(4), "HR@5": values}).assign(**named))
    table = tables.build(pd.concat(frames), preset="quick", llm="some", draws=200)
    tables.write(table, results / "tables" / "table_2_direct.csv", "A caption.")
    return results


def test_the_readme_gets_the_published_rows_between_its_markers(published):
    text = f"Before.\n{report.MARKERS[0]}old{report.MARKERS[1]}\nAfter."
    found = report.with_results(text, "quick")
    assert found.startswith("Before.\n") and found.endswith("\nAfter.") and "old" not in found
    (row,) = [line for line in found.splitlines() if "LightGCN" in line]
    assert row.startswith("| LightGCN | HR@5 | 0.2500 [") and "| 0.5000 [" in row and "| 0.7500 [" in row
    assert row.endswith("| 0.0744, 0.0846, 0.0967 |")  # the paper's
    assert report.with_results(found, "quick") == found
    assert "LightGCN" not in report.with_results(text, "laptop")


def test_the_committed_readme_shows_the_committed_tables(monkeypatch):
    monkeypatch.delenv("LLAMA4REC_RESULTS", raising=False)
    readme = (report.paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert report.with_results(readme, "quick") == readme


def test_base_rows_join_tables_2_to_4_without_touching_the_llms_rows(published):
    """Two backbones and a yardstick of a small run, published beside a row that an LLM made; readable as any table."""
    results = published
    llms = tables.read(results / "tables" / "table_2_direct.csv")
    run = stages.Run.open(
        presets.Preset("quick", data=presets.DataSettings(users=30), backbone_settings={"MF": {"epochs": 2}})
    )
    with pytest.raises(ValueError, match="results/runs/quick holds no table to publish"):
        report.publish(run)
    for name, seed in (("MF", 0), ("MF", 1), ("DeepFM", 0)):
        rows.base(run, name, seed)
    rows.base(report.variant(run, "rolling"), "MF", 0)
    made = report.base_rows(run)
    assert set(made) == {"table_2_direct", "table_4_rating"}
    found = made["table_2_direct"].set_index(["protocol", "backbone", "metric"])
    assert found.loc[("leave-one-out", "MF", "HR@5"), "seeds"] == 2
    assert found.loc[("rolling", "MF", "HR@5"), "seeds"] == 1
    assert found.loc[("leave-one-out", "MF", "HR@5"), "paper_value"] == 0.0690
    assert np.isnan(found.loc[("rolling", "MF", "HR@5"), "paper_value"])
    assert ("leave-one-out", "Popularity", "HR@5") in found.index and ("rolling", "Popularity", "HR@5") in found.index

    readme = report.paths.ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    report.publish(run)
    assert readme.read_text(encoding="utf-8") == text  # results elsewhere are not the README's
    joined = tables.read(results / "tables" / "table_2_direct.csv")
    assert len(joined) == len(found) + len(llms)
    kept = joined[joined["llm"] == "some"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, llms.reset_index(drop=True))
    record = report.read_json(results / "recorded" / "base-quick.json")
    # the yardsticks stand in the record too: every row has its fit
    assert [len(each["fits"]) for each in record] == [5, 3] and record[1]["data"]["protocol"] == "rolling"


@pytest.mark.parametrize("own, expected", [
    ({}, ["rolling", "ties-reverse", "ties-random"]),
    ({"protocol": "rolling"}, ["ties-reverse", "ties-random"]),
    ({"tie_break": "random"}, ["rolling", "ties-reverse"]),
])  # fmt: skip
def test_a_variant_is_never_the_run_itself(own, expected):
    assert rows.variants(presets.DataSettings(**own)) == expected
