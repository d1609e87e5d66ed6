"""The benchmarks' table: rows of the parts that were run replace theirs, the other parts' rows stay."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil

from llama4rec_core import paths
from llama4rec_core.files import write_frame


def run(parts: dict[str, Callable[[], Iterator[dict]]], columns: list[str], name: str) -> None:
    """Run each part, print its rows and keep them in results/benchmarks/<name> as they come, and print the whole.

    Column `stolen`, after `columns`: the share of the processors' time that a machine's host gave to others, from
    the beginning of the part to the row (empty where the system does not tell).
    """
    path: Path = paths.results() / "benchmarks" / name
    for part, measure in parts.items():
        before = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)
        rows = before[before["part"] != part].to_dict("records")
        begun = psutil.cpu_times()
        for row in measure():
            row["stolen"] = _stolen(begun, psutil.cpu_times())
            print(row, flush=True)
            rows.append(row)
            write_frame(path, pd.DataFrame(rows, columns=[*columns, "stolen"]))
    print(pd.read_csv(path).to_string(index=False))


def _stolen(begun, now) -> float | None:
    if not hasattr(now, "steal"):
        return None
    return round((now.steal - begun.steal) / max(sum(now) - sum(begun), 1e-9), 3)
