"""Training examples (4.5): the prompts that are asked, with their right answers.

One builder for each kind serves asking and tuning alike. The targets are the window's items (each user's last training
interactions) or, for next-k targets, which need no backbone, all training interactions; users held out for choosing
give no examples.

    direct, sequential   the out-of-fold backbone's real top k'; a list without the target is dropped, not patched
    next                 the next k items of a user's training sequence, given the history before them
    pair                 P1: a window item against a random one, asked in both orders
    rating               the window items' ratings
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llama4rec_core.data.histories import Histories, popularity, unseen
from llama4rec_core.llm import prompts
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Prompt
from llama4rec_core.presets import InstructionSettings, ShareSettings

KINDS = tuple(field.name for field in dataclasses.fields(ShareSettings))


@dataclass(frozen=True)
class ChoiceSet:
    """Alternatives and the index of the right one: among a prompt's branches by their answers, among branches that each
    have two choices (yes, no), or among one branch's choices.

    prior: what is subtracted from each alternative's log-likelihood before they are compared, as in ranking.
    """

    branches: tuple[int, ...]
    right: int
    prior: tuple[float, ...] = ()


@dataclass(frozen=True)
class Example:
    """A prompt, its choice sets, and the right answer to each."""

    prompt: Prompt
    choice_sets: tuple[ChoiceSet, ...]


@dataclass(frozen=True)
class CandidateList:
    """One list to be ranked: the cases it serves share user, history and candidates."""

    key: str
    user: int
    prefix: int
    candidates: np.ndarray  # int64 [C], in the backbone's order
    targets: tuple[int, ...]  # the cases' target items


# -- top-k lists -------------------------------------------------------------------------------------------------------


def candidate_lists(cases: pd.DataFrame, candidates: np.ndarray) -> list[CandidateList]:
    """Group cases (rows) with their candidates [n, C] by part, user and history."""
    out: dict[str, CandidateList] = {}
    for row, items in zip(cases.itertuples(index=False), candidates, strict=True):
        key = f"{row.part}-{row.user}-{row.prefix}"
        before = out[key].targets if key in out else ()
        out[key] = CandidateList(key, int(row.user), int(row.prefix), items, (*before, int(row.item)))
    return list(out.values())


def with_target(lists: Sequence[CandidateList]) -> list[CandidateList]:
    """Lists that hold a target: for the others no order of the candidates can change a top-k metric."""
    return [each for each in lists if set(each.targets) & set(each.candidates.tolist())]


def next_k_lists(
    histories: Histories, users: Sequence[int], k: int, others: int, rng: np.random.Generator
) -> list[CandidateList]:
    """Each user's training sequence in blocks of k items, counted from its end: the block's items are the targets, the
    history before it is told, and `others` more candidates are drawn.

    The others are drawn by popularity, as the lists of a backbone hold popular items: that an item is popular is then
    no answer.
    """
    out, weight = [], popularity(histories)
    for user in users:
        begin = histories.begin[user]
        for end in range(histories.n_train[user], 1, -k):
            prefix = max(1, end - k)  # the first block is what is left, after one item at least
            block = histories.items[begin + prefix : begin + end]
            targets = np.array(list(dict.fromkeys(block.tolist())), dtype=np.int64)  # in their order, each once
            more = unseen(histories, user, others, rng, weight) if others else targets[:0]
            items = np.concatenate([targets, more])
            out.append(CandidateList(f"next-{user}-{prefix}", int(user), int(prefix), items, tuple(targets.tolist())))
    return out


# -- preference pairs (P1) ---------------------------------------------------------------------------------------------


def pair_prompt(
    llm: LLM, histories: Histories, key: str, user: int, prefix: int, couples: np.ndarray, length: int
) -> Prompt:
    """P1: couples [M, 2] of items, each asked in both orders (four branches a couple)."""
    titles = [(histories.titles[a], histories.titles[b]) for a, b in couples]
    return prompts.pairs(llm, key, histories.titles_of(user, prefix, length), titles, histories.words)


def pair_examples(
    llm: LLM, histories: Histories, cases: pd.DataFrame, length: int, rng: np.random.Generator
) -> list[Example]:
    """Of a window item and a random one, the window item is the answer, whichever stands first."""
    out = []
    for row in cases.itertuples(index=False):
        (other,) = unseen(histories, row.user, 1, rng)
        couple = np.array([[row.item, other]])
        prompt = pair_prompt(llm, histories, f"pair-{row.user}-{row.item}", row.user, row.prefix, couple, length)
        out.append(Example(prompt, (ChoiceSet((0, 1), 0), ChoiceSet((2, 3), 0))))
    return out


# -- ratings -----------------------------------------------------------------------------------------------------------


def rating_groups(cases: pd.DataFrame, ratings: np.ndarray) -> list[tuple[str, pd.DataFrame]]:
    """Cases that share user and history, each with the backbone's `predicted` rating [n]: (key, rows)."""
    return [
        (f"rating-{user}-{prefix}", rows)
        for (user, prefix), rows in cases.assign(predicted=ratings).groupby(["user", "prefix"], sort=True)
    ]


def rating_prompt(
    llm: LLM, histories: Histories, key: str, rows: pd.DataFrame, length: int, hints: Hints | None
) -> Prompt:
    """A group's items, each in a branch of its own; with hints, the similar user's ratings and the predicted ones."""
    user, prefix = int(rows["user"].iloc[0]), int(rows["prefix"].iloc[0])
    return prompts.rating(
        llm,
        key,
        histories.rated_titles(user, prefix, length),
        [histories.titles[item] for item in rows["item"]],
        histories.scale,
        histories.words,
        hints.rating(histories, user) if hints else None,
        rows["predicted"].to_numpy() if hints else None,
    )


def rating_examples(
    llm: LLM, histories: Histories, groups: Sequence[tuple[str, pd.DataFrame]], length: int, hints: Hints | None
) -> list[Example]:
    """A choice set for each item: which of the scale's ratings the user gave."""
    out = []
    for key, rows in groups:
        right = [histories.scale.index(histories.rating_text(value)) for value in rows["rating"]]
        sets = tuple(ChoiceSet((b,), r) for b, r in enumerate(right))
        out.append(Example(rating_prompt(llm, histories, key, rows, length, hints), sets))
    return out


# -- all kinds together ------------------------------------------------------------------------------------------------


def by_kind(
    ranker,
    out_of_fold: Mapping[str, tuple],
    windows: pd.DataFrame,
    held_out: np.ndarray,
    settings: InstructionSettings,
    rated_history: int,
    rng: np.random.Generator,
) -> dict[str, list[Example]]:
    """All that the LLM could be tuned on, by kind.

    ranker: a `rankers.Ranker`. out_of_fold: for each task the out-of-fold backbone's `Predictions` of window cases, and
    `Hints` or None. windows: the window cases with their true prefix. held_out: bool [U], users who give no examples.
    """
    llm, histories = ranker.llm, ranker.histories
    out: dict[str, list[Example]] = {}
    for task, (predictions, hints) in out_of_fold.items():
        known = predictions.only(~held_out[predictions.cases["user"].to_numpy()])
        if task == "rating":
            groups = rating_groups(known.cases, known.ratings)
            out[task] = rating_examples(llm, histories, groups, rated_history, hints)
        else:
            examples = (ranker.example(each, hints) for each in with_target(candidate_lists(known.cases, known.items)))
            out[task] = [_named(task, each) for each in examples]
    # the softmax over the vocabulary holds all titles; other ways of ranking need alternatives to one next item
    k, others = (settings.targets, 0) if ranker.way == "likelihood" else (1, settings.others)
    following = next_k_lists(histories, np.flatnonzero(~held_out), k, others, rng)
    following = [following[i] for i in rng.permutation(len(following))[: settings.next]]
    out["next"] = [ranker.example(each) for each in with_target(following)]
    cases = windows[~held_out[windows["user"].to_numpy()]]
    cases = cases.iloc[np.sort(rng.permutation(len(cases))[: settings.pairs])]
    out["pair"] = pair_examples(llm, histories, cases, ranker.length, rng)
    return out


def _named(task: str, each: Example) -> Example:
    """A list's key does not say for which task it was made; an example's does."""
    return dataclasses.replace(each, prompt=dataclasses.replace(each.prompt, key=f"{task}-{each.prompt.key}"))


def mix(
    kinds: Mapping[str, Sequence[Example]], shares: Mapping[str, float], tokens: int, rng: np.random.Generator
) -> list[Example]:
    """About `tokens` tokens of examples, divided among the kinds as `shares` says while each lasts; repeated prompts
    are dropped, and a kind without a share is left out."""
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


def same_with_hints(chosen: Sequence[Example], hinted: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The chosen examples in the same order, each as it is among the hinted ones: what LLM'' is tuned on."""
    by_key = {example.prompt.key: example for examples in hinted.values() for example in examples}
    return [by_key[example.prompt.key] for example in chosen]
