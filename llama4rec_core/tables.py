"""Result tables: rows with intervals and tests, CSV files with a Markdown twin, and their publication.

One row is one metric of one method. `build` makes rows from per-user metrics, `write` puts them into a CSV and a
Markdown file, `publish` merges a run's tables into the committed ones. Cells have fixed decimals and rows are sorted,
so the same results always give the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.evaluation import compare, estimate, holm
from llama4rec_core.files import write_text
from llama4rec_core.paper import paper_value
from llama4rec_core.presets import Preset
from llama4rec_core.tasks import Task

KEY = ["preset", "llm", "dataset", "protocol", "backbone", "method", "metric"]
COLUMNS = (
    "preset llm dataset protocol backbone method metric value std seeds users hits ci_low ci_high compared_with "
    "diff diff_ci_low diff_ci_high p_seeds p_users alpha_1 alpha_2 mode users_changed paper_value"
).split()
BASELINES = ("Base", "IFT")
PLACE = ["dataset", "protocol", "backbone"]
PER_USER = [*PLACE, "method", "seed", "user"]  # what `build` needs beside the metrics
SETTINGS = ["alpha_1", "alpha_2", "mode", "changed"]  # what it takes along where it is there

_TEXT = {*KEY, "compared_with", *SETTINGS}
_DECIMALS = {column: 6 for column in COLUMNS if column not in _TEXT} | {
    "seeds": 0, "users": 0, "hits": 1, "users_changed": 4, "paper_value": 4,
}  # fmt: skip
_ORDER = {  # of rows and of Markdown columns; a name that is not here follows, by alphabet
    "preset": ("smoke", "quick", "laptop", "paper"),
    "dataset": ("ml-100k", "ml-1m", "bookcrossing"),
    "protocol": ("leave-one-out", "leave-one-out, ties reversed", "leave-one-out, ties at random", "rolling"),
    "backbone": ("MF", "LightGCN", "MixGCF", "SGL", "SASRec", "BERT4Rec", "CL4SRec",
                 "DeepFM", "NFM", "DCN", "AFM", "xDeepFM", "AutoInt"),
    "method": ("Base", "IFT", "Llama4Rec", "w/o DA", "w/o PA", "w/o AA", "random DA"),
    "metric": ("HR@3", "NDCG@3", "HR@5", "NDCG@5", "RMSE", "MAE"),
}  # fmt: skip


# --- rows ------------------------------------------------------------------------------------------


def build(
    per_user: pd.DataFrame,
    *,
    preset: str,
    llm: str,
    compared_with: Mapping[tuple[str, str, str], str] | None = None,
    draws: int = 2_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows (columns `COLUMNS`) of one table from per-user metrics.

    `per_user` has one row for each dataset, protocol, backbone, method, seed and user. Every further column is a
    metric, averaged over the user's cases; MSE holds mean *squared* errors and is reported as RMSE. Four optional
    columns are settings: alpha_1, alpha_2, mode, and `changed`, which is 1 where the user's top 5 differs from the
    backbone's and NaN where the LLM was not asked; its mean is `users_changed`. `compared_with` names, per (dataset,
    protocol, backbone), the baseline that was best on validation; every method that is no baseline is compared with it.

    `value` and `std` are over seeds (one seed has no std). `hits` counts the users with a hit, averaged over seeds.
    The intervals and `p_users` are over users. `p_users` is Holm-corrected over all rows returned here, so call this
    once per table. Raises ValueError where columns are missing, where the methods and seeds of a backbone differ in
    users, where a metric is missing, and where a baseline in `compared_with` has no rows.
    """
    for column in PER_USER:
        if column not in per_user.columns:
            raise ValueError(f"the per-user frame lacks the column {column!r}; it needs {', '.join(PER_USER)}")
    if "RMSE" in per_user.columns:
        raise ValueError("the per-user column RMSE should be MSE, mean squared errors: the root comes after averaging")
    compared_with = dict(compared_with or {})
    rows = []
    for place, frame in per_user.groupby(PLACE, sort=False):
        rows += _rows(place, frame, compared_with.pop(place, None), draws, seed)
    if compared_with:
        raise ValueError(f"compared_with names {' / '.join(next(iter(compared_with)))}, which has no rows")
    table = pd.DataFrame(rows, columns=COLUMNS).assign(preset=preset, llm=llm)
    table["p_users"] = holm(table["p_users"].astype(float))
    return in_order(table)


def _rows(place: tuple[str, str, str], frame: pd.DataFrame, baseline: str | None, draws: int, seed: int) -> list[dict]:
    """The rows of one dataset, protocol and backbone."""
    where = " / ".join(place)
    users = _same_users(frame, where)
    methods = {name: part.sort_values(["seed", "user"]) for name, part in frame.groupby("method", sort=False)}
    if baseline is not None and baseline not in methods:
        raise ValueError(f"{where} should be compared with {baseline!r}, which has no rows")

    def values(method: str, metric: str) -> np.ndarray:  # [S, U]
        array = methods[method][metric].to_numpy(dtype=float).reshape(-1, len(users))
        for row, column in np.argwhere(np.isnan(array)):
            raise ValueError(f"{where}: {method} has no {metric} for user {users[column]} (seed number {row + 1})")
        return array

    rows = []
    for method, part in methods.items():
        for column in frame.columns.difference([*PER_USER, *SETTINGS], sort=False):
            if frame[column].isna().all():  # a metric of another task
                continue
            ours, root = values(method, column), column == "MSE"
            metric = "RMSE" if root else column
            overall = estimate(ours, root, draws, seed)
            by_seed = np.sqrt(ours.mean(axis=1)) if root else ours.mean(axis=1)  # [S]
            row = dict(zip(PLACE, place, strict=True)) | _settings(part) | {
                "method": method,
                "metric": metric,
                "value": overall.value,
                "std": by_seed.std(ddof=1) if len(ours) > 1 else np.nan,
                "seeds": len(ours),
                "users": len(users),
                "hits": (ours > 0).sum() / len(ours) if column.startswith(("HR@", "NDCG@")) else np.nan,
                "ci_low": overall.ci_low,
                "ci_high": overall.ci_high,
                "paper_value": paper_value(place[0], place[2], method, metric, place[1]),
            }  # fmt: skip
            if baseline is not None and method not in (*BASELINES, baseline):
                gain = compare(ours, values(baseline, column), root, draws, seed)
                row |= {
                    "compared_with": baseline,
                    "diff": gain.diff,
                    "diff_ci_low": gain.ci_low,
                    "diff_ci_high": gain.ci_high,
                    "p_seeds": gain.p_seeds if set(part["seed"]) == set(methods[baseline]["seed"]) else np.nan,
                    "p_users": gain.p_users,
                }
            rows.append(row)
    return rows


def _same_users(frame: pd.DataFrame, where: str) -> np.ndarray:
    """The sorted users of a frame, after checking that every method and seed has each of them exactly once."""
    users = np.sort(frame["user"].unique())
    for (method, seed), part in frame.groupby(["method", "seed"]):
        twice = part.loc[part["user"].duplicated(), "user"]
        if len(twice):
            raise ValueError(f"{where}: {method} has user {twice.iloc[0]} twice for seed {seed}")
        if len(part) != len(users):
            lost = np.setdiff1d(users, part["user"])[0]
            raise ValueError(f"{where}: {method}, seed {seed} lacks user {lost}; all rows need the same users")
    return users


def _settings(part: pd.DataFrame) -> dict:
    """alpha_1, alpha_2, mode as text ("0.3/0.5" where seeds chose differently) and users_changed, of one method."""
    settings = {}
    for name in {"alpha_1", "alpha_2", "mode"} & set(part.columns):
        chosen = sorted(part[name].dropna().unique())
        settings[name] = "/".join(value if isinstance(value, str) else f"{value:g}" for value in chosen)
    if "changed" in part:
        settings["users_changed"] = part["changed"].astype(float).mean()  # of the users about whom the LLM was asked
    return settings


def caption(task: Task, preset: Preset, dataset: str, protocol: str, n_users: int) -> str:
    """What the table shows, in one paragraph; protocol: "" where the rows are of several."""
    asked = f", LLM {preset.llm}; where it says no LLM: backbones alone, all users, and other protocols"
    where = f"{dataset} ({protocol})" if protocol else dataset
    said = f"Table {task.number} of the paper, {task.what}, on {where}{asked}. "
    if task.root:
        count = preset.evaluation.rating_users
        of = "all users"
        if count is not None:
            of = f"the same {min(count, n_users)} users, drawn at random, in every row of an LLM's run"
        return said + (
            f"Ratings of {of}; Base is the backbone, IFT the tuned LLM alone, "
            "Llama4Rec equation 6 of both after mutual augmentation."
        )
    return said + (
        f"All {n_users} users, ranked over all items not seen before; Base is the backbone, IFT its top "
        f"{preset.prompts.candidates} in the tuned LLM's order, Llama4Rec equation 6 of the augmented backbone and the "
        "LLM tuned on augmented prompts. The LLM was asked only about lists that hold their target: for the others no "
        "order can change these metrics; 'top 5 changed' is the share of the users asked about whose first five differ "
        "from Base's."
    )


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the paper's order of data sets, backbones, methods and metrics, by the key columns there are."""

    def rank(column: pd.Series) -> pd.Series:
        known = {name.lower(): f"{i:03d}" for i, name in enumerate(_ORDER.get(column.name, ()))}
        return column.map(lambda name: known.get(name.lower(), "999" + name))

    keys = [column for column in KEY if column in table.columns]
    return table.sort_values(keys, key=rank, kind="stable", ignore_index=True)


# --- files -----------------------------------------------------------------------------------------


def write(table: pd.DataFrame, path, caption: str) -> None:
    """Write `table` to `path` (.csv) and its Markdown twin beside it (.md), each whole or not at all.

    `caption` is one paragraph that says what the table shows. Raises ValueError where columns are missing or a key
    stands in two rows.
    """
    path = Path(path)
    for column in COLUMNS:
        if column not in table.columns:
            raise ValueError(f"{path.name}: the table lacks the column {column!r}")
    text = in_order(table[COLUMNS]).astype(object)
    for column in COLUMNS:
        text[column] = [_number(x, _DECIMALS.get(column)) for x in text[column]]
    twice = text[text.duplicated(KEY)]
    if len(twice):
        raise ValueError(f"{path.name}: two rows for {' / '.join(twice[KEY].iloc[0])}; a key may stand in one row")
    write_text(path, text.to_csv(index=False, lineterminator="\n"))
    write_text(path.with_suffix(".md"), markdown(_parsed(text, path), caption))


def read(path) -> pd.DataFrame:
    """A table from its CSV: numbers as float64 (NaN where empty), names and alphas as str ("" where empty).

    Raises ValueError where the columns are not `COLUMNS`, a key stands in two rows, or a number cannot be read.
    """
    path = Path(path)
    return _parsed(_read_text(path), path)


def publish(run_tables, committed_dir, captions: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Merge every CSV of the folder `run_tables` into the CSV of that name in `committed_dir`; renew the twins.

    `KEY` identifies a row. The preset is part of it, so a newcomer's one-seed `quick` row stands beside a five-seed
    `laptop` row, and only a rerun of the same preset replaces a row. Committed rows that the run does not have stay.
    The caption is `captions[name]`, or the run's own. Returns what happened: columns table, KEY, action (added |
    replaced | unchanged), seeds_before, seeds_after. Raises ValueError where there is no table or one cannot be read;
    then nothing is written.
    """
    run_tables, committed_dir = Path(run_tables), Path(committed_dir)
    sources = sorted(run_tables.glob("*.csv"))
    if not sources:
        raise ValueError(f"{run_tables} holds no table to publish (no .csv file)")
    merged, actions = [], []
    for source in sources:  # everything is read and checked before anything is written
        target, twin = committed_dir / source.name, source.with_suffix(".md")
        before, after = (_by_key(path) if path.exists() else {} for path in (target, source))
        for key, row in after.items():
            action = "added" if key not in before else "unchanged" if before[key] == row else "replaced"
            seeds = (rows[key][COLUMNS.index("seeds")] if key in rows else "" for rows in (before, after))
            actions.append((source.stem, *key, action, *seeds))
        table = pd.DataFrame((before | after).values(), columns=COLUMNS, dtype=str)
        own = twin.read_text(encoding="utf-8").split("\n\n", 1)[0] if twin.exists() else source.stem
        merged.append((_parsed(table, target), target, (captions or {}).get(source.stem, own)))
    for table, target, caption in merged:
        write(table, target, caption)
    return pd.DataFrame(actions, columns=["table", *KEY, "action", "seeds_before", "seeds_after"])


def _by_key(path: Path) -> dict[tuple, tuple]:
    return {row[: len(KEY)]: row for row in _read_text(path).itertuples(index=False, name=None)}


def _read_text(path: Path) -> pd.DataFrame:
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(text.columns) != COLUMNS:
        wrong = [*text.columns.difference(COLUMNS, False), *pd.Index(COLUMNS).difference(text.columns), "the order"][0]
        raise ValueError(f"{path.name}: the columns of a table are {', '.join(COLUMNS)}; the fault is {wrong!r}")
    twice = np.flatnonzero(text.duplicated(KEY))
    if len(twice):
        key = " / ".join(text[KEY].iloc[twice[0]])
        raise ValueError(f"{path.name}, line {twice[0] + 2}: this key already stands further up: {key}")
    return text


def _parsed(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Text cells -> float64 where the column is a number, NaN where it is empty."""
    numbers = {}
    for column in _DECIMALS:
        try:
            numbers[column] = text[column].replace("", "nan").astype(float)
        except ValueError as error:
            raise ValueError(f"{path.name}, column {column}: {error}") from None
    return text.assign(**numbers)


def _number(x, decimals: int | None) -> str:
    """A cell: "" where it is empty, a name as it is (decimals None), a number with fixed decimals and never "-0.00"."""
    if pd.isna(x):
        return ""
    if decimals is None:
        return str(x)
    text = f"{x:.{decimals}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


# --- the Markdown twin -----------------------------------------------------------------------------


def markdown(table: pd.DataFrame, caption: str) -> str:
    """The table for a person: methods side by side with intervals, the paper's numbers below, then the comparisons."""
    parts = [" ".join(caption.split())]
    for (preset, llm, dataset, protocol), rows in in_order(table).groupby(KEY[:4], sort=False):
        parts.append(f"## {dataset}, {protocol}: preset {preset}, {f'LLM {llm}' if llm else 'no LLM'}")
        parts.append(
            f"{_span(rows['users'])} users, seeds: {_span(rows['seeds'])}. Each cell: mean over seeds "
            "[95% interval over users], for HR also users hit / users."
        )
        parts.append(_grid(rows))
        compared = rows[rows["diff"].notna()]
        if len(compared):
            parts.append("Against the best baseline on validation (p over users is Holm-corrected within the table):")
            parts.append(_comparisons(compared))
    return "\n\n".join(parts) + "\n"


def _grid(rows: pd.DataFrame) -> str:
    """One line per backbone and metric, a column per method, and below each line the paper's where it has any."""
    methods = list(in_order(rows[["method"]].drop_duplicates())["method"])
    lines = [["backbone", "metric", *methods]]
    for (backbone, metric), cells in rows.groupby(["backbone", "metric"], sort=False):
        cells = cells.set_index("method").reindex(methods).assign(metric=metric)
        lines.append([backbone, metric, *map(_cell, cells.itertuples())])
        if cells["paper_value"].notna().any():
            lines.append(["", "*paper*", *(_number(x, 4) for x in cells["paper_value"])])
    return _aligned(lines)


def _cell(row) -> str:
    if pd.isna(row.value):
        return ""
    hits = f" {row.hits:g}/{row.users:g}" if row.metric.startswith("HR@") else ""
    return f"{_number(row.value, 4)} [{_number(row.ci_low, 4)}, {_number(row.ci_high, 4)}]{hits}"


def _comparisons(rows: pd.DataFrame) -> str:
    lines = [["backbone", "method", "against", "metric", "difference [95% interval]", "p over users", "p over seeds",
              "top 5 changed", "alpha_1", "alpha_2", "mode"]]  # fmt: skip
    for row in rows.itertuples():
        lines.append([
            row.backbone, row.method, row.compared_with, row.metric,
            f"{_signed(row.diff)} [{_signed(row.diff_ci_low)}, {_signed(row.diff_ci_high)}]",
            _p(row.p_users), _p(row.p_seeds), "" if pd.isna(row.users_changed) else f"{row.users_changed:.0%}",
            *("" if pd.isna(x) else str(x) for x in (row.alpha_1, row.alpha_2, row.mode)),
        ])  # fmt: skip
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    return _aligned(list(zip(*columns, strict=True)))


def _signed(x: float) -> str:
    text = _number(x, 4)
    return text if text.startswith("-") else f"+{text}"


def _p(p: float) -> str:
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _aligned(lines) -> str:
    """A Markdown table whose columns also line up as plain text."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)
