"""The same rows of two runs, in pairs over users: what is a setting, a data knock-out or another LLM worth?

    python scripts/compare_runs.py PRESET OTHER      results/comparisons/PRESET-OTHER.csv, and printed

Both runs must have the same data and split. Users, backbones, seeds and rows that both have are compared: a difference
is PRESET's metric less OTHER's. Nothing new is looked at: both runs have measured their rows.
"""

import argparse

import pandas as pd

from llama4rec_core import evaluation, paths
from llama4rec_core.backbones import task_of
from llama4rec_core.files import read_json, write_frame
from llama4rec_core.run import Run
from llama4rec_core.tasks import TASKS


def compared(ours: Run, theirs: Run) -> pd.DataFrame:
    """A line for each backbone and row: columns backbone, row, metric, users, both runs' values, diff, ci_low, ci_high,
    p_users. Raises ValueError for runs of other data, and where they have nothing in common."""
    splits = {run.preset.name: read_json(run.path("data/split.json"))["split_sha256"] for run in (ours, theirs)}
    if len(set(splits.values())) > 1:
        raise ValueError(f"{' and '.join(splits)} have other data or another split: their users cannot be paired")
    lines = []
    seeds = sorted(set(ours.preset.seeds) & set(theirs.preset.seeds))
    for name in (each for each in ours.preset.backbones if seeds and each in theirs.preset.backbones):
        task = TASKS[task_of(name)]
        first, second = (_per_user(run, name, seeds, task.column) for run in (ours, theirs))
        for row in (each for each in first if each in second):
            users = first[row].columns.intersection(second[row].columns)
            a, b = (values[row][users].to_numpy() for values in (first, second))
            found = evaluation.compare(a, b, task.root, ours.preset.evaluation.draws)
            values = [evaluation.by_seed(each, task.root).mean() for each in (a, b)]
            about = {"backbone": name, "row": row, "metric": task.metric, "users": len(users)}
            about |= dict(zip(splits, values, strict=True))
            interval = {key: getattr(found, key) for key in ("diff", "ci_low", "ci_high", "p_users")}
            lines.append(about | interval)
    if not lines:
        raise ValueError(f"{' and '.join(splits)} have no backbone, seed and row in common")
    return pd.DataFrame(lines)


def _per_user(run: Run, backbone: str, seeds: list[int], column: str) -> dict[str, pd.DataFrame]:
    """Of each row the metric, seeds by users."""
    files = [run.path(f"rows/{backbone}-s{seed}/per_user.parquet") for seed in seeds]
    frame = pd.concat([pd.read_parquet(file) for file in files])
    return {
        row: part.pivot(index="seed", columns="user", values=column) for row, part in frame.groupby("row", sort=False)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("other")
    asked = parser.parse_args()
    ours, theirs = Run.open(asked.preset), Run.open(asked.other)
    table = compared(ours, theirs)
    write_frame(paths.results() / "comparisons" / f"{ours.preset.name}-{theirs.preset.name}.csv", table.round(6))
    print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
