"""Four ways to let an LLM rank the candidates of a list, one file each, with the same three functions:

    prompt()      what is asked
    example()     the same with the right answer, for tuning
    utilities()   ask, resumably, and read the answers: a number for each candidate, the best highest

A `Ranker` is one of them, set: it knows the LLM, the histories, how much a prompt tells, and what is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.data.histories import Histories
from llama4rec_core.llm.examples import CandidateList, Example
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Prompt
from llama4rec_core.presets import Preset, needs_prior
from llama4rec_core.rankers import letters, likelihood, listwise, yes_no

WAYS = {"likelihood": likelihood, "yes_no": yes_no, "letters": letters, "listwise": listwise}


@dataclass(frozen=True, eq=False)
class Ranker:
    """A way of ranking, set for one LLM and one data set of I items."""

    way: str
    llm: LLM
    histories: Histories
    length: int  # titles of the history that a prompt tells
    title_tokens: np.ndarray | None  # int64 [I], how far each title is read; None: to its end
    prior: np.ndarray  # float32 [I], subtracted from each candidate's utility, in ranking as in tuning
    row_tokens: int

    @classmethod
    def of(
        cls, preset: Preset, llm: LLM, histories: Histories, tuned: bool, log_p: np.ndarray | None, way: str = ""
    ) -> Ranker:
        """As the preset says. log_p [I]: log p(title | no history) by the untuned LLM, where `needs_prior`. way:
        another way of ranking than the preset's."""
        way, asked = way or preset.ranking.mode, preset.ranking.likelihood
        read = None
        if way == "likelihood" and asked.further_tokens is not None:
            read = likelihood.told_apart(llm, histories.titles, asked.further_tokens)
        prior = np.zeros(len(histories.titles), dtype=np.float32)
        if needs_prior(preset, tuned, way):
            weight = asked.prior_weight if tuned else asked.untuned_prior_weight
            prior = (weight * log_p).astype(np.float32)
        return cls(way, llm, histories, preset.prompts.history, read, prior, preset.row_tokens)

    def prompt(self, each: CandidateList, hints: Hints | None = None) -> Prompt:
        """What the LLM is asked about one list; with hints, what the backbone says stands in it too."""
        asked = WAYS[self.way].prompt(
            self.llm,
            each.key,
            self.histories.titles_of(each.user, each.prefix, self.length),
            self.titles(each),
            self.histories.words,
            hints.ranking(self.histories, each.user, each.candidates) if hints else None,
        )
        return asked if self.title_tokens is None else likelihood.cut(asked, self.title_tokens[each.candidates])

    def example(self, each: CandidateList, hints: Hints | None = None) -> Example:
        """The prompt with its right answers, the list's targets. Raises ValueError for a list without its target."""
        right = [c for c, item in enumerate(each.candidates) if item in each.targets]
        if not right:
            raise ValueError(f"the list {each.key} does not hold its target: it teaches nothing")
        return WAYS[self.way].example(
            self.llm, self.prompt(each, hints), self.titles(each), right, self.prior[each.candidates]
        )

    def utilities(self, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
        """Ask about every list, resumably: columns key, item, log_p (what the LLM gave), utility (less the prior).

        What the LLM gave is left in `path`, its cost in the .json beside it.
        """
        titles = {each.key: self.titles(each) for each in lists}
        found = WAYS[self.way].utilities(self.llm, asked, titles, path, what, self.row_tokens)
        candidates = {each.key: each.candidates for each in lists}
        items = [candidates[key][c] for key, c in zip(found["key"], found["candidate"], strict=True)]
        item = np.array(items, dtype=np.int64)
        return pd.DataFrame(
            {
                "key": found["key"],
                "item": item,
                "log_p": found["utility"],
                "utility": found["utility"] - self.prior[item],
            }
        )

    def titles(self, each: CandidateList) -> list[str]:
        return [self.histories.titles[item] for item in each.candidates]
