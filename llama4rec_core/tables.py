"""Result tables: rows with intervals and tests, CSV files with a Markdown twin, and their publication.

A line of a table is one metric of one row of the experiment (Base, IFT, Llama4Rec, ...). `build` makes lines from
per-user metrics, `compare_rows` the paired differences between any two rows, `mean_gains` a row's gain over all
backbones of a task. `write` puts them into files, `publish` merges a run's files into the committed ones. Cells have
fixed decimals and lines are sorted, so the same results always give the same bytes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core import paths
from llama4rec_core.backbones import task_of
from llama4rec_core.evaluation import ERRORS, by_seed, compare, estimate, holm, mean_gain
from llama4rec_core.files import write_text
from llama4rec_core.paper import paper_value
from llama4rec_core.presets import Preset
from llama4rec_core.tasks import TASKS, Task
from llama4rec_core.variants import NEEDED, SECOND_OPINION, STACKS, VARIANTS

KEY = ["preset", "llm", "dataset", "protocol", "backbone", "row", "metric"]  # what tells a line from all others
COLUMNS = (
    "preset commit llm tuning dataset protocol backbone row metric value std seeds users cases hits ci_low ci_high "
    "compared_with diff diff_ci_low diff_ci_high gain p_seeds p_users mde alpha_1 alpha_2 candidates mode "
    "users_changed paper_value"
).split()
PAIR_KEY = ["preset", "llm", "dataset", "protocol", "backbone", "row", "compared_with", "metric"]
PAIR_COLUMNS = (
    "preset commit llm dataset protocol backbone row compared_with metric seeds users cases "
    "diff diff_ci_low diff_ci_high gain p_users mde"
).split()
GAIN_KEY = ["preset", "llm", "dataset", "protocol", "task", "row", "metric"]
GAIN_COLUMNS = (
    "preset commit llm dataset protocol task row metric backbones seeds users gain ci_low ci_high better worse "
    "paper_gain"
).split()
FAMILY = ["dataset", "protocol", "row", "compared_with", "metric"]  # p-values of one are corrected together
PLACE = ["dataset", "protocol", "backbone"]
OF_RUN = KEY[:5]  # preset, llm, dataset, protocol, backbone
PER_USER = [*PLACE, "row", "seed", "user", "cases"]  # what a per-user frame needs beside the metrics
SETTINGS = ["alpha_1", "alpha_2", "mode", "changed"]  # what `build` takes along where it is there
TUNING = {"lora": "LoRA", "full": "all parameters", "none": "not tuned"}  # what is tuned

_TEXT = {*KEY, *PAIR_KEY, *GAIN_KEY, "commit", "tuning", "alpha_1", "alpha_2", "mode"}
_DECIMALS = {column: 6 for column in (*COLUMNS, *PAIR_COLUMNS, *GAIN_COLUMNS) if column not in _TEXT} | {
    "seeds": 0, "users": 0, "cases": 0, "candidates": 0, "hits": 1, "gain": 4, "users_changed": 4, "paper_value": 4,
    "backbones": 0, "better": 0, "worse": 0, "paper_gain": 4,
}  # fmt: skip
BESIDE = {"pairs": (PAIR_COLUMNS, PAIR_KEY), "gains": (GAIN_COLUMNS, GAIN_KEY)}  # files of lines beside the tables
_ORDER = {  # of lines and of Markdown columns; a name that is not here follows, by alphabet
    "preset": ("published", "published-seeds", "smoke", "quick", "laptop", "paper"),
    "task": tuple(TASKS),
    "dataset": ("ml-100k", "ml-1m", "bookcrossing"),
    "protocol": tuple(split + ties for split in ("rolling", "leave-one-out")
                      for ties in ("", ", ties reversed", ", ties at random")),
    "backbone": ("MF", "LightGCN", "MixGCF", "SGL", "SASRec", "BERT4Rec", "CL4SRec",
                 "DeepFM", "NFM", "DCN", "AFM", "xDeepFM", "AutoInt"),
    "row": (*VARIANTS, *STACKS),
    "compared_with": (*VARIANTS, *STACKS),
    "metric": ("HR@3", "NDCG@3", "HR@5", "NDCG@5", "RMSE", "MAE"),
}  # fmt: skip


def build(per_user: pd.DataFrame, preset: Preset, *, llm: bool = True) -> pd.DataFrame:
    """The lines (columns `COLUMNS`) of one table.

    `per_user` has one line for each dataset, protocol, backbone, row, seed and user: the columns `PER_USER`, of which
    `cases` counts the user's cases. Every further column is a metric, averaged over these cases; MSE holds mean
    *squared* errors and is reported as RMSE. Four optional columns are settings: alpha_1, alpha_2, mode, and `changed`,
    which is 1 where the user's top 5 differs from the backbone's and NaN where nobody was asked; its mean is
    `users_changed`. `llm=False` says that there is no LLM in the run at all.

    `value` and `std` are over seeds (one seed has no std). `hits` counts the users with a hit, averaged over seeds.
    Intervals and `p_users` are over users. Every row but Base is compared with Base, in pairs: `diff`, `gain` (diff
    divided by Base's value) and `mde`, the smallest difference that could have been seen. `p_users` is Holm-corrected
    over the backbones of a row and metric, so call this once per table. Raises ValueError where columns are missing,
    where rows or seeds of a backbone differ in users or in cases, where a metric is missing, and without a Base.
    """
    lines, draws = [], preset.evaluation.draws
    for place, parts, metric, values in _measured(per_user):
        base = _base(values, place)
        for name, ours in values.items():
            overall = estimate(ours, metric == "RMSE", draws)
            line = place | _settings(parts[name]) | {
                "row": name,
                "metric": metric,
                "value": overall.value,
                "std": by_seed(ours, metric == "RMSE").std(ddof=1) if len(ours) > 1 else np.nan,
                "seeds": len(ours),
                "hits": (ours > 0).sum() / len(ours) if metric.startswith(("HR@", "NDCG@")) else np.nan,
                "ci_low": overall.ci_low,
                "ci_high": overall.ci_high,
                "paper_value": paper_value(place["dataset"], place["backbone"], name, metric, place["protocol"]),
            }  # fmt: skip
            if name != "Base":
                line |= _against(ours, base, metric, draws) | {"compared_with": "Base"}
                if set(parts[name]["seed"]) != set(parts["Base"]["seed"]):
                    line["p_seeds"] = np.nan
            lines.append(line)
    table = _finished(lines, COLUMNS, preset, llm)
    table["tuning"] = [TUNING[preset.tuning.method] if llm and _has_llm(row) else "" for row in table["row"]]
    table["candidates"] = np.where(table["metric"].isin(ERRORS), np.nan, preset.prompts.candidates)
    return in_order(table)


def compare_rows(per_user: pd.DataFrame, pairs: Sequence[tuple[str, str]], preset: Preset) -> pd.DataFrame:
    """Paired differences between rows: columns `PAIR_COLUMNS`, one line for each place, pair and metric.

    `per_user` is that of `build`; it may hold several tasks. A pair (row, compared with) is left out where a backbone
    lacks one of the two. `gain` is the difference divided by the second row's value. `p_users` is Holm-corrected over
    the backbones of a pair and metric. Raises ValueError as `build` does, but needs no Base, and for a pair that no
    backbone has.
    """
    lines = []
    for place, _, metric, values in _measured(per_user):
        for row, other in pairs:
            if row in values and other in values:
                found = _against(values[row], values[other], metric, preset.evaluation.draws)
                about = {"row": row, "compared_with": other, "metric": metric, "seeds": len(values[row])}
                lines.append(place | about | found)
    made = {(line["row"], line["compared_with"]) for line in lines}
    for row, other in pairs:
        if (row, other) not in made:
            raise ValueError(f"no backbone has both rows of the pair {row!r}, {other!r}")
    return in_order(_finished(lines, PAIR_COLUMNS, preset, llm=True), PAIR_KEY)


def mean_gains(per_user: pd.DataFrame, table: pd.DataFrame, preset: Preset) -> pd.DataFrame:
    """Each row's relative gain over Base, averaged over the backbones of a task: columns `GAIN_COLUMNS`.

    per_user, table: what `build` was given and gave; both may hold several tasks. A row is averaged over the backbones
    that have it. `better` and `worse` count those whose interval leaves out zero; `paper_gain` is the mean of the
    paper's gains for the same backbones, NaN where it has none. Raises ValueError as `build` does.
    """
    found: dict[tuple, list] = {}
    for place, _, metric, values in _measured(per_user):
        task, base = task_of(place["backbone"]), _base(values, place)
        for row in values.keys() - {"Base"}:
            here = found.setdefault((place["dataset"], place["protocol"], task, row, metric), [])
            here.append((place["backbone"], values[row], base))
    lines = []
    for (dataset, protocol, task, row, metric), each in found.items():
        names, ours, base = zip(*each, strict=True)
        about = {"dataset": dataset, "protocol": protocol, "row": row, "metric": metric}
        same = np.logical_and.reduce([table[key] == value for key, value in about.items()])
        here = table[same & table["backbone"].isin(names)]
        above, below = (here["diff_ci_low"] > 0).sum(), (here["diff_ci_high"] < 0).sum()
        paper = [paper_value(dataset, name, row, metric) / paper_value(dataset, name, "Base", metric) for name in names]
        gain, low, high = mean_gain(ours, base, metric == "RMSE", preset.evaluation.draws)
        numbers = {"backbones": len(names), "seeds": len(base[0]), "users": base[0].shape[1], "gain": gain}
        numbers |= {"ci_low": low, "ci_high": high, "better": above, "worse": below}
        if metric in ERRORS:
            numbers |= {"better": below, "worse": above}
        lines.append(about | {"task": task, "paper_gain": np.mean(paper) - 1} | numbers)
    return in_order(_finished(lines, GAIN_COLUMNS, preset, llm=True), GAIN_KEY)


def pairs_of(rows: Sequence[str]) -> list[tuple[str, str]]:
    """Llama4Rec with each of its ablations, controls and second opinions among `rows`; the stack with and without the
    LLM."""
    others = [row for row in dict.fromkeys(rows) if row not in NEEDED]
    found = [("Llama4Rec", other) for other in others]
    return found + [("stack + LLM", "stack")] * ("stack + LLM" in others)


def _measured(per_user: pd.DataFrame) -> Iterator[tuple[dict, dict[str, pd.DataFrame], str, dict[str, np.ndarray]]]:
    """For each dataset, protocol and backbone, and each metric: what a line says of the place (`PLACE`, users, cases),
    the rows' frames, the metric's name, and the rows' values [S, U], seeds and users in order."""
    for column in PER_USER:
        if column not in per_user.columns:
            raise ValueError(f"the per-user frame lacks the column {column!r}; it needs {', '.join(PER_USER)}")
    if "RMSE" in per_user.columns:
        raise ValueError("the per-user column RMSE should be MSE, mean squared errors: the root comes after averaging")
    for key, frame in per_user.groupby(PLACE, sort=False):
        place = dict(zip(PLACE, key, strict=True))
        users = _same_users(frame, _named(place))
        place |= {"users": len(users), "cases": frame.drop_duplicates("user")["cases"].sum()}
        parts = {name: part.sort_values(["seed", "user"]) for name, part in frame.groupby("row", sort=False)}
        for column in frame.columns.difference([*PER_USER, *SETTINGS], sort=False):
            if frame[column].isna().all():  # a metric of another task
                continue
            values = {name: part[column].to_numpy(float).reshape(-1, len(users)) for name, part in parts.items()}
            for name, each in values.items():
                for number, user in np.argwhere(np.isnan(each)):
                    lost = f"{name} has no {column} for user {users[user]} (seed number {number + 1})"
                    raise ValueError(f"{_named(place)}: {lost}")
            yield place, parts, "RMSE" if column == "MSE" else column, values


def _base(values: dict[str, np.ndarray], place: dict) -> np.ndarray:
    if "Base" not in values:
        raise ValueError(f"{_named(place)} has no row Base, with which every other row is compared")
    return values["Base"]


def _named(place: dict) -> str:
    return " / ".join(place[column] for column in PLACE)


def _finished(lines: list[dict], columns: list[str], preset: Preset, llm: bool) -> pd.DataFrame:
    """The lines with what they have in common, p_users corrected."""
    name = Path(preset.llm).name if Path(preset.llm).is_absolute() else preset.llm
    table = pd.DataFrame(lines, columns=columns)
    if "p_users" in table:
        family = [column for column in FAMILY if column in table]
        table["p_users"] = table.astype({"p_users": float}).groupby(family, dropna=False)["p_users"].transform(holm)
    return table.assign(preset=preset.name, commit=paths.commit(), llm=name if llm else "")


def _has_llm(row: str) -> bool:
    return row not in ("Base", "stack") and not row.startswith(SECOND_OPINION)


def _against(ours: np.ndarray, theirs: np.ndarray, metric: str, draws: int) -> dict[str, float]:
    """The paired difference of two rows' values [S, U]."""
    root = metric == "RMSE"
    found, value = compare(ours, theirs, root, draws), by_seed(theirs, root).mean()
    return {
        "diff": found.diff,
        "diff_ci_low": found.ci_low,
        "diff_ci_high": found.ci_high,
        "gain": found.diff / value if value else np.nan,
        "p_seeds": found.p_seeds,
        "p_users": found.p_users,
        "mde": found.mde,
    }


def _same_users(frame: pd.DataFrame, where: str) -> np.ndarray:
    """The sorted users of a frame, after checking that every row and seed has each exactly once, with the same number
    of cases."""
    found = frame.groupby(["row", "seed", "user"]).size().unstack(fill_value=0)  # [row and seed, user]
    for line, column in np.argwhere(found.to_numpy() != 1):
        (name, seed), user = found.index[line], found.columns[column]
        if found.iat[line, column]:
            raise ValueError(f"{where}: {name} has user {user} twice for seed {seed}")
        raise ValueError(f"{where}: {name}, seed {seed} lacks user {user}; all rows need the same users")
    counts = frame.groupby("user")["cases"].nunique()
    if (counts != 1).any():
        raise ValueError(f"{where}: rows differ in the cases of user {counts.index[counts != 1][0]}; compared rows "
                         "need the same cases")  # fmt: skip
    return counts.index.to_numpy()


def _settings(part: pd.DataFrame) -> dict:
    """alpha_1, alpha_2, mode as text ("0.3/0.5" where seeds chose differently) and users_changed, of one row."""
    settings = {}
    for name in {"alpha_1", "alpha_2", "mode"} & set(part.columns):
        chosen = sorted(part[name].dropna().unique())
        settings[name] = "/".join(value if isinstance(value, str) else f"{value:g}" for value in chosen)
    if "changed" in part:
        settings["users_changed"] = part["changed"].astype(float).mean()  # of the users about whom someone was asked
    return settings


def caption(task: Task, preset: Preset, dataset: str, protocol: str, n_users: int) -> str:
    """What the table shows, in one paragraph; protocol: "" where the rows are of several."""
    asked = f", LLM {preset.llm}; where it says no LLM: backbones alone, all users, and other protocols"
    where = f"{dataset} ({protocol})" if protocol else dataset
    said = f"Table {task.number} of the paper, {task.what}, on {where}{asked}. "
    blended = (
        "Llama4Rec is equation 6 of the augmented backbone and the LLM tuned on augmented prompts; Base + ... is "
        "equation 6 of the backbone and a model that is no LLM. "
    )
    counts = (preset.evaluation.users, preset.evaluation.rating_users if task.root else None)
    few = min((count for count in counts if count is not None), default=None)
    of = f"all {n_users} users"
    if few is not None:
        of = f"the same {min(few, n_users)} users, drawn at random, in every row of an LLM's run"
    if task.root:
        return said + f"Ratings of {of}. Base is the backbone, IFT the tuned LLM alone. " + blended.rstrip()
    return said + (
        f"Lists of {of}, ranked over all items not seen before. Base is the backbone, IFT its top "
        f"{preset.prompts.candidates} in the tuned LLM's order. {blended}"
        "The LLM was asked only about lists that hold their target: for the others no order can change these metrics; "
        "'top 5 changed' is the share of the users asked about whose first five differ from Base's."
    )


def in_order(table: pd.DataFrame, key: Sequence[str] = KEY) -> pd.DataFrame:
    """The lines in the order of data sets, backbones, rows and metrics, by the columns of `key` that there are."""

    def rank(column: pd.Series) -> pd.Series:
        known = {name.lower(): f"{i:03d}" for i, name in enumerate(_ORDER.get(column.name, ()))}
        return column.map(lambda name: known.get(name.lower(), "999" + name))

    keys = [column for column in key if column in table.columns]
    return table.sort_values(keys, key=rank, kind="stable", ignore_index=True)


def write(table: pd.DataFrame, path, caption: str = "") -> None:
    """Write a table to `path` (.csv), with `caption` also its Markdown twin beside it (.md), each whole or not at all.

    What `compare_rows` gives goes to pairs.csv, what `mean_gains` gives to gains.csv. `caption` is one paragraph that
    says what the table shows. Raises ValueError where columns are missing or a key stands in two lines.
    """
    path = Path(path)
    text = _as_text(table, path)
    write_text(path, text.to_csv(index=False, lineterminator="\n"))
    if caption:
        write_text(path.with_suffix(".md"), markdown(_parsed(text, path), caption))


def read(path) -> pd.DataFrame:
    """A table from its CSV: numbers as float64 (NaN where empty), names and alphas as str ("" where empty).

    Raises ValueError where the columns are not the file's, a key stands in two lines, or a number cannot be read.
    """
    return _parsed(_read_text(Path(path)), Path(path))


def _made_of(path: Path) -> tuple[list[str], list[str]]:
    """The columns of a file and its key."""
    return BESIDE.get(path.stem, (COLUMNS, KEY))


def publish(run_tables, committed_dir) -> pd.DataFrame:
    """Merge every table (table_*.csv, pairs.csv, gains.csv) of the folder `run_tables` into the CSV of that name in
    `committed_dir`; renew the twins.

    `KEY` (`PAIR_KEY`, `GAIN_KEY`) tells lines apart. The preset is part of it, so a newcomer's one-seed `quick` line
    stands beside a five-seed `laptop` line, and only a rerun of the same preset replaces a line. Of a backbone that the
    run has, its lines replace all committed ones of that preset, LLM, data set and protocol, and so do a task's in
    gains.csv: an older Base must not stand beside a newer one. Other committed lines stay. The caption is the run's.
    Returns what happened: columns table, KEY, action (added | replaced | unchanged). Raises ValueError where there is
    no table or one cannot be read; then nothing is written.
    """
    run_tables, committed_dir = Path(run_tables), Path(committed_dir)
    sources = sorted(run_tables.glob("table_*.csv"))
    if not sources:
        raise ValueError(f"{run_tables} holds no table to publish (no table_*.csv file)")
    merged, done = [], []
    for source in sources:  # everything is read and checked before anything is written
        target, twin = committed_dir / source.name, source.with_suffix(".md")
        before, after = map(_lines_of, (target, source))
        same = after.merge(before, how="left", indicator=True)["_merge"] == "both"
        action = np.select([same, _among(after, before, KEY)], ["unchanged", "replaced"], "added")
        done.append(after[KEY].assign(table=source.stem, action=action))
        own = twin.read_text(encoding="utf-8").split("\n\n", 1)[0] if twin.exists() else source.stem
        both = pd.concat([before[~_among(before, after, OF_RUN)], after])
        merged.append((_parsed(both, target), target, own))
    beside = {}
    for name, (_, key) in BESIDE.items():
        target = committed_dir / f"{name}.csv"
        before, after = map(_lines_of, (target, run_tables / target.name))
        beside[target] = _parsed(pd.concat([before[~_among(before, after, key[:5])], after]), target)
    for table, path, caption in merged:
        write(table, path, caption)
    for target, lines in beside.items():
        if len(lines):
            write(lines, target)
    return pd.concat(done, ignore_index=True)[["table", *KEY, "action"]]


def _lines_of(path: Path) -> pd.DataFrame:
    """The lines of a file as text, none where there is no file."""
    return _read_text(path) if path.exists() else pd.DataFrame(columns=_made_of(path)[0], dtype=str)


def _among(lines: pd.DataFrame, others: pd.DataFrame, key: list[str]) -> np.ndarray:
    """Which of the lines have a key that one of the others has."""
    return pd.MultiIndex.from_frame(lines[key]).isin(pd.MultiIndex.from_frame(others[key]))


def _as_text(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The cells of a file, in order."""
    columns, key = _made_of(path)
    for column in columns:
        if column not in table.columns:
            raise ValueError(f"{path.name}: the table lacks the column {column!r}")
    text = in_order(table[columns], key).astype(object)
    for column in columns:
        decimals = _DECIMALS.get(column)
        text[column] = [_text(x) if decimals is None else _number(x, decimals) for x in text[column]]
    twice = text[text.duplicated(key)]
    if len(twice):
        raise ValueError(f"{path.name}: two lines for {' / '.join(twice[key].iloc[0])}; a key may stand in one line")
    return text


def _read_text(path: Path) -> pd.DataFrame:
    columns, key = _made_of(path)
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(text.columns) != columns:
        wrong = [*text.columns.difference(columns, False), *pd.Index(columns).difference(text.columns), "the order"][0]
        raise ValueError(f"{path.name}: the columns of a table are {', '.join(columns)}; the fault is {wrong!r}")
    twice = np.flatnonzero(text.duplicated(key))
    if len(twice):
        found = " / ".join(text[key].iloc[twice[0]])
        raise ValueError(f"{path.name}, line {twice[0] + 2}: this key already stands further up: {found}")
    return text


def _parsed(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Text cells -> float64 where the column is a number, NaN where it is empty."""
    numbers = {}
    for column in text.columns.intersection(list(_DECIMALS)):
        try:
            numbers[column] = text[column].replace("", "nan").astype(float)
        except ValueError as error:
            raise ValueError(f"{path.name}, column {column}: {error}") from None
    return text.assign(**numbers)


def _text(x) -> str:
    return "" if pd.isna(x) else str(x)


def _number(x: float, decimals: int) -> str:
    """With fixed decimals, and never "-0.00"; "" where there is none."""
    if pd.isna(x):
        return ""
    text = f"{x:.{decimals}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def markdown(table: pd.DataFrame, caption: str) -> str:
    """The table for a person: few rows side by side with the paper's numbers below, many rows one below the other."""
    parts = [" ".join(caption.split())]
    for (preset, llm, dataset, protocol), lines in in_order(table).groupby(KEY[:4], sort=False):
        tuned = ", ".join(each for each in lines["tuning"].unique() if each)
        asked = f"LLM {llm}{f' ({tuned})' if tuned else ''}" if llm else "no LLM"
        parts.append(f"## {dataset}, {protocol}: preset {preset}, {asked}")
        cases = f", {_span(lines['cases'])} cases" if lines["cases"].notna().all() else ""
        parts.append(
            f"{_span(lines['users'])} users{cases}, seeds: {_span(lines['seeds'])}. Values are means over seeds with "
            "95% intervals over users. Gains are paired differences, divided by the value of the row compared with."
        )
        if lines.groupby("backbone")["row"].nunique().max() > 4:
            parts.append(
                "p pairs users and is Holm-corrected over a row's backbones. mde is the smallest gain that could have "
                "been seen with 80% power."
            )
            parts += [_long(backbone, each) for backbone, each in lines.groupby("backbone", sort=False)]
            continue
        parts.append(_grid(lines))
        compared = lines[lines["diff"].notna()]
        if len(compared):
            parts.append("In pairs (p over users is Holm-corrected over a row's backbones):")
            parts.append(_comparisons(compared))
    return "\n\n".join(parts) + "\n"


def _long(backbone: str, lines: pd.DataFrame) -> str:
    """One backbone's rows one below the other: the main metric with all about it, then the other metrics."""
    is_main = lines["metric"].isin([task.metric for task in TASKS.values()])
    main, others = lines[is_main], lines[~is_main]
    first = [["row", f"{main['metric'].iloc[0]} [95% interval]", "gain over Base [95% interval]", "p", "mde",
              "top 5 changed", "alpha_1", "alpha_2", "paper"]]  # fmt: skip
    for line in main.itertuples():
        first.append([
            line.row, _cell(line), gain_text(line), _p(line.p_users), _percent(_relative(line.mde, line)),
            _percent(line.users_changed), _text(line.alpha_1), _text(line.alpha_2), _number(line.paper_value, 4),
        ])  # fmt: skip
    metrics = list(others["metric"].unique())
    second = [["row", *(f"{metric} (gain)" for metric in metrics)]]
    for row, cells in others.groupby("row", sort=False):
        cells = cells.set_index("metric").reindex(metrics)
        second.append([row, *(
            _number(each.value, 4) + (f" ({signed_percent(each.gain)})" if pd.notna(each.gain) else "")
            for each in cells.itertuples()
        )])  # fmt: skip
    return "\n\n".join([f"### {backbone}", _aligned(_filled(first)), *([_aligned(second)] if metrics else [])])


def _grid(lines: pd.DataFrame) -> str:
    """One line per backbone and metric, a column per row, and below each line the paper's where it has any."""
    rows = list(in_order(lines[["row"]].drop_duplicates())["row"])
    out = [["backbone", "metric", *rows]]
    for (backbone, metric), cells in lines.groupby(["backbone", "metric"], sort=False):
        cells = cells.set_index("row").reindex(rows)
        out.append([backbone, metric, *map(_cell, cells.itertuples())])
        if cells["paper_value"].notna().any():
            out.append(["", "*paper*", *(_number(x, 4) for x in cells["paper_value"])])
    return _aligned(out)


def _cell(line) -> str:
    return "" if pd.isna(line.value) else f"{line.value:.4f} [{_number(line.ci_low, 4)}, {_number(line.ci_high, 4)}]"


def _comparisons(lines: pd.DataFrame) -> str:
    out = [["backbone", "row", "against", "metric", "gain [95% interval]", "p over users", "p over seeds", "mde",
            "top 5 changed", "alpha_1", "alpha_2", "mode"]]  # fmt: skip
    for line in lines.itertuples():
        out.append([
            line.backbone, line.row, line.compared_with, line.metric, gain_text(line), _p(line.p_users),
            _p(line.p_seeds), _percent(_relative(line.mde, line)), _percent(line.users_changed),
            _text(line.alpha_1), _text(line.alpha_2), _text(line.mode),
        ])  # fmt: skip
    return _aligned(_filled(out))


def gain_text(line) -> str:
    """The gain of a line and its interval in percent, "+3.1% [-1.0%, +7.2%]"; "" where it was not compared, or with 0.

    The interval is the difference's, divided by the same value as the gain.
    """
    if pd.isna(line.gain):
        return ""
    gain, low, high = (signed_percent(_relative(x, line)) for x in (line.diff, line.diff_ci_low, line.diff_ci_high))
    return f"{gain} [{low}, {high}]"


def _relative(x: float, line) -> float:
    """Part of the value that the line was compared with."""
    return np.nan if pd.isna(line.gain) else x / (line.value - line.diff)


def signed_percent(x: float) -> str:
    """A gain with its sign, in percent; "" where there is none."""
    text = _number(100 * x, 1)
    return text and f"{text if text.startswith('-') else f'+{text}'}%"


def _percent(x: float) -> str:
    return "" if pd.isna(x) else f"{x:.1%}"


def _p(p: float) -> str:
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _filled(lines: list[list[str]]) -> list[list[str]]:
    """Without the columns that hold nothing below their heading."""
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    return [list(line) for line in zip(*columns, strict=True)]


def _aligned(lines: list[list[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)
