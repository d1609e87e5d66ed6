"""The paper's own numbers: every cell of its Tables 2-5, and which of them cannot be right."""

from collections.abc import Mapping
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from llama4rec_core.evaluation import ERRORS

NAMES = ["table", "preset", "llm", "dataset", "protocol", "backbone", "row"]  # what names a row of metrics


@cache
def paper_table() -> pd.DataFrame:
    """Every cell of the paper's Tables 2-5: columns table, dataset, backbone, row, metric, value."""
    with resources.files("llama4rec_core").joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


@cache
def _cells() -> dict[tuple[str, str, str, str], float]:
    """Cells by dataset (lower case), backbone ("" for the LLM alone, Table 4), row and metric."""
    table = paper_table().assign(dataset=lambda cells: cells["dataset"].str.lower()).replace("LLaMA-2 7B", "")
    return table.set_index(["dataset", "backbone", "row", "metric"])["value"].to_dict()


def paper_value(dataset: str, backbone: str, row: str, metric: str, protocol: str = "leave-one-out") -> float:
    """The paper's number, or NaN where it has none. The paper knows leave-one-out only.

    The IFT rating of Table 4 is the LLM alone (its row "LLaMA-2 7B"), so it is the same for every backbone.
    """
    if protocol != "leave-one-out":
        return np.nan
    alone = row == "IFT" and metric in ERRORS
    return _cells().get((dataset.lower(), "" if alone else backbone, row, metric), np.nan)


def impossible_cells(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Cells that no ranking with one target, or no set of ratings, can have; of the paper's tables by default.

    HR and NDCG cannot fall as K grows, NDCG@K lies between HR@K / log2(K + 1) and HR@K, and RMSE is at least MAE.
    Half a unit of the fourth decimal is forgiven on either side. Columns: those of NAMES that `table` has, then
    metric, value, rule, bound.
    """
    table = paper_table() if table is None else table
    names = [column for column in NAMES if column in table.columns]
    broken = []
    for row, cells in table.groupby(names, sort=False):
        metrics = dict(zip(cells["metric"], cells["value"].astype(float), strict=True))
        for metric, value in metrics.items():
            for sign, rule, bound in _bounds(metric, metrics):
                if sign * (value - bound) < -1.0001e-4:
                    broken.append((*row, metric, value, f"{'at least' if sign > 0 else 'at most'} {rule}", bound))
    return pd.DataFrame(broken, columns=[*names, "metric", "value", "rule", "bound"])


def _bounds(metric: str, metrics: Mapping[str, float]) -> list[tuple[int, str, float]]:
    """What `metric` must be at least (+1) or at most (-1), given the other metrics of its row."""
    if metric == "RMSE" and "MAE" in metrics:
        return [(1, "MAE", metrics["MAE"])]
    name, _, k = metric.partition("@")
    if name not in ("HR", "NDCG") or not k.isdigit():
        return []
    smaller = [f"{name}@{j}" for j in range(1, int(k)) if f"{name}@{j}" in metrics]
    bounds = [(1, other, metrics[other]) for other in smaller]
    if name == "NDCG" and f"HR@{k}" in metrics:
        hr = metrics[f"HR@{k}"]
        bounds += [(-1, f"HR@{k}", hr), (1, f"HR@{k} / log2({int(k) + 1})", hr / np.log2(int(k) + 1))]
    return bounds
