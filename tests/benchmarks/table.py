"""The benchmarks' table: rows of the parts that were run replace theirs, the other parts' rows stay."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from llama4rec_core import paths
from llama4rec_core.files import write_frame


def run(parts: dict[str, Callable[[], Iterator[dict]]], columns: list[str], name: str) -> None:
    """Run each part, print its rows and keep them in results/benchmarks/<name> as they come, and print the whole."""
    path: Path = paths.results() / "benchmarks" / name
    for part, measure in parts.items():
        before = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)
        rows = before[before["part"] != part].to_dict("records")
        for row in measure():
            print(row, flush=True)
            rows.append(row)
            write_frame(path, pd.DataFrame(rows, columns=columns))
    print(pd.read_csv(path).to_string(index=False))
