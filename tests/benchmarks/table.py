"""The benchmarks' table: rows of the parts that were run replace theirs, the other parts' rows stay."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from llama4rec_core import paths
from llama4rec_core.files import write_frame


def run(parts: dict[str, Callable[[], list[dict]]], columns: list[str], name: str) -> None:
    """Run each part, keep its rows at once in results/benchmarks/<name>, and print the whole."""
    path: Path = paths.results() / "benchmarks" / name
    for part, measure in parts.items():
        found = pd.DataFrame(measure(), columns=columns)
        before = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)
        kept = before[before["part"] != part]
        write_frame(path, pd.concat([kept, found], ignore_index=True) if len(kept) else found)
    print(pd.read_csv(path).to_string(index=False))
