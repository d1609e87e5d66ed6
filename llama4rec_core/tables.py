"""Result tables: long-form rows with intervals and tests, CSV files with a Markdown twin, and their publication.

One row is one metric of one method. `build` makes rows from per-user metrics, `write` puts them into a CSV and a
Markdown file that a person reads, `publish` merges a run's tables into the committed ones. Cells are formatted once,
in a fixed way, and rows are sorted, so the same results always give the same bytes.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.evaluation import compare, estimate, holm
from llama4rec_core.files import write_text

KEY = ["preset", "llm", "dataset", "protocol", "backbone", "method", "metric"]
COLUMNS = (
    "preset llm dataset protocol backbone method metric value std seeds users hits ci_low ci_high compared_with "
    "diff diff_ci_low diff_ci_high p_seeds p_users alpha_1 alpha_2 mode users_changed paper_value"
).split()
BASELINES = ("Base", "IFT")
PER_USER = ["dataset", "protocol", "backbone", "method", "seed", "user"]  # what `build` needs beside the metrics
SETTINGS = ["alpha_1", "alpha_2", "mode", "changed"]  # what it takes along where it is there

_TEXT = {*KEY, "compared_with", "alpha_1", "alpha_2", "mode"}
_DECIMALS = {column: 6 for column in COLUMNS if column not in _TEXT} | {
    "seeds": 0, "users": 0, "hits": 1, "users_changed": 4, "paper_value": 4,
}  # fmt: skip
_ORDER = {  # rows and Markdown columns stand in this order; a name that is not here follows, by alphabet
    "preset": ("smoke", "quick", "laptop", "paper"),
    "dataset": ("ml-100k", "ml-1m", "bookcrossing"),
    "protocol": ("leave-one-out", "leave-one-out, ties reversed", "leave-one-out, ties at random", "rolling"),
    "backbone": ("MF", "LightGCN", "MixGCF", "SGL", "SASRec", "BERT4Rec", "CL4SRec",
                 "DeepFM", "NFM", "DCN", "AFM", "xDeepFM", "AutoInt"),
    "method": ("Base", "IFT", "Llama4Rec", "w/o DA", "w/o PA", "w/o AA", "random DA"),
    "metric": ("HR@3", "NDCG@3", "HR@5", "NDCG@5", "RMSE", "MAE"),
}  # fmt: skip


# --- the paper's own cells -------------------------------------------------------------------------


@cache
def paper_table() -> pd.DataFrame:
    """Every cell of the paper's Tables 2-5: columns table, dataset, backbone, method, metric, value."""
    with resources.files("llama4rec_core").joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


@cache
def _paper_cells() -> dict[tuple[str, str, str, str], float]:
    cells = {}
    for row in paper_table().itertuples():
        backbone = "" if row.backbone == "LLaMA-2 7B" else row.backbone  # Table 4: the LLM alone
        cells[row.dataset.lower(), backbone, row.method, row.metric] = row.value
    return cells


def paper_value(dataset: str, backbone: str, method: str, metric: str, protocol: str = "leave-one-out") -> float:
    """The paper's number, or NaN where it has none; the paper knows leave-one-out only.

    The IFT rating of Table 4 is the LLM alone (its row "LLaMA-2 7B"), so it is the same whatever the backbone.
    """
    if protocol != "leave-one-out":
        return np.nan
    alone = method == "IFT" and metric in ("RMSE", "MAE")
    return _paper_cells().get((dataset.lower(), "" if alone else backbone, method, metric), np.nan)


def impossible_cells(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Cells that break what holds for any ranking with one target, or for any ratings; the paper's cells by default.

    HR and NDCG cannot fall as K grows, NDCG@K lies between HR@K / log2(K + 1) and HR@K, and RMSE is at least MAE.
    Columns: the ones that name a row, then metric, value, rule, bound. Half a unit of the fourth decimal is forgiven
    on either side.
    """
    table = paper_table() if table is None else table
    names = [column for column in ("table", *KEY) if column in table.columns and column != "metric"]
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
    smaller = [j for j in range(1, int(k)) if f"{name}@{j}" in metrics]
    bounds = [(1, f"{name}@{j}", metrics[f"{name}@{j}"]) for j in smaller]
    if name == "NDCG" and f"HR@{k}" in metrics:
        hr = metrics[f"HR@{k}"]
        bounds += [(-1, f"HR@{k}", hr), (1, f"HR@{k} / log2({int(k) + 1})", hr / np.log2(int(k) + 1))]
    return bounds


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
    """Rows (columns `COLUMNS`) of one table from a per-user metric frame.

    `per_user` has one row per dataset, protocol, backbone, method, seed and user; every further column is a metric,
    already averaged over the user's cases. The column MSE holds mean *squared* errors and is reported as RMSE. Four
    optional columns are settings: alpha_1, alpha_2, mode, and `changed` (1 where the user's top 5 differs from
    M_c's, NaN where the LLM was not asked), whose mean is `users_changed`. `compared_with` names, per (dataset,
    protocol, backbone), the baseline that was best on validation; every method that is no baseline is compared with it.

    `value` and `std` are over seeds (std is empty for one), `hits` is the number of users with a hit, averaged over
    seeds, and the interval and `p_users` resample users. `p_users` is Holm-corrected over all rows returned here, so
    call this once per table. Raises ValueError where the rows of a backbone differ in users or lack a metric.
    """
    missing = [column for column in PER_USER if column not in per_user.columns]
    if missing:
        raise ValueError(f"the per-user frame lacks the column {missing[0]!r}; it needs {', '.join(PER_USER)}")
    if "RMSE" in per_user.columns:
        raise ValueError("the per-user column RMSE should be MSE, mean squared errors: the root comes after averaging")
    metrics = [column for column in per_user.columns if column not in (*PER_USER, *SETTINGS)]
    compared_with = dict(compared_with or {})
    rows = []
    for group, frame in per_user.groupby(["dataset", "protocol", "backbone"], sort=False):
        baseline = compared_with.pop(group, None)
        if baseline is not None and baseline not in set(frame["method"]):
            raise ValueError(f"{' / '.join(group)} should be compared with {baseline!r}, which has no rows")
        rows += _rows_of_backbone(frame, metrics, baseline, draws, seed)
    if compared_with:
        raise ValueError(f"compared_with names {' / '.join(next(iter(compared_with)))}, which has no rows")
    table = pd.DataFrame(rows, columns=COLUMNS).assign(preset=preset, llm=llm)
    table["p_users"] = holm(table["p_users"].astype(float))
    return in_order(table)


def _rows_of_backbone(frame: pd.DataFrame, metrics: list[str], baseline: str | None, draws: int, seed: int) -> list:
    """The rows of one dataset, protocol and backbone; all its methods and seeds must have the same users."""
    dataset, protocol, backbone = frame[["dataset", "protocol", "backbone"]].iloc[0]
    place = f"{dataset} / {protocol} / {backbone}"
    users = _same_users(frame, place)
    methods = {name: part.sort_values(["seed", "user"]) for name, part in frame.groupby("method", sort=False)}

    def values(method: str, metric: str) -> np.ndarray:  # [S, U]
        array = methods[method][metric].to_numpy(dtype=float).reshape(-1, len(users))
        if np.isnan(array).any():
            row, column = np.argwhere(np.isnan(array))[0]
            raise ValueError(f"{place}: {method} has no {metric} for user {users[column]} (seed number {row + 1})")
        return array

    rows = []
    for method, part in methods.items():
        settings = _settings(part, f"{place}: {method}")
        for column in metrics:
            if frame[column].isna().all():  # a metric of another task
                continue
            ours, root = values(method, column), column == "MSE"
            metric = "RMSE" if root else column
            overall = estimate(ours, root, draws, seed)
            by_seed = np.sqrt(ours.mean(axis=1)) if root else ours.mean(axis=1)  # [S]
            row = settings | {
                "dataset": dataset,
                "protocol": protocol,
                "backbone": backbone,
                "method": method,
                "metric": metric,
                "value": overall.value,
                "std": by_seed.std(ddof=1) if len(ours) > 1 else np.nan,
                "seeds": len(ours),
                "users": len(users),
                "hits": (ours > 0).sum() / len(ours) if column.startswith(("HR@", "NDCG@")) else np.nan,
                "ci_low": overall.ci_low,
                "ci_high": overall.ci_high,
                "paper_value": paper_value(dataset, backbone, method, metric, protocol),
            }
            if baseline is not None and method not in (*BASELINES, baseline):
                gain = compare(ours, values(baseline, column), root, draws, seed)
                same_seeds = set(part["seed"]) == set(methods[baseline]["seed"])
                row |= {
                    "compared_with": baseline,
                    "diff": gain.diff,
                    "diff_ci_low": gain.ci_low,
                    "diff_ci_high": gain.ci_high,
                    "p_seeds": gain.p_seeds if same_seeds else np.nan,
                    "p_users": gain.p_users,
                }
            rows.append(row)
    return rows


def _same_users(frame: pd.DataFrame, place: str) -> np.ndarray:
    """The sorted users of a frame, after checking that every method and seed has each of them exactly once."""
    twice = frame[frame.duplicated(["method", "seed", "user"])]
    if len(twice):
        method, seed, user = twice[["method", "seed", "user"]].iloc[0]
        raise ValueError(f"{place}: {method} has user {user} twice for seed {seed}")
    users = np.sort(frame["user"].unique())
    for (method, seed), part in frame.groupby(["method", "seed"]):
        if len(part) != len(users):
            lost = np.setdiff1d(users, part["user"])[0]
            raise ValueError(f"{place}: {method}, seed {seed} lacks user {lost}; all rows need the same users")
    return users


def _settings(part: pd.DataFrame, place: str) -> dict:
    """alpha_1, alpha_2, mode as text ("0.3/0.5" where seeds chose differently) and users_changed, of one method."""
    settings = {}
    for name in {"alpha_1", "alpha_2", "mode"} & set(part.columns):
        chosen = sorted(part[name].dropna().unique())
        settings[name] = "/".join(value if isinstance(value, str) else f"{value:g}" for value in chosen)
    if "changed" in part and part["changed"].notna().any():  # NaN: the LLM was not asked about this user
        settings["users_changed"] = part["changed"].astype(float).mean()
    return settings


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
    text = _formatted(table, path)
    write_text(path, text.to_csv(index=False, lineterminator="\n"))
    write_text(path.with_suffix(".md"), markdown(_parsed(text, path), caption))


def read(path) -> pd.DataFrame:
    """A table from its CSV: numbers as float64 (NaN where empty), names and alphas as str ("" where empty)."""
    path = Path(path)
    return _parsed(_read_text(path), path)


def publish(run_tables, committed_dir, captions: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Merge every CSV of the folder `run_tables` into the CSV of that name in `committed_dir`; renew the twins.

    A row is known by `KEY`. The preset is part of it, so one preset never overwrites another: a newcomer's one-seed
    `quick` row stands beside a five-seed `laptop` row, and only a rerun of the same preset replaces a row. Committed
    rows that the run does not have stay. The caption is `captions[name]`, or the run's own. Returns what happened:
    columns table, KEY, action (added | replaced | unchanged), seeds_before, seeds_after.
    """
    run_tables, committed_dir = Path(run_tables), Path(committed_dir)
    sources = sorted(run_tables.glob("*.csv"))
    if not sources:
        raise ValueError(f"{run_tables} holds no table to publish (no .csv file)")
    merged, actions = [], []
    for source in sources:  # everything is read and checked before anything is written
        new = _read_text(source)
        target = committed_dir / source.name
        old = _read_text(target) if target.exists() else new.iloc[:0]
        before = {row[: len(KEY)]: row for row in old.itertuples(index=False, name=None)}
        for row in new.itertuples(index=False, name=None):
            known = before.pop(row[: len(KEY)], None)
            action = "added" if known is None else "unchanged" if known == row else "replaced"
            seeds = COLUMNS.index("seeds")
            actions.append((source.stem, *row[: len(KEY)], action, known[seeds] if known else "", row[seeds]))
        kept = pd.DataFrame(list(before.values()), columns=COLUMNS, dtype=str)
        twin = source.with_suffix(".md")
        caption = (captions or {}).get(source.stem) or (_caption(twin) if twin.exists() else source.stem)
        merged.append((target, in_order(pd.concat([kept, new], ignore_index=True)), caption))
    for target, text, caption in merged:
        write(_parsed(text, target), target, caption)
    return pd.DataFrame(actions, columns=["table", *KEY, "action", "seeds_before", "seeds_after"])


def _formatted(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table as sorted text with a fixed number of decimals per column."""
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(f"{path.name}: the table lacks the column {missing[0]!r}")
    table = in_order(table[COLUMNS])
    text = table.astype(object)
    for column in COLUMNS:
        text[column] = [_number(x, _DECIMALS.get(column)) for x in table[column]]
    twice = text[text.duplicated(KEY)]
    if len(twice):
        raise ValueError(f"{path.name}: two rows for {' / '.join(twice[KEY].iloc[0])}; a key may stand in one row")
    return text


def _read_text(path: Path) -> pd.DataFrame:
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(text.columns) != COLUMNS:
        wrong = next((c for c in text.columns if c not in COLUMNS), None) or next(
            (c for c in COLUMNS if c not in text.columns), "the order"
        )
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
    methods = list(dict.fromkeys(in_order(rows.assign(backbone="", metric=""))["method"]))
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
    text = f"{_number(row.value, 4)} [{_number(row.ci_low, 4)}, {_number(row.ci_high, 4)}]"
    if row.metric.startswith("HR@"):
        text += f" {row.hits:g}/{row.users:g}"
    return text


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
    used = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    return _aligned([[line[i] for i in used] for line in lines])


def _signed(x: float) -> str:
    text = _number(x, 4)
    return text if text.startswith("-") else f"+{text}"


def _p(p: float) -> str:
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _aligned(lines: list[list[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _caption(twin: Path) -> str:
    return twin.read_text(encoding="utf-8").split("\n\n", 1)[0]
