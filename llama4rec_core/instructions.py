"""Instruction data (4.5): the prompts that are asked, and those the LLM is tuned on with their answers.

One builder per kind, used for both: a tuning example is the prompt plus the index of the right alternative. Tuning
targets are the window items (each user's last training interactions) or, for P2, which needs no backbone, all training
interactions, of the users that are not held out for choosing.

    ranking   the hint backbone's real top-k'; lists without the target are dropped, not patched
    next      P2: each item of a block of a user's training sequence, after what came before the block
    pair      P1: a window item against a random one, asked in both orders
    rating    the window items' ratings

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llama4rec_core.augmentation.prompt import HintSource, Sequences
from llama4rec_core.llm import prompts, ranking
from llama4rec_core.llm.engine import Prompt
from llama4rec_core.llm.lessons import Example, Question
from llama4rec_core.llm.weights import LLM

KINDS = ("direct", "sequential", "next", "rating", "pair")


@dataclass(frozen=True)
class List:
    """One list to be ranked: the cases it serves share user, history and candidates."""

    key: str
    user: int
    prefix: int
    candidates: np.ndarray  # int64 [C], in the backbone's order
    targets: tuple[int, ...]  # the cases' target items


def lists(cases: pd.DataFrame, candidates: np.ndarray) -> list[List]:
    """Group cases (rows) with their candidates [n, C] by part, user and history."""
    out: dict[str, List] = {}
    for row, items in zip(cases.itertuples(index=False), candidates, strict=True):
        key = f"{row.part}-{row.user}-{row.prefix}"
        before = out[key].targets if key in out else ()
        out[key] = List(key, int(row.user), int(row.prefix), items, (*before, int(row.item)))
    return list(out.values())


def with_target(asked: Sequence[List]) -> list[List]:
    """Lists that hold a target: for the others no order of the candidates can change a top-k metric (the short cut)."""
    return [each for each in asked if set(each.targets) & set(each.candidates.tolist())]


def ranking_prompt(
    llm: LLM,
    told: Sequences,
    each: List,
    length: int,
    hints: HintSource | None,
    mode: str = "likelihood",
    title_tokens: np.ndarray | None = None,
) -> Prompt:
    """What the LLM is asked about one list; title_tokens [I]: how far each title is read (None: to its end)."""
    asked = ranking.prompt(
        mode,
        llm,
        each.key,
        told.watched(each.user, each.prefix, length),
        titles(told, each),
        told.words,
        hints.ranking(told, each.user, each.candidates) if hints else None,
    )
    return asked if title_tokens is None else ranking.cut(asked, title_tokens[each.candidates])


def titles(told: Sequences, each: List) -> list[str]:
    return [told.titles[item] for item in each.candidates]


def ranking_examples(
    llm: LLM,
    told: Sequences,
    asked: Sequence[List],
    length: int,
    hints: HintSource | None,
    prior: np.ndarray,
    mode: str = "likelihood",
    title_tokens: np.ndarray | None = None,
) -> list[Example]:
    """Lists that hold a target, each with its right answer (`ranking.lesson`); the others are dropped.

    prior [I]: what ranking subtracts from each title's log-likelihood; tuning subtracts the same. title_tokens [I]: as
    in `ranking_prompt`.
    """
    return [
        ranking.lesson(
            mode,
            llm,
            ranking_prompt(llm, told, each, length, hints, mode, title_tokens),
            titles(told, each),
            [c for c, item in enumerate(each.candidates) if item in each.targets],
            prior[each.candidates],
        )
        for each in with_target(asked)
    ]


def unseen(
    told: Sequences, user: int, n_items: int, count: int, rng: np.random.Generator, weight: np.ndarray | None = None
) -> np.ndarray:
    """`count` different items the user has no training interaction with, drawn evenly or by `weight` [I]. Never steered
    around validation or test items."""
    seen = told.items[told.begin[user] : told.begin[user] + told.n_train[user]]
    free = np.setdiff1d(np.arange(n_items), seen, assume_unique=False)
    share = None if weight is None else weight[free] / weight[free].sum()
    return rng.choice(free, size=min(count, len(free)), replace=False, p=share)


def popularity(told: Sequences) -> np.ndarray:
    """How often each item was chosen before the windows, and once more, so that every item can be drawn; int64 [I]."""
    kept = [told.items[begin : begin + n] for begin, n in zip(told.begin, told.n_kept, strict=False)]
    return 1 + np.bincount(np.concatenate(kept), minlength=len(told.titles))


def next_lists(told: Sequences, users: Sequence[int], ahead: int, others: int, rng: np.random.Generator) -> list[List]:
    """P2 as lists to be ranked: each user's training sequence in blocks of `ahead` items, counted from its end. A
    block's items, of which each is a right answer, and `others` more, after the history before the block.

    The others are drawn by popularity, as the lists of a backbone hold popular items: that an item is popular is then
    no answer.
    """
    out, weight = [], popularity(told)
    for user in users:
        for end in range(told.n_train[user], 1, -ahead):
            prefix = max(1, end - ahead)  # the first block is what is left, after one item at least
            block = told.items[told.begin[user] + prefix : told.begin[user] + end]
            targets = np.array(list(dict.fromkeys(block.tolist())), dtype=np.int64)  # in their order, each once
            more = unseen(told, user, len(told.titles), others, rng, weight) if others else targets[:0]
            items = np.concatenate([targets, more])
            out.append(List(f"next-{user}-{prefix}", int(user), int(prefix), items, tuple(targets.tolist())))
    return out


def pair_prompt(
    llm: LLM, told: Sequences, key: str, user: int, prefix: int, couples: np.ndarray, length: int
) -> Prompt:
    """P1: couples [M, 2] of items, each asked in both orders (four branches a couple)."""
    titles = [(told.titles[a], told.titles[b]) for a, b in couples]
    return prompts.pairs(llm, key, told.watched(user, prefix, length), titles, told.words)


def pair_examples(
    llm: LLM, told: Sequences, cases: pd.DataFrame, length: int, rng: np.random.Generator
) -> list[Example]:
    """P1 as a lesson: of a window item and a random one, the window item is the answer, whichever stands first."""
    out = []
    for row in cases.itertuples(index=False):
        (other,) = unseen(told, row.user, len(told.titles), 1, rng)
        prompt = pair_prompt(
            llm, told, f"pair-{row.user}-{row.item}", row.user, row.prefix, np.array([[row.item, other]]), length
        )
        out.append(Example(prompt, (Question((0, 1), 0), Question((2, 3), 0))))
    return out


def rating_prompt(
    llm: LLM,
    told: Sequences,
    key: str,
    user: int,
    prefix: int,
    items: np.ndarray,
    length: int,
    hints: HintSource | None,
    predicted: np.ndarray | None,
) -> Prompt:
    """Items [M] of one user whose ratings are asked for, each in a branch of its own; `predicted` [M] are the
    backbone's."""
    return prompts.rating(
        llm,
        key,
        told.rated(user, prefix, length),
        [told.titles[item] for item in items],
        told.scale,
        told.words,
        hints.rating(told, user) if hints else None,
        predicted if hints else None,
    )


def rating_groups(cases: pd.DataFrame) -> list[tuple[str, int, int, pd.DataFrame]]:
    """Cases that share user and history: (key, user, prefix, rows)."""
    return [
        (f"rating-{user}-{prefix}", user, prefix, rows)
        for (user, prefix), rows in cases.groupby(["user", "prefix"], sort=True)
    ]


def rating_examples(
    llm: LLM, told: Sequences, cases: pd.DataFrame, length: int, hints: HintSource | None
) -> list[Example]:
    """`cases` carry the backbone's `predicted` rating beside the true one."""
    out = []
    for key, user, prefix, rows in rating_groups(cases):
        items, predicted = rows["item"].to_numpy(), rows["predicted"].to_numpy()
        prompt = rating_prompt(llm, told, key, user, prefix, items, length, hints, predicted)
        right = [told.scale.index(told.rating_text(value)) for value in rows["rating"]]
        out.append(Example(prompt, tuple(Question((b,), r) for b, r in enumerate(right))))
    return out


def mix(
    kinds: dict[str, list[Example]], shares: dict[str, float], tokens: int, rng: np.random.Generator
) -> list[Example]:
    """About `tokens` tokens of examples, divided among the kinds as `shares` says while each lasts; repeated prompts
    are dropped, and a kind without a share is left out. Raises ValueError where a share names no kind."""
    if unknown := set(shares) - set(KINDS):
        raise ValueError(f"instructions.shares has an unknown kind {min(unknown)!r}: the kinds are {', '.join(KINDS)}")
    queues = {
        kind: [examples[i] for i in rng.permutation(len(examples))]
        for kind, examples in kinds.items()
        if shares.get(kind)
    }
    spent = dict.fromkeys(queues, 0)
    chosen: list[Example] = []
    asked: set[tuple] = set()
    while sum(spent.values()) < tokens and any(queues.values()):
        kind = min((kind for kind in queues if queues[kind]), key=lambda kind: spent[kind] / shares[kind])
        example = queues[kind].pop()
        content = (example.prompt.prefix, tuple(branch.tokens for branch in example.prompt.branches))
        if content in asked:
            continue
        asked.add(content)
        spent[kind] += len(example.prompt)
        chosen.append(example)
    return chosen
