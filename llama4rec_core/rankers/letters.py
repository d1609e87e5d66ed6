"""Letter choice: the candidates stand under letters, ranked by log p(letter).

The order in which they are shown is drawn from the prompt's key.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.data.wording import Words
from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Branch, Prompt

LABELLED = "{letter}. {title}"
LABEL = "The one this {user} {chooses} next:"


def prompt(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: prompts.Hint | None
) -> Prompt:
    """One branch, whose choices are the candidates' letters (choice c is candidate c's). Raises ValueError for more
    than 26 candidates."""
    if len(candidates) > len(string.ascii_uppercase):
        raise ValueError(f"{len(candidates)} candidates are more than there are letters: rank them in another mode")
    order, letters = prompts.shown_order(key, len(candidates)), string.ascii_uppercase[: len(candidates)]
    lines = [LABELLED.format(letter=x, title=candidates[c]) for x, c in zip(letters, order, strict=True)]
    text = prompts.with_history(llm, words, history, hint).add(prompts.CANDIDATES, lines).add(LABEL)
    shared, tokens = llm.choices([f" {letter}" for letter in letters])
    return text.prompt(key, [Branch(shared, choices=tuple(tokens[place] for place in np.argsort(order)))])


def example(llm: LLM, asked: Prompt, candidates: Sequence[str], right: Sequence[int], prior: np.ndarray) -> Example:
    """One choice set; a letter can be only the first right answer's."""
    return Example(asked, (ChoiceSet((0,), right[0]),))


def utilities(
    llm: LLM, asked: Sequence[Prompt], titles: Mapping[str, Sequence[str]], path: Path, what: str, row_tokens: int
) -> pd.DataFrame:
    """log p of every candidate's letter: columns key, candidate, utility."""
    scores = batches.score(llm, asked, path, what, row_tokens)
    return scores.rename(columns={"choice": "candidate", "log_p": "utility"})[["key", "candidate", "utility"]]
