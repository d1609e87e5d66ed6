"""Five ways to let an LLM rank the candidates of a list, one file each, with the same three functions:

    prompt(ranker, list, hint)                   what is asked
    example(ranker, list, prompt, right)         the same with the right answers, for tuning
    utilities(ranker, lists, prompts, path, ..)  ask, resumably, and read the answers: a number for each candidate, the
                                                 best highest

A `Ranker` is one of them, set: it knows the LLM, the histories, how titles are told, and how much a prompt tells.
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
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Prompt
from llama4rec_core.presets import Preset, needs_prior
from llama4rec_core.rankers import letters, likelihood, listwise, pointwise, yes_no
from llama4rec_core.run import rng

WAYS = {
    "likelihood": likelihood,
    "pointwise": pointwise,
    "yes_no": yes_no,
    "letters": letters,
    "listwise": listwise,
}


TOLD_APART = ("likelihood", "pointwise")  # ways that show no list of whole titles


@dataclass(frozen=True, eq=False)
class Ranker:
    """A way of ranking, set for one LLM and one data set of I items."""

    way: str
    llm: LLM
    histories: Histories
    titles: Titles  # as histories quote them, and as answers
    length: int  # titles of the history that a prompt tells
    prior: np.ndarray  # float32 [I], subtracted from each candidate's utility
    row_tokens: int
    shuffled: bool = False  # a control: the history's titles in a random order

    @classmethod
    def of(
        cls,
        preset: Preset,
        llm: LLM,
        histories: Histories,
        tuned: bool,
        log_p: np.ndarray | None = None,
        way: str = "",
    ) -> Ranker:
        """As the preset says. A tuned LLM is told titles by the tokens that tell them apart, the untuned one whole, and
        so is a tuned one where it is shown a list of whole titles.

        log_p [I]: log p(title | no history) by the untuned LLM, where `needs_prior`. way: another way of ranking than
        the preset's.
        """
        way, titles = way or preset.ranking.mode, histories.titles
        short = tuned and way in TOLD_APART
        told = Titles.told_apart(llm, titles) if short else Titles.whole(llm, titles, preset.ranking.further_tokens)
        prior = np.zeros(len(titles), dtype=np.float32)
        if not tuned and needs_prior(preset, way):
            prior = (preset.ranking.prior_weight * log_p).astype(np.float32)
        return cls(way, llm, histories, told, preset.prompts.history, prior, preset.row_tokens)

    def prompt(self, each: CandidateList, hints: Hints | None = None) -> Prompt:
        """What the LLM is asked about one list; with hints, what the backbone says stands in it too."""
        hint = hints.ranking(self.histories, each.user, each.candidates) if hints else None
        return WAYS[self.way].prompt(self, each, hint)

    def example(self, each: CandidateList, hints: Hints | None = None) -> Example | None:
        """The prompt with its right answers, the list's targets; None where the way learns from ratings instead.

        Raises ValueError for a list without its target.
        """
        right = [c for c, item in enumerate(each.candidates) if item in each.targets]
        if not right:
            raise ValueError(f"the list {each.key} does not hold its target: it teaches nothing")
        return WAYS[self.way].example(self, each, self.prompt(each, hints), right)

    def utilities(self, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
        """Ask about every list, resumably: columns key, item, log_p (what the LLM gave), utility (less the prior).

        What the LLM gave is left in `path`, its cost in the .json beside it.
        """
        found = WAYS[self.way].utilities(self, lists, asked, path, what)
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

    def history(self, each: CandidateList) -> np.ndarray:
        """The items of the history that the prompt tells."""
        return self._in_order(each, self.histories.history(each.user, each.prefix, self.length))

    def rated(self, each: CandidateList) -> list[tuple[int, int]]:
        """The same where ratings are told: `Histories.rated`."""
        return self._in_order(each, self.histories.rated(each.user, each.prefix, self.length))

    def _in_order(self, each: CandidateList, told: Sequence) -> Sequence:
        if not self.shuffled:
            return told
        return [told[n] for n in rng("shuffled history", each.user, each.prefix).permutation(len(told))]

    def named(self, each: CandidateList) -> list[str]:
        """The candidates' whole titles."""
        return [self.histories.titles[item] for item in each.candidates]
