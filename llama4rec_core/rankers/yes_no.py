"""Pointwise yes/no: a question at the end of each candidate, ranked by log p(yes) - log p(no).

No list is shown, so no order can matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from llama4rec_core.data.wording import Words
from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.rankers.likelihood import example  # noqa: F401  the same choice sets, answered by yes or no

CHOOSE = "{title}\nWould this {user} choose it next?"
YES, NO = " yes", " no"


def prompt(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: prompts.Hint | None
) -> Prompt:
    """A branch per candidate, whose two choices are yes and no."""
    shared, choices = llm.choices([YES, NO])
    asked = [llm.encode(prompts.say(CHOOSE, words, title=title)) + shared for title in candidates]
    text = prompts.with_history(llm, words, history, hint)
    return text.prompt(key, [Branch(tokens, choices=choices) for tokens in asked])


def utilities(
    llm: LLM, asked: Sequence[Prompt], titles: Mapping[str, Sequence[str]], path: Path, what: str, row_tokens: int
) -> pd.DataFrame:
    """log p(yes) - log p(no) of every candidate: columns key, candidate, utility."""
    scores = batches.score(llm, asked, path, what, row_tokens)
    signed = scores.assign(utility=scores["log_p"].where(scores["choice"] == 0, -scores["log_p"]))
    summed = signed.groupby(["key", "branch"], sort=False)["utility"].sum().reset_index()
    return summed.rename(columns={"branch": "candidate"})
