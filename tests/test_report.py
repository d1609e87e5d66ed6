"""The page about a published run shows the committed numbers and needs nothing else."""

import re

import pandas as pd
import report

from llama4rec_core import paths, tables
from llama4rec_core.files import write_json

PICTURE = b"\x89PNG a picture"
RECORD = {
    "git_commit": "abc", "packages": {"torch": "2"}, "data": {"data_sha256": "d4ta"},
    "tuning": {"trunk-s0": {"llm": {"sha256": "f00"}, "tokens": 1000, "seconds": 120.0, "machine": "CPU"}},
    "asking": dict.fromkeys("ab", {"asked": "x", "tokens_read": 10, "seconds": 60.0, "machine": "CPU"}),
}  # fmt: skip


def publish(results):
    line = dict.fromkeys(tables.COLUMNS, 0.5) | {
        "preset": "few", "commit": "", "llm": "some", "tuning": "", "dataset": "ml-100k", "protocol": "rolling",
        "backbone": "LightGCN", "metric": "NDCG@5", "alpha_1": "0.3", "alpha_2": "0.1", "mode": "<b>",
        "users": 4, "seeds": 1,
    }  # fmt: skip
    base = line | {"row": "Base", "value": 0.1234, "diff": float("nan"), "gain": float("nan"), "compared_with": ""}
    ours = line | {"row": "Llama4Rec", "value": 0.25, "diff": 0.05, "diff_ci_low": 0.02, "diff_ci_high": 0.08}
    ours |= {"gain": 0.25, "compared_with": "Base"}
    tables.write(pd.DataFrame([base, ours]), results / "tables" / "table_2_direct.csv", "c")
    gain = dict.fromkeys(tables.GAIN_COLUMNS, 0.1) | {key: line.get(key, "direct") for key in tables.GAIN_KEY}
    gain |= {"commit": "", "row": "Llama4Rec", "backbones": 1}
    tables.write(pd.DataFrame([gain]), results / "tables" / "gains.csv")
    for name in ("gains", "forest_direct"):
        (results / "figures" / "few").mkdir(parents=True, exist_ok=True)
        (results / "figures" / "few" / f"{name}.png").write_bytes(PICTURE)
    write_json(results / "recorded" / "run-few.json", RECORD)


def test_the_page_shows_the_rows_the_cost_and_the_hashes_and_loads_nothing(results):
    publish(results)
    found = report.page(results, "few")
    cells = re.findall(r"<td>(.*?)</td>", found)
    assert (
        "0.1234 [0.5000, 0.5000]" in cells and "+25.0% [+10.0%, +40.0%]" in cells and "+10.0% [+10.0%, +10.0%]" in cells
    )
    assert "d4ta" in cells and "f00" in cells
    minutes = [cells[cells.index(what) + 1 : cells.index(what) + 4] for what in ("tuning trunk-s0", "asking")]
    assert minutes == [["CPU", "1,000", "2.0"], ["CPU", "10", "1.0"]]  # answers of two files are one
    assert found.count('src="data:image/png;base64,') == 2 and not re.search(r'(?:src|href)="(?!data:)|https?:', found)
    assert "<h1>llama4rec: few</h1>" in found and "Table 3" not in found


def test_the_committed_page_shows_the_committed_results(monkeypatch):
    monkeypatch.delenv("LLAMA4REC_RESULTS", raising=False)
    committed = paths.ROOT / "results" / "report.html"
    assert committed.read_text(encoding="utf-8") == report.page(paths.ROOT / "results", "published")
