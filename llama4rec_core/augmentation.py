"""Data augmentation (4.2): what the tuned LLM makes for the conventional model, each kind in a table one can read.

    P1 direct       of two random items, which would the user rather choose?   -> triples (u, i+, i-)
    P2 sequential   of k random items, which comes next?                       -> insertions (u, item, position)
    P3 rating       who directed this film, who stars in it?                   -> attribute columns

Items are drawn from outside the user's training items, never steered around validation or test items. Each function
that asks does so resumably: `path` is where the LLM's own answers are kept as they come.

Two controls make tables of the same size without an LLM, at random and by popularity: a gain that they have too is not
the LLM's.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.backbones.fit import TrainingData
from llama4rec_core.data.histories import Histories, unseen
from llama4rec_core.data.wording import Words
from llama4rec_core.llm import answers, batches, prompts
from llama4rec_core.llm.examples import CandidateList, pair_prompt
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.model import LLM, machine
from llama4rec_core.rankers import Ranker


def pairs(ranker: Ranker, users: Sequence[int], per_user: int, rng: np.random.Generator, path: Path) -> pd.DataFrame:
    """P1: ask about `per_user` random couples of each user, in both orders, after the history.

    Columns: user, preferred, other (the answer in the order asked first), margin, margin_swapped (log-odds of
    `preferred` in each order, in nats) and agreed (both are above 0). All answers are kept: which of them become
    triples can be chosen later, without the LLM (see `triples`). A user with too few items left has fewer couples.
    """
    llm, histories = ranker.llm, ranker.histories
    couples = {u: _couples(histories, u, per_user, rng) for u in users}
    users = [u for u in users if len(couples[u])]
    told, length = ranker.titles, ranker.length
    asked = [
        pair_prompt(llm, histories, told, f"pair-{u}", u, int(histories.n_train[u]), couples[u], length) for u in users
    ]
    scores = batches.score(llm, asked, path, "P1 pairs", ranker.row_tokens)
    log_p = {key: rows.sort_values("branch")["log_p"].to_numpy() for key, rows in scores.groupby("key")}
    out = []
    for u in users:
        for (a, b), (a1, b1, a2, b2) in zip(couples[u], log_p[f"pair-{u}"].reshape(-1, 4), strict=True):
            first, second = a1 - b1, a2 - b2  # how much a is preferred when it stands first, and when it stands second
            preferred, other, sign = (a, b, 1) if first > 0 else (b, a, -1)
            out.append((u, preferred, other, sign * first, sign * second, min(sign * first, sign * second) > 0))
    columns = ["user", "preferred", "other", "margin", "margin_swapped", "agreed"]
    return _readable(pd.DataFrame(out, columns=columns), histories, "preferred", "other")


def insertions(
    ranker: Ranker, users: Sequence[int], sampled: int, rng: np.random.Generator, path: Path
) -> pd.DataFrame:
    """P2: of `sampled` random items, the one the LLM ranks first goes to a random position of the sequence.

    Columns: user, item, position, among (how many items it was chosen from), advantage (over the next best). A user
    with fewer than two items left is not asked.
    """
    histories = ranker.histories
    drawn = {u: unseen(histories, u, sampled, rng) for u in users}
    users = [u for u in users if len(drawn[u]) > 1]
    places = {u: int(rng.integers(0, histories.n_train[u] + 1)) for u in users}
    lists = [CandidateList(f"next-{u}", u, int(histories.n_train[u]), drawn[u], ()) for u in users]
    found = ranker.utilities(lists, [ranker.prompt(each) for each in lists], path, "P2 insertions")
    by_key = {key: rows.set_index("item")["utility"] for key, rows in found.groupby("key")}
    out = []
    for u in users:
        utility = by_key[f"next-{u}"][drawn[u]].to_numpy()
        best, second = np.argsort(-utility, kind="stable")[:2]
        out.append((u, drawn[u][best], places[u], len(drawn[u]), utility[best] - utility[second]))
    return _readable(pd.DataFrame(out, columns=["user", "item", "position", "among", "advantage"]), histories, "item")


def attributes(
    llm: LLM, histories: Histories, items: Sequence[int], share: float, path: Path, per_batch: int
) -> pd.DataFrame:
    """P3: let the LLM write the attributes of items [M].

    A small LLM invents names, so each item is asked about twice: after the in-context examples, and after the same
    examples in reversed order. Where the answers differ, or one is given for more than `share` of the items, the
    attribute is "unknown". Columns: item, title, one per attribute, answer, answer_again (as written), defects (why an
    attribute is unknown).
    """
    words, count = histories.words, len(items)
    orders = words, replace(words, examples=words.examples[::-1])
    prefixes = [prompts.attributes_prefix(llm, each) for each in orders]
    titles = [histories.titles[i] for i in items]
    tails = [llm.encode(prompts.attributes_question(histories.titles[i], histories.years[i])) for i in items]
    order = sorted(range(count), key=lambda n: (len(tails[n]), n))
    groups = [order[start : start + per_batch] for start in range(0, count, per_batch)]
    requests = [[again * count + n for n in group] for group in groups for again in (0, 1)]  # a batch has one prefix

    def work(batch: Sequence[int]) -> pd.DataFrame:
        said = generate(llm, prefixes[batch[0] // count], [tails[request % count] for request in batch], max_tokens=28)
        written = [len(llm.encode(text)) for text in said]
        return pd.DataFrame({"request": batch, "answer": [text.strip() for text in said], "tokens_written": written})

    asked = batches.fingerprint(llm, prefixes, tails, requests)
    answered = batches.in_batches(
        path, "P3 attributes", requests, [len(tail) for tail in tails * 2], work, asked, machine(llm)
    )
    said = answered.sort_values("request")["answer"].tolist() if count else []
    table, defects = {"item": items, "title": titles}, [[] for _ in range(count)]
    for name, _ in words.attributes:
        found = [answers.attributes(text, words)[name] for text in said]
        table[name], whys = answers.consistent(found[:count], found[count:], share)
        for n, why in enumerate(whys):
            defects[n] += [f"{name} {why}"] if why else []
    table |= {"answer": said[:count], "answer_again": said[count:], "defects": [", ".join(each) for each in defects]}
    return pd.DataFrame(table).sort_values("item", ignore_index=True)


def triples(asked: pd.DataFrame, margin: float = 0.0) -> np.ndarray:
    """D' - D of equation 3, int64 [M, 3] rows (u, i+, i-): answers that agree, by at least `margin` nats in the less
    certain of both orders."""
    sure = asked[["margin", "margin_swapped"]].min(axis=1) >= margin
    return asked.loc[asked["agreed"] & sure, ["user", "preferred", "other"]].to_numpy(dtype=np.int64)


def augmented(task: str, data: TrainingData, made: pd.DataFrame, words: Words, margin: float = 0.0) -> TrainingData:
    """D': the training data with what was made for the task.

    made: what `pairs`, `insertions` or `attributes` gave, or a control of it; margin: see `triples`. An attribute that
    is unknown, and those of an item that was not asked about, are empty.
    """
    if task == "direct":
        return replace(data, triples=triples(made, margin))
    if task == "sequential":
        return replace(data, insertions=made[["user", "item", "position"]].to_numpy(dtype=np.int64))
    answered = made.set_index("item").reindex(range(data.n_items))
    known = {name: answered[name].fillna("").astype(str).replace(answers.UNKNOWN, "") for name, _ in words.attributes}
    columns = {name: values.to_numpy() for name, values in known.items()}
    return replace(data, item_features=data.item_features.assign(**columns))


def random_control(made: pd.DataFrame, kind: str, histories: Histories, rng: np.random.Generator) -> pd.DataFrame:
    """As much as the LLM made, at random: a table like `made` with as many rows of the same users.

    pairs: other couples of un-interacted items. `agreed` and the margins stay, so that at every margin there are as
    many triples as the LLM's. insertions: at the same positions, other un-interacted items. attributes: the same
    values, dealt anew among the items asked about.
    """
    if kind == "pairs":
        couples = [_couples(histories, u, count, rng) for u, count in made.groupby("user").size().items()]
        made = made.sort_values("user", kind="stable", ignore_index=True)
        drawn = np.concatenate([np.zeros((0, 2), dtype=np.int64), *couples])
        return _readable(made.assign(preferred=drawn[:, 0], other=drawn[:, 1]), histories, "preferred", "other")
    if kind == "insertions":
        drawn = [unseen(histories, u, 1, rng)[0] for u in made["user"]]
        return _readable(made.assign(item=drawn).drop(columns="advantage"), histories, "item")
    names = [name for name, _ in histories.words.attributes]
    dealt = made[names].iloc[rng.permutation(len(made))].reset_index(drop=True)
    return made[["item", "title"]].join(dealt)


def popularity_placebo(made: pd.DataFrame, kind: str, histories: Histories, rng: np.random.Generator) -> pd.DataFrame:
    """What an LLM that knows nothing but popularity would have made: a table like `made`, of the same users.

    pairs: of the same couples the more popular is preferred (a tie: at random); `agreed` and the margins stay.
    insertions: at the same positions, the most popular of as many random un-interacted items as the LLM chose from.
    Raises ValueError for attributes, which have no popularity, and for another kind.
    """
    popular = training_popularity(histories) + rng.random(len(histories.titles))  # a fraction settles ties
    if kind == "pairs":
        couples = made[["preferred", "other"]].to_numpy(dtype=np.int64)
        best_last = np.take_along_axis(couples, popular[couples].argsort(axis=1), axis=1)
        return _readable(made.assign(preferred=best_last[:, 1], other=best_last[:, 0]), histories, "preferred", "other")
    if kind == "insertions":
        drawn = [unseen(histories, u, among, rng) for u, among in zip(made["user"], made["among"], strict=True)]
        best = [items[popular[items].argmax()] for items in drawn]
        return _readable(made.assign(item=best).drop(columns="advantage"), histories, "item")
    raise ValueError(f"there is no popularity placebo of {kind!r}: pairs and insertions have one")


def training_popularity(histories: Histories) -> np.ndarray:
    """int64 [I]: how many training interactions each item has."""
    train = [histories.history(user, n, n) for user, n in enumerate(histories.n_train)]
    return np.bincount(np.concatenate(train), minlength=len(histories.titles))


def _couples(histories: Histories, user: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [at most count, 2]: couples of different items without a training interaction of the user."""
    drawn = unseen(histories, user, 2 * count, rng)
    return drawn[: len(drawn) // 2 * 2].reshape(-1, 2)


def _readable(frame: pd.DataFrame, histories: Histories, *columns: str) -> pd.DataFrame:
    """With titles beside item numbers: these tables are meant to be looked at."""
    return frame.assign(**{f"{column}_title": [histories.titles[i] for i in frame[column]] for column in columns})
