"""Pointwise yes/no: a question at the end of each candidate, ranked by log p(yes) - log p(no).

No list is shown, so no order can matter.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.rankers.likelihood import example  # noqa: F401  the same choice sets, answered by yes or no

CHOOSE = "{title}\nWould this {user} choose it next?"
YES, NO = " yes", " no"


def prompt(ranker, each: CandidateList, hint: prompts.Hint | None) -> Prompt:
    """A branch per candidate, whose two choices are yes and no."""
    llm, words = ranker.llm, ranker.histories.words
    shared, choices = llm.choices([YES, NO])
    asked = [llm.encode(prompts.say(CHOOSE, words, title=title)) + shared for title in ranker.named(each)]
    text = prompts.with_history(llm, words, ranker.titles, ranker.history(each), hint)
    return text.prompt(each.key, [Branch(tokens, choices=choices) for tokens in asked])


def utilities(ranker, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
    """log p(yes) - log p(no) of every candidate: columns key, candidate, utility."""
    scores = batches.score(ranker.llm, asked, path, what, ranker.row_tokens)
    signed = scores.assign(utility=scores["log_p"].where(scores["choice"] == 0, -scores["log_p"]))
    summed = signed.groupby(["key", "branch"], sort=False)["utility"].sum().reset_index()
    return summed.rename(columns={"branch": "candidate"})
