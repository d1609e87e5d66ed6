"""From scores to the rows of a table: weights chosen on validation, equation 6, one look at test.

    Base        the backbone's list, or its rating
    IFT         the same list in the order of LLM' alone, or the rating of LLM' alone
    Llama4Rec   the augmented backbone's list and LLM'' by equation 6

Shapes: n cases, C candidates, U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llama4rec_core import aggregation, evaluation, tables
from llama4rec_core.files import once, read_frame, read_json, write_frame, write_json
from llama4rec_core.llm import ranking
from llama4rec_core.presets import DataSettings
from llama4rec_core.stages import (
    Predictions,
    Run,
    asked_of,
    backbone,
    list_scores,
    prepare,
    rating_scores,
    task_of,
    way_scores,
)

METHODS = ("Base", "IFT", "Llama4Rec")
TIES = {"reverse": "reversed", "random": "at random"}  # interactions of one second, where not in the file's order
VARIANTS = {  # of a run's data settings: its Base rows are also made under these
    "rolling": {"protocol": "rolling"},
    "ties-reverse": {"tie_break": "reverse"},
    "ties-random": {"tie_break": "random"},
}
TABLES = {"direct": "table_2_direct", "sequential": "table_3_sequential", "rating": "table_4_rating"}


def variants(data: DataSettings) -> list[str]:
    """The names of the VARIANTS that differ from the run's own settings."""
    return [name for name, change in VARIANTS.items() if replace(data, **change) != data]


@dataclass(frozen=True)
class Outcome:
    """What one backbone and seed gave."""

    per_user: pd.DataFrame  # dataset, protocol, backbone, method, seed, user, metrics, alpha_1, alpha_2, mode, changed
    choice: dict  # alpha_1, alpha_2, the validation metric of every method, the best baseline
    grid: pd.DataFrame  # alpha_1, alpha_2, value on validation
    within: pd.DataFrame  # top-k: within-list NDCG@5 on validation; rating: RMSE on validation


def outcome(run: Run, name: str, seed: int) -> Outcome:
    """Aggregate and measure; `rows/<name>-s<seed>/`."""
    folder = run.folder / "rows" / f"{name}-s{seed}"
    if not (folder / "per_user.parquet").exists():
        made = (_rating if task_of(name) == "rating" else _ranking)(run, name, seed)
        write_json(folder / "choice.json", made.choice)
        write_frame(folder / "grid.csv", made.grid)
        write_frame(folder / "within.csv", made.within)
        write_frame(folder / "per_user.parquet", made.per_user)
    return Outcome(
        read_frame(folder / "per_user.parquet"),
        read_json(folder / "choice.json"),
        read_frame(folder / "grid.csv"),
        read_frame(folder / "within.csv"),
    )


def base(run: Run, name: str, seed: int) -> pd.DataFrame:
    """Per-user metrics of the Base row alone: no LLM is needed. `rows/<name>-s<seed>/base.parquet`."""

    def make() -> pd.DataFrame:
        known = backbone(run, name, "base", seed).part("test")
        if task_of(name) == "rating":
            predicted = np.clip(known.ratings, *prepare(run).dataset.scale)
            frame = evaluation.rating_metrics(predicted, known.cases["rating"], known.cases["user"])
        else:
            frame = evaluation.ranking_metrics(_base_rank(known), known.cases["user"])
        return _named(run, name, "Base", seed, frame)

    return once(run.folder / "rows" / f"{name}-s{seed}" / "base.parquet", make)


def _named(run: Run, name: str, method: str, seed: int, frame: pd.DataFrame, **settings: object) -> pd.DataFrame:
    ready = prepare(run)
    ties = run.preset.data.tie_break
    columns = {
        "dataset": ready.dataset.name,
        "protocol": ready.split.protocol + ("" if ties == "file" else f", ties {TIES[ties]}"),
        "backbone": name,
        "method": method,
        "seed": seed,
    }
    empty = {"alpha_1": np.nan, "alpha_2": np.nan, "mode": None, "changed": np.nan}
    return frame.assign(**columns, **(empty | settings))


# -- top-k -----------------------------------------------------------------------------------------


def _base_rank(known: Predictions) -> np.ndarray:
    return evaluation.target_rank(known.items, known.cases["item"].to_numpy())


def _utilities(known: Predictions, scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The LLM's utilities of the listed candidates [m, C], and which of the n cases were asked about (bool [n])."""
    by_key = {key: dict(zip(rows["item"], rows["utility"], strict=True)) for key, rows in scores.groupby("key")}
    keys = [f"{row.part}-{row.user}-{row.prefix}" for row in known.cases.itertuples(index=False)]
    asked = np.array([key in by_key for key in keys], dtype=bool)
    found = [
        [by_key[key][item] for item in items] for key, items, ask in zip(keys, known.items, asked, strict=True) if ask
    ]
    return np.array(found, dtype=np.float64).reshape(-1, known.items.shape[1]), asked


def _rank(
    known: Predictions, utility: np.ndarray, asked: np.ndarray, alpha: np.ndarray | float, mode: str
) -> np.ndarray:
    """The target's final rank in every case [n]; `alpha` is each user's [U], or one number."""
    rank = np.zeros(len(known.cases), dtype=np.int64)  # not asked about: the target is not in the list
    if asked.any():
        weight = alpha if np.isscalar(alpha) else alpha[known.cases["user"].to_numpy()[asked]]
        order = aggregation.aggregate(known.items[asked], utility, known.scores[asked], weight, mode)
        rank[asked] = evaluation.target_rank(order, known.cases["item"].to_numpy()[asked])
    return rank


def _ranking(run: Run, name: str, seed: int) -> Outcome:
    ready, mode = prepare(run), run.preset.ranking.combine
    scores = {method: list_scores(run, name, method, seed) for method in ("untuned", "IFT", "Llama4Rec")}
    plain, full = backbone(run, name, "base", seed), backbone(run, name, "augmented", seed)
    (_, augmented), (_, windows) = asked_of(run, name, "Llama4Rec", seed)

    # choose on validation items and held-out users' window targets
    choosing = [(known, *_utilities(known, scores["Llama4Rec"])) for known in (augmented.part("valid"), windows)]
    users = np.concatenate([known.cases["user"].to_numpy() for known, *_ in choosing])

    def evaluate(alpha_1: float, alpha_2: float) -> np.ndarray:
        alpha = aggregation.user_weights(ready.n_train, alpha_1, alpha_2)
        return evaluation.per_user(
            np.concatenate([evaluation.ndcg(_rank(*each, alpha, mode), 5) for each in choosing]), users
        ).to_numpy()

    choice = aggregation.choose_alphas(evaluate)
    alpha = aggregation.user_weights(ready.n_train, choice.alpha_1, choice.alpha_2)

    def ranks(part: str) -> dict[str, np.ndarray]:
        before, after = plain.part(part), full.part(part)
        return {
            "Base": _base_rank(before),
            "IFT": _rank(before, *_utilities(before, scores["IFT"]), 1.0, mode),
            "Llama4Rec": _rank(after, *_utilities(after, scores["Llama4Rec"]), alpha, mode),
        }

    on_validation = {
        m: float(evaluation.per_user(evaluation.ndcg(rank, 5), plain.part("valid").cases["user"]).mean())
        for m, rank in ranks("valid").items()
    }
    before, after = plain.part("test"), full.part("test")
    utility, asked = _utilities(after, scores["Llama4Rec"])
    top5 = aggregation.aggregate(
        after.items[asked], utility, after.scores[asked], alpha[after.cases["user"].to_numpy()[asked]], mode
    )[:, :5]
    changed = (
        pd.Series(
            (top5 != before.items[asked][:, :5]).any(axis=1), index=after.cases["user"].to_numpy()[asked], dtype=float
        )
        .groupby(level=0)
        .max()
    )
    frames = []
    for method, rank in ranks("test").items():
        frame = evaluation.ranking_metrics(rank, before.cases["user"])
        more = (
            {"alpha_1": choice.alpha_1, "alpha_2": choice.alpha_2, "mode": mode, "changed": frame["user"].map(changed)}
            if method == "Llama4Rec"
            else {}
        )
        frames.append(_named(run, name, method, seed, frame, **more))
    record = {
        "alpha_1": choice.alpha_1,
        "alpha_2": choice.alpha_2,
        "chosen_on": int(len(np.unique(users))),
        "metric": "NDCG@5",
        "validation": on_validation,
    }
    record["compared_with"] = max(("Base", "IFT"), key=on_validation.__getitem__)
    return Outcome(
        pd.concat(frames, ignore_index=True),
        record,
        choice.grid,
        _within_lists(run, plain.part("valid"), augmented.part("valid"), scores),
    )


def _within_lists(
    run: Run, plain: Predictions, augmented: Predictions, scores: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Has the LLM learnt to order candidates? NDCG@5 within validation lists that hold their target, by the LLM
    alone."""
    rows = [
        {
            "name": "random",
            "value": evaluation.random_order_ndcg(plain.items.shape[1], 5),
            "ci_low": np.nan,
            "ci_high": np.nan,
            "lists": np.nan,
        }
    ]

    for label, known, method in (
        ("untuned", plain, "untuned"),
        ("LLM'", plain, "IFT"),
        ("LLM''", augmented, "Llama4Rec"),
    ):
        rows.append(alone(run, label, (known, scores[method])))
    rows.append(_within(run, "backbone", plain.cases["user"].to_numpy(), _base_rank(plain)))
    return pd.DataFrame([row for row in rows if row["lists"] != 0])


def alone(run: Run, name: str, *asked: tuple[Predictions, pd.DataFrame]) -> dict:
    """The LLM alone within the lists that hold their target, of one backbone or several, each with the LLM's scores:
    name, value (NDCG@5), ci_low, ci_high, lists."""
    return _within(run, name, *_ranks_alone(asked))


def ndcg_alone(*asked: tuple[Predictions, pd.DataFrame]) -> pd.Series:
    """The same as NDCG@5 of each user with such a list, by user: to be compared with another LLM's."""
    users, rank = _ranks_alone(asked)
    return evaluation.per_user(evaluation.ndcg(rank[rank > 0], 5), users[rank > 0])


def _ranks_alone(asked: Sequence[tuple[Predictions, pd.DataFrame]]) -> tuple[np.ndarray, np.ndarray]:
    users = np.concatenate([known.cases["user"].to_numpy() for known, _ in asked])
    return users, np.concatenate([_rank(known, *_utilities(known, scores), 1.0, "score") for known, scores in asked])


def _within(run: Run, name: str, users: np.ndarray, rank: np.ndarray) -> dict:
    """NDCG@5 over the lists that hold their target (rank > 0), averaged over users, with its interval."""
    held = rank > 0
    if not held.any():
        return {"name": name, "value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "lists": 0}
    values = evaluation.per_user(evaluation.ndcg(rank[held], 5), users[held])
    found = evaluation.estimate(values.to_numpy(), draws=run.preset.evaluation.draws)
    return {
        "name": name,
        "value": found.value,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "lists": int(held.sum()),
    }


def ways_of_ranking(run: Run, name: str, seed: int) -> pd.DataFrame:
    """Each way of ranking (`llm/ranking.py`) on the same validation lists by the untuned LLM: quality and cost.

    Columns: name, value (NDCG@5 within the lists), ci_low, ci_high, lists, tokens_read, tokens_written, seconds;
    likelihood stands there with its prior and without.
    """
    known = backbone(run, name, "base", seed).part("valid")
    rows = []
    for mode in ranking.MODES:
        scores, cost = way_scores(run, name, mode, seed)
        ways = {mode: scores}
        if mode == "likelihood":
            ways = {"likelihood less prior": scores, "likelihood": scores.assign(utility=scores["log_p"])}
        for label, frame in ways.items():
            rows.append(alone(run, label, (known, frame)) | cost)
    return pd.DataFrame(rows)


# -- rating ----------------------------------------------------------------------------------------


def _rating(run: Run, name: str, seed: int) -> Outcome:
    ready = prepare(run)
    scores = {method: rating_scores(run, name, method, seed) for method in ("untuned", "IFT", "Llama4Rec")}
    scale, said = ready.dataset.scale, run.preset.ranking.rating
    if said not in ("expected", "likeliest"):
        raise ValueError(f"ranking.rating {said!r} is unknown: the known ones are expected, likeliest")

    def blend(frame: pd.DataFrame, alpha_1: float, alpha_2: float) -> np.ndarray:
        alpha = aggregation.user_weights(ready.n_train, alpha_1, alpha_2)[frame["user"].to_numpy()]
        return aggregation.blend_ratings(alpha, frame[said].to_numpy(), frame["backbone"].to_numpy(), scale)

    choosing = scores["Llama4Rec"][scores["Llama4Rec"]["part"] != "test"]

    def evaluate(alpha_1: float, alpha_2: float) -> np.ndarray:
        errors = evaluation.squared_error(blend(choosing, alpha_1, alpha_2), choosing["rating"].to_numpy())
        return evaluation.per_user(errors, choosing["user"]).to_numpy()

    choice = aggregation.choose_alphas(evaluate, larger_is_better=False)

    def predicted(part: str) -> dict[str, tuple[pd.DataFrame, np.ndarray]]:
        plain, full = (frame[frame["part"] == part] for frame in (scores["IFT"], scores["Llama4Rec"]))
        return {
            "Base": (plain, plain["backbone"].to_numpy()),
            "IFT": (plain, plain[said].to_numpy()),
            "Llama4Rec": (full, blend(full, choice.alpha_1, choice.alpha_2)),
        }

    def rmse(frame: pd.DataFrame, values: np.ndarray) -> evaluation.Estimate:
        errors = evaluation.per_user(evaluation.squared_error(values, frame["rating"].to_numpy()), frame["user"])
        return evaluation.estimate(errors.to_numpy(), root=True, draws=run.preset.evaluation.draws)

    on_validation = {method: rmse(frame, values).value for method, (frame, values) in predicted("valid").items()}
    frames = []
    for method, (frame, values) in predicted("test").items():
        metrics = evaluation.rating_metrics(values, frame["rating"].to_numpy(), frame["user"].to_numpy())
        more = {"alpha_1": choice.alpha_1, "alpha_2": choice.alpha_2, "mode": "rating"} if method == "Llama4Rec" else {}
        frames.append(_named(run, name, method, seed, metrics, **more))
    within = []
    for label, method, column in (
        ("untuned", "untuned", said),
        ("LLM'", "IFT", said),
        ("LLM''", "Llama4Rec", said),
        ("backbone", "IFT", "backbone"),
    ):
        frame = scores[method][scores[method]["part"] == "valid"]
        found = rmse(frame, frame[column].to_numpy())
        within.append(
            {"name": label, "value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "lists": len(frame)}
        )
    record = {
        "alpha_1": choice.alpha_1,
        "alpha_2": choice.alpha_2,
        "chosen_on": int(choosing["user"].nunique()),
        "metric": "RMSE",
        "validation": on_validation,
    }
    record["compared_with"] = min(("Base", "IFT"), key=on_validation.__getitem__)
    return Outcome(pd.concat(frames, ignore_index=True), record, choice.grid, pd.DataFrame(within))


# -- tables ----------------------------------------------------------------------------------------


def build_tables(run: Run) -> dict[str, pd.DataFrame]:
    """Tables 2-4 of the run's own results, as CSV and Markdown in `tables/`; what has not been run yet is not in
    them."""
    ready, out = prepare(run), {}
    for task, table in TABLES.items():
        frames, best = [], {}
        for name in (each for each in run.preset.backbones if task_of(each) == task):
            folders = [run.folder / "rows" / f"{name}-s{seed}" for seed in run.preset.seeds]
            done = [folder for folder in folders if (folder / "per_user.parquet").exists()]
            if done:
                frames += [read_frame(folder / "per_user.parquet") for folder in done]
                choices = [read_json(folder / "choice.json") for folder in done]
                sign = -1 if task == "rating" else 1
                mean = {
                    method: np.mean([choice["validation"][method] for choice in choices]) for method in tables.BASELINES
                }
                best[ready.dataset.name, ready.split.protocol, name] = max(
                    mean, key=lambda method, mean=mean, sign=sign: sign * mean[method]
                )
            else:
                frames += [
                    read_frame(folder / "base.parquet") for folder in folders if (folder / "base.parquet").exists()
                ]
        if frames:
            built = tables.build(
                pd.concat(frames, ignore_index=True),
                preset=run.preset.name,
                llm=run.preset.llm,
                compared_with=best,
                draws=run.preset.evaluation.draws,
            )
            tables.write(built, run.folder / "tables" / f"{table}.csv", caption(run, task))
            out[table] = built
    return out


def caption(run: Run, task: str) -> str:
    """What the table shows, in one paragraph."""
    preset, ready = run.preset, prepare(run)
    number = {"direct": 2, "sequential": 3, "rating": 4}[task]
    said = (
        f"Table {number} of the paper, {task} recommendation, on {ready.dataset.name} ({ready.split.protocol}), "
        f"LLM {preset.llm}; where it says no LLM: backbones alone, all users, and other protocols. "
    )
    if task == "rating":
        count = preset.evaluation.rating_users
        of = "all users"
        if count is not None:
            of = f"the same {min(count, ready.dataset.n_users)} users, drawn at random, in every row of an LLM's run"
        return said + (
            f"Ratings of {of}; Base is the backbone, IFT the tuned LLM alone, "
            "Llama4Rec equation 6 of both after mutual augmentation."
        )
    return said + (
        f"All {ready.dataset.n_users} users, ranked over all items not seen before; Base is the backbone, IFT its top "
        f"{preset.prompts.candidates} in the tuned LLM's order, Llama4Rec equation 6 of the augmented backbone and the "
        "LLM tuned on augmented prompts. The LLM was asked only about lists that hold their target: for the others no "
        "order can change these metrics; 'top 5 changed' is the share of the users asked about."
    )


def by_group(run: Run, name: str, metric: str) -> pd.DataFrame:
    """A metric for tail and head users apart (at or below, above the median N(u)); columns as `figures.head_tail`
    takes them."""
    frames = pd.concat([outcome(run, name, seed).per_user for seed in run.preset.seeds])
    column, groups = ("MSE" if metric == "RMSE" else metric), evaluation.head_or_tail(prepare(run).n_train)
    out = []
    for method in METHODS:
        values = frames[frames["method"] == method].pivot(index="seed", columns="user", values=column)
        rows = evaluation.by_group(
            values.to_numpy(),
            groups[values.columns.to_numpy()],
            root=metric == "RMSE",
            draws=run.preset.evaluation.draws,
        )
        out.append(rows.assign(method=method, metric=metric))
    return pd.concat(out, ignore_index=True)
