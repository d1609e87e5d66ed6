"""Data augmentation (4.2): what the tuned LLM makes for the conventional model, each kind in a file one can read.

    P1 direct       of two random items, which would the user rather choose?   -> triples (u, i+, i-)
    P2 sequential   of k random items, which comes next?                       -> insertions (u, item, position)
    P3 rating       who directed this film, who stars in it?                   -> attribute columns

Items are drawn from outside the user's training items, never steered around validation or test items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.augmentation.prompt import Sequences
from llama4rec_core.instructions import List, pair_prompt, ranking_prompt, titles, unseen
from llama4rec_core.llm import answers, prompts, ranking, recording
from llama4rec_core.llm.engine import generate
from llama4rec_core.llm.weights import LLM


def pairs(
    llm: LLM, told: Sequences, users: Sequence[int], per_user: int, length: int, seed: int, path: Path, row_tokens: int
) -> pd.DataFrame:
    """P1: ask about `per_user` random couples of each user, in both orders.

    Columns: user, preferred, other (the answer in the order asked first), margin, margin_swapped (log-odds of
    `preferred` in each order) and agreed (both orders name the same film). Only agreements become triples.
    """
    rng = np.random.default_rng([seed, 41])
    couples = {u: unseen(told, u, len(told.titles), 2 * per_user, rng).reshape(-1, 2) for u in users}
    asked = [pair_prompt(llm, told, f"pair-{u}", u, int(told.n_train[u]), couples[u], length) for u in users]
    scores = recording.score(llm, asked, path.with_name(f"{path.stem}-scores.parquet"), "P1 pairs", row_tokens)
    log_p = {key: rows.sort_values("branch")["log_p"].to_numpy() for key, rows in scores.groupby("key")}
    out = []
    for u in users:
        for (a, b), (a1, b1, a2, b2) in zip(couples[u], log_p[f"pair-{u}"].reshape(-1, 4), strict=True):
            first, second = a1 - b1, a2 - b2  # how much a is preferred when it stands first, and when it stands second
            preferred, other, sign = (a, b, 1) if first > 0 else (b, a, -1)
            out.append((u, preferred, other, sign * first, sign * second, sign * second > 0))
    columns = ["user", "preferred", "other", "margin", "margin_swapped", "agreed"]
    return _readable(pd.DataFrame(out, columns=columns), told, "preferred", "other")


def insertions(
    llm: LLM,
    told: Sequences,
    users: Sequence[int],
    sampled: int,
    length: int,
    prior: np.ndarray,
    seed: int,
    path: Path,
    row_tokens: int,
    mode: str = "likelihood",
    title_tokens: np.ndarray | None = None,
) -> pd.DataFrame:
    """P2: of `sampled` random items, the one the LLM finds likeliest next goes to a random position of the sequence.

    prior [I]: what ranking subtracts from each title's log-likelihood; title_tokens [I]: how far each title is read
    (None: to its end). Columns: user, item, position, advantage (over the next best).
    """
    rng = np.random.default_rng([seed, 42])
    drawn = {u: unseen(told, u, len(told.titles), sampled, rng) for u in users}
    places = {u: int(rng.integers(0, told.n_train[u] + 1)) for u in users}
    lists = {u: List(f"next-{u}", u, int(told.n_train[u]), drawn[u], ()) for u in users}
    asked = [ranking_prompt(llm, told, each, length, None, mode, title_tokens) for each in lists.values()]
    shown = {each.key: titles(told, each) for each in lists.values()}
    scores = path.with_name(f"{path.stem}-scores.parquet")
    found = ranking.utilities(mode, llm, asked, shown, scores, "P2 insertions", row_tokens)
    by_key = {key: rows.sort_values("candidate")["utility"].to_numpy() for key, rows in found.groupby("key")}
    out = []
    for u in users:
        utility = by_key[f"next-{u}"] - prior[drawn[u]]
        best, second = np.argsort(-utility, kind="stable")[:2]
        out.append((u, drawn[u][best], places[u], utility[best] - utility[second]))
    return _readable(pd.DataFrame(out, columns=["user", "item", "position", "advantage"]), told, "item")


def attributes(
    llm: LLM, told: Sequences, items: Sequence[int], years: Sequence[str], path: Path, per_batch: int = 32
) -> pd.DataFrame:
    """P3: let the LLM write each item's attributes after in-context examples.

    Columns: item, title, one per attribute ("" where the answer has none), answer (as written), defects.
    """
    prefix = prompts.attributes_prefix(llm, told.words)
    tails = [
        llm.encode(prompts.attributes_question(told.titles[i], year, told.words))
        for i, year in zip(items, years, strict=True)
    ]
    order = sorted(range(len(items)), key=lambda n: (len(tails[n]), n))
    batches = [order[start : start + per_batch] for start in range(0, len(order), per_batch)]

    def work(batch: Sequence[int]) -> pd.DataFrame:
        written = generate(llm, prefix, [tails[n] for n in batch], max_tokens=28)
        rows = []
        for n, text in zip(batch, written, strict=True):
            values, defects = answers.attributes(text, told.words)
            rows.append(
                {
                    "item": items[n],
                    "title": told.titles[items[n]],
                    **values,
                    "answer": text.strip(),
                    "defects": ", ".join(defects),
                    "tokens_written": len(llm.encode(text)),
                }
            )
        return pd.DataFrame(rows)

    answered = recording.in_batches(
        path.with_name(f"{path.stem}-answers.parquet"), "P3 attributes", batches, [len(tail) for tail in tails], work
    )
    return answered.drop(columns="tokens_written").sort_values("item", ignore_index=True)


def _readable(frame: pd.DataFrame, told: Sequences, *columns: str) -> pd.DataFrame:
    """With titles beside item numbers: these files are meant to be looked at."""
    return frame.assign(**{f"{column}_title": [told.titles[i] for i in frame[column]] for column in columns})


def triples(frame: pd.DataFrame) -> np.ndarray:
    """D' - D of equation 3: agreed answers as int64 [M, 3] rows (u, i+, i-)."""
    return frame.loc[frame["agreed"], ["user", "preferred", "other"]].to_numpy(dtype=np.int64)
