"""Sequence likelihood: each candidate's title is a branch, ranked by log p(title | prompt).

The history stands last, so a title is asked for just where the history goes on. No list is shown, so no order can
matter, and nothing can fail to parse. How much of a title counts is said by `llm/titles.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList, ChoiceSet, Example
from llama4rec_core.llm.tree import Prompt


def prompt(ranker, each: CandidateList, hint: prompts.Hint | None) -> Prompt:
    """A branch per candidate, its title as the answer."""
    text = prompts.with_history(ranker.llm, ranker.histories.words, ranker.titles, ranker.history(each), hint)
    return text.prompt(each.key, [ranker.titles.answers[item] for item in each.candidates])


def example(ranker, each: CandidateList, asked: Prompt, right: Sequence[int]) -> Example:
    """Each right answer is a choice set of its own, without the other right ones."""
    wrong = [c for c in range(len(each.candidates)) if c not in right]
    return Example(asked, tuple(ChoiceSet((r, *wrong), 0) for r in right))


def utilities(ranker, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
    """log p of every candidate's title: columns key, candidate, utility."""
    scores = batches.score(ranker.llm, asked, path, what, ranker.row_tokens)
    return scores.rename(columns={"branch": "candidate", "log_p": "utility"})[["key", "candidate", "utility"]]
