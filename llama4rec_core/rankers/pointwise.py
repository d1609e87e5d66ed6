"""Pointwise rating: each candidate is rated as in rating prediction, and the best rated come first (the paper's other
way). No list is shown, so no order can matter.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList, Example
from llama4rec_core.llm.tree import Prompt


def prompt(ranker, each: CandidateList, hint: prompts.Hint | None) -> Prompt:
    """For each candidate the branches of the scale's ratings. A list's hint has no ratings and is not told."""
    rated, items, histories = ranker.rated(each), each.candidates.tolist(), ranker.histories
    return prompts.rating(ranker.llm, each.key, ranker.titles, rated, items, histories.scale, histories.words)


def example(ranker, each: CandidateList, asked: Prompt, right: Sequence[int]) -> Example | None:
    """None: what is learnt are ratings, and they have examples of their own."""
    return None


def utilities(ranker, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
    """The expected rating of every candidate: columns key, candidate, utility."""
    scores = batches.score(ranker.llm, asked, path, what, ranker.row_tokens)
    scale, values, found = prompts.Scale.of(ranker.llm, ranker.histories.scale), ranker.histories.values, []
    for key, rows in scores.sort_values(["branch", "choice"]).groupby("key"):
        expected = np.exp(scale.log_p(rows["log_p"].to_numpy())) @ values
        found.append(pd.DataFrame({"key": key, "candidate": range(len(expected)), "utility": expected}))
    return pd.concat(found) if found else pd.DataFrame({"key": [], "candidate": [], "utility": []})
