"""Sequence likelihood: each candidate's title is a branch, ranked by log p(title | prompt).

No list is shown, so no order can matter, and nothing can fail to parse. Of a title only as many tokens are read as
tell it from all others (`told_apart`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.data.wording import Words
from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Prompt

NEXT = "This {user} {chooses} next:\n"


def prompt(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: prompts.Hint | None
) -> Prompt:
    """A branch per candidate, its title as the answer."""
    text = prompts.with_history(llm, words, history, hint).add(NEXT)
    return text.prompt(key, [prompts.title_branch(llm, title) for title in candidates])


def example(llm: LLM, asked: Prompt, candidates: Sequence[str], right: Sequence[int], prior: np.ndarray) -> Example:
    """Each right answer is a choice set of its own, without the other right ones; prior [C] as in ranking."""
    wrong = [c for c in range(len(candidates)) if c not in right]
    return Example(asked, tuple(ChoiceSet((r, *wrong), 0, tuple(prior[[r, *wrong]])) for r in right))


def utilities(
    llm: LLM, asked: Sequence[Prompt], titles: Mapping[str, Sequence[str]], path: Path, what: str, row_tokens: int
) -> pd.DataFrame:
    """log p of every candidate's title: columns key, candidate, utility."""
    scores = batches.score(llm, asked, path, what, row_tokens)
    return scores.rename(columns={"branch": "candidate", "log_p": "utility"})[["key", "candidate", "utility"]]


def told_apart(llm: LLM, titles: Sequence[str], further: int) -> np.ndarray:
    """How many of each title's first tokens are scored, int64 [I]: those up to the one that no other title shares, and
    `further` ones; all where there are no more, or where two titles are the same.

    What follows hardly says more about which item is meant. The same in every list, so that a candidate's score does
    not depend on its company.
    """
    tokens = [prompts.title_branch(llm, title).tokens for title in titles]
    shared = Counter(each[:n] for each in tokens for n in range(1, len(each) + 1))
    alone = [next((n for n in range(1, len(each)) if shared[each[:n]] == 1), len(each)) for each in tokens]
    return np.array([min(n + further, len(each)) for n, each in zip(alone, tokens, strict=True)], dtype=np.int64)


def cut(asked: Prompt, lengths: Sequence[int]) -> Prompt:
    """The prompt with each candidate's title read only so far."""
    branches = (branch.cut(int(n)) for branch, n in zip(asked.branches, lengths, strict=True))
    return dataclasses.replace(asked, branches=tuple(branches))
