"""Data augmentation (4.2): what the tuned LLM makes for the conventional model, each kind in a table one can read.

    P1 direct       of two random items, which would the user rather choose?   -> triples (u, i+, i-)
    P2 sequential   of k random items, which comes next?                       -> insertions (u, item, position)
    P3 rating       who directed this film, who stars in it?                   -> attribute columns

Items are drawn from outside the user's training items, never steered around validation or test items. Each function
asks resumably: `path` is where the LLM's own answers are kept as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.backbones.fit import TrainingData
from llama4rec_core.data.histories import Histories, unseen
from llama4rec_core.llm import answers, batches, prompts
from llama4rec_core.llm.examples import CandidateList, pair_prompt
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.model import LLM
from llama4rec_core.rankers import Ranker


def pairs(
    llm: LLM,
    histories: Histories,
    users: Sequence[int],
    per_user: int,
    length: int,
    rng: np.random.Generator,
    path: Path,
    row_tokens: int,
) -> pd.DataFrame:
    """P1: ask about `per_user` random couples of each user, in both orders, after `length` titles of the history.

    Columns: user, preferred, other (the answer in the order asked first), margin, margin_swapped (log-odds of
    `preferred` in each order) and agreed (both orders name the same item). Only agreements become triples.
    """
    couples = {u: unseen(histories, u, 2 * per_user, rng).reshape(-1, 2) for u in users}
    asked = [pair_prompt(llm, histories, f"pair-{u}", u, int(histories.n_train[u]), couples[u], length) for u in users]
    scores = batches.score(llm, asked, path, "P1 pairs", row_tokens)
    log_p = {key: rows.sort_values("branch")["log_p"].to_numpy() for key, rows in scores.groupby("key")}
    out = []
    for u in users:
        for (a, b), (a1, b1, a2, b2) in zip(couples[u], log_p[f"pair-{u}"].reshape(-1, 4), strict=True):
            first, second = a1 - b1, a2 - b2  # how much a is preferred when it stands first, and when it stands second
            preferred, other, sign = (a, b, 1) if first > 0 else (b, a, -1)
            out.append((u, preferred, other, sign * first, sign * second, sign * second > 0))
    columns = ["user", "preferred", "other", "margin", "margin_swapped", "agreed"]
    return _readable(pd.DataFrame(out, columns=columns), histories, "preferred", "other")


def insertions(
    ranker: Ranker, users: Sequence[int], sampled: int, rng: np.random.Generator, path: Path
) -> pd.DataFrame:
    """P2: of `sampled` random items, the one the LLM ranks first goes to a random position of the sequence.

    Columns: user, item, position, advantage (over the next best).
    """
    histories = ranker.histories
    drawn = {u: unseen(histories, u, sampled, rng) for u in users}
    places = {u: int(rng.integers(0, histories.n_train[u] + 1)) for u in users}
    lists = [CandidateList(f"next-{u}", u, int(histories.n_train[u]), drawn[u], ()) for u in users]
    found = ranker.utilities(lists, [ranker.prompt(each) for each in lists], path, "P2 insertions")
    by_key = {key: rows.set_index("item")["utility"] for key, rows in found.groupby("key")}
    out = []
    for u in users:
        utility = by_key[f"next-{u}"][drawn[u]].to_numpy()
        best, second = np.argsort(-utility, kind="stable")[:2]
        out.append((u, drawn[u][best], places[u], utility[best] - utility[second]))
    return _readable(pd.DataFrame(out, columns=["user", "item", "position", "advantage"]), histories, "item")


def attributes(
    llm: LLM, histories: Histories, items: Sequence[int], years: Sequence[str], path: Path, per_batch: int = 32
) -> pd.DataFrame:
    """P3: let the LLM write the attributes of items [M] after in-context examples; years [M] ("" where not known).

    Columns: item, title, one per attribute ("" where the answer has none), answer (as written), defects.
    """
    words = histories.words
    prefix = prompts.attributes_prefix(llm, words)
    questions = [prompts.attributes_question(histories.titles[i], year) for i, year in zip(items, years, strict=True)]
    tails = [llm.encode(question) for question in questions]
    order = sorted(range(len(items)), key=lambda n: (len(tails[n]), n))
    groups = [order[start : start + per_batch] for start in range(0, len(order), per_batch)]

    def work(batch: Sequence[int]) -> pd.DataFrame:
        rows = []
        for n, text in zip(batch, generate(llm, prefix, [tails[n] for n in batch], max_tokens=28), strict=True):
            values, defects = answers.attributes(text, words)
            about = {"item": items[n], "title": histories.titles[items[n]]}
            said = {"answer": text.strip(), "defects": ", ".join(defects), "tokens_written": len(llm.encode(text))}
            rows.append(about | values | said)
        return pd.DataFrame(rows)

    asked = batches.fingerprint(llm, prefix, tails, groups)
    tokens = [len(tail) for tail in tails]
    answered = batches.in_batches(path, "P3 attributes", groups, tokens, work, asked)
    columns = ["item", "title", *(name for name, _ in words.attributes), "answer", "defects"]
    return answered.reindex(columns=columns).sort_values("item", ignore_index=True)


def triples(asked: pd.DataFrame) -> np.ndarray:
    """D' - D of equation 3: agreed answers as int64 [M, 3] rows (u, i+, i-)."""
    return asked.loc[asked["agreed"], ["user", "preferred", "other"]].to_numpy(dtype=np.int64)


def augmented(task: str, data: TrainingData, made: pd.DataFrame, words) -> TrainingData:
    """D': the training data with what the LLM made for the task; `made` is what `pairs`, `insertions` or `attributes`
    gave. An item without an answer has empty attributes."""
    if task == "direct":
        return replace(data, triples=triples(made))
    if task == "sequential":
        return replace(data, insertions=made[["user", "item", "position"]].to_numpy(dtype=np.int64))
    answered = made.set_index("item").reindex(range(data.n_items))
    columns = {name: answered[name].fillna("").astype(str).to_numpy() for name, _ in words.attributes}
    return replace(data, item_features=data.item_features.assign(**columns))


def _readable(frame: pd.DataFrame, histories: Histories, *columns: str) -> pd.DataFrame:
    """With titles beside item numbers: these tables are meant to be looked at."""
    return frame.assign(**{f"{column}_title": [histories.titles[i] for i in frame[column]] for column in columns})
