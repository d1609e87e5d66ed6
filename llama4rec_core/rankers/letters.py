"""Letter choice: the candidates stand under letters, ranked by log p(letter).

The order in which they are shown is drawn from the prompt's key.
"""

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList, ChoiceSet, Example
from llama4rec_core.llm.tree import Branch, Prompt

LABELLED = "{letter}. {title}"
LABEL = "The one this {user} {chooses} next:"


def prompt(ranker, each: CandidateList, hint: prompts.Hint | None) -> Prompt:
    """One branch, whose choices are the shown letters. Raises ValueError for more than 26 candidates."""
    candidates, llm, words = ranker.named(each), ranker.llm, ranker.histories.words
    if len(candidates) > len(string.ascii_uppercase):
        raise ValueError(f"{len(candidates)} candidates are more than there are letters: rank them in another mode")
    order, letters = prompts.shown_order(each.key, len(candidates)), string.ascii_uppercase[: len(candidates)]
    lines = [LABELLED.format(letter=x, title=candidates[c]) for x, c in zip(letters, order, strict=True)]
    text = prompts.with_history(llm, words, ranker.titles, ranker.history(each), hint)
    shared, choices = llm.choices([f" {letter}" for letter in letters])
    return text.add(prompts.CANDIDATES, lines).add(LABEL).prompt(each.key, [Branch(shared, choices=choices)])


def example(ranker, each: CandidateList, asked: Prompt, right: Sequence[int]) -> Example:
    """One choice set; a letter can be only the first right answer's."""
    order = prompts.shown_order(each.key, len(each.candidates))
    return Example(asked, (ChoiceSet((0,), int(np.flatnonzero(order == right[0])[0])),))


def utilities(ranker, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
    """log p of every candidate's letter: columns key, candidate, utility."""
    scores = batches.score(ranker.llm, asked, path, what, ranker.row_tokens)
    shown = {each.key: prompts.shown_order(each.key, len(each.candidates)) for each in lists}
    found = [shown[key][letter] for key, letter in zip(scores["key"], scores["choice"], strict=True)]
    named = scores.assign(candidate=np.array(found, dtype=np.int64)).rename(columns={"log_p": "utility"})
    return named[["key", "candidate", "utility"]]
