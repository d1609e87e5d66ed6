"""Four ways to let an LLM rank the C candidates of a list: the same question in, a utility for each candidate out.

    likelihood   log p(title | prompt), from which the caller subtracts the title's prior; of a title only as many
                 tokens as tell it from all others (`told_apart`)
    relevance    log p(yes) - log p(no) at the end of each candidate
    labels       log p(letter) of the letter that stands before the candidate
    list         the LLM writes the titles, best first (the paper's way): minus the position

The first two show no list, so no order can matter; the other two show the candidates in an order drawn from the key.
In that order what a written list leaves out follows it, and the wrong titles of a lesson's list follow the right one.
Each way is a prompt (`prompts.py`), a lesson with the right answer, and a reading of what the LLM gave.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.llm import answers, prompts, recording
from llama4rec_core.llm.engine import Branch, Prompt
from llama4rec_core.llm.lessons import Example, Question
from llama4rec_core.llm.prompts import Hint, Words
from llama4rec_core.llm.weights import LLM

MODES = {
    "likelihood": prompts.ranking,
    "relevance": prompts.relevance,
    "labels": prompts.labels,
    "list": prompts.listing,
}


def prompt(
    mode: str, llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: Hint | None
) -> Prompt:
    """What is asked about C candidates; raises ValueError for an unknown mode."""
    if mode not in MODES:
        raise ValueError(f"ranking.mode {mode!r} is unknown: the known ones are {', '.join(MODES)}")
    return MODES[mode](llm, key, history, candidates, words, hint)


def told_apart(llm: LLM, titles: Sequence[str], further: int) -> np.ndarray:
    """How many of each title's first tokens are scored, int64 [I]: those up to the one that no other title shares, and
    `further` ones; all where there are no more, or where two titles are the same.

    What follows hardly says more about which item is meant, and need not be read. The same in every list, so that a
    candidate's score does not depend on its company.
    """
    tokens = [prompts.title_branch(llm, title).tokens for title in titles]
    shared = Counter(each[:n] for each in tokens for n in range(1, len(each) + 1))
    alone = [next((n for n in range(1, len(each)) if shared[each[:n]] == 1), len(each)) for each in tokens]
    return np.array([min(n + further, len(each)) for n, each in zip(alone, tokens, strict=True)], dtype=np.int64)


def cut(asked: Prompt, lengths: Sequence[int]) -> Prompt:
    """A likelihood prompt of which each candidate's title is read only so far."""
    branches = (branch.cut(int(n)) for branch, n in zip(asked.branches, lengths, strict=True))
    return dataclasses.replace(asked, branches=tuple(branches))


def lesson(
    mode: str, llm: LLM, asked: Prompt, candidates: Sequence[str], right: Sequence[int], prior: np.ndarray
) -> Example:
    """The prompt with its right answer. right: the indices of the targets; prior [C]: what ranking subtracts.

    Where a list holds several targets each is asked for without the others (likelihood, relevance); a letter can be
    only the first one's; a written list begins with all of them and goes on in the order shown.
    """
    wrong = [c for c in range(len(candidates)) if c not in right]
    if mode == "list":
        wrong = [c for c in prompts.drawn_order(asked.key, len(candidates)) if c not in right]
        written = llm.encode("".join(candidates[c] + "\n" for c in [*right, *wrong]))
        return Example(dataclasses.replace(asked, branches=(Branch(written, len(written)),)), (Question((0,), 0),))
    if mode == "labels":
        return Example(asked, (Question((0,), right[0]),))
    return Example(asked, tuple(Question((r, *wrong), 0, tuple(prior[[r, *wrong]])) for r in right))


def utilities(
    mode: str,
    llm: LLM,
    asked: Sequence[Prompt],
    candidates: dict[str, Sequence[str]],
    path: Path,
    what: str,
    row_tokens: int,
) -> pd.DataFrame:
    """Ask, resumably, and read the answers: one row for each prompt and candidate, columns key, candidate, utility.

    candidates: the titles of each key's list, which a written answer is read against. What the LLM gave is left in
    `path`, its cost (and, for written lists, how many defects of each kind) in the .json beside it.
    """
    if mode == "list":
        longest = max((len(llm.encode("\n".join(titles))) for titles in candidates.values()), default=0)
        lines = max(map(len, candidates.values()), default=0)
        said = recording.write(llm, asked, path, what, max_tokens=longest + 2 * lines, lines=lines)
        out = []
        for key, text in zip(said["key"], said["text"], strict=True):
            # read against the list as it was shown: what was not written must not follow in the backbone's order
            shown = prompts.drawn_order(key, len(candidates[key]))
            order, _ = answers.ranking(text, [candidates[key][c] for c in shown])
            out += [(key, shown[at], -float(place)) for place, at in enumerate(order, start=1)]
        return pd.DataFrame(out, columns=["key", "candidate", "utility"])
    scores = recording.score(llm, asked, path, what, row_tokens)
    if mode == "labels":
        return scores.rename(columns={"choice": "candidate", "log_p": "utility"})[["key", "candidate", "utility"]]
    if mode == "relevance":  # choice 0 is yes, 1 is no
        signed = scores.assign(utility=scores["log_p"].where(scores["choice"] == 0, -scores["log_p"]))
        summed = signed.groupby(["key", "branch"], sort=False)["utility"].sum().reset_index()
        return summed.rename(columns={"branch": "candidate"})
    return scores.rename(columns={"branch": "candidate", "log_p": "utility"})[["key", "candidate", "utility"]]
