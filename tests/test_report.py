"""What is shown is what was measured."""

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import report, tables


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
