"""Listwise generation, the paper's way: the LLM writes the ordered titles; a candidate's utility is minus its position.

The order in which the candidates are shown is drawn from the prompt's key. Titles that are not written follow in that
order.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llama4rec_core.llm import answers, batches, prompts
from llama4rec_core.llm.examples import CandidateList, ChoiceSet, Example
from llama4rec_core.llm.tree import Branch, Prompt

LISTING = "All candidates, the one this {user} most likely {chooses} next first:\n"


def prompt(ranker, each: CandidateList, hint: prompts.Hint | None) -> Prompt:
    """The candidates are shown and the ordered list is to be written: no branches."""
    candidates, words = ranker.named(each), ranker.histories.words
    shown = [candidates[c] for c in prompts.shown_order(each.key, len(candidates))]
    text = prompts.with_history(ranker.llm, words, ranker.titles, ranker.history(each), hint)
    return text.add(prompts.CANDIDATES, shown).add(LISTING).prompt(each.key, [])


def example(ranker, each: CandidateList, asked: Prompt, right: Sequence[int]) -> Example:
    """The written list begins with the right answers and goes on in the order shown."""
    candidates = ranker.named(each)
    wrong = [c for c in prompts.shown_order(asked.key, len(candidates)) if c not in right]
    written = ranker.llm.encode("".join(candidates[c] + "\n" for c in [*right, *wrong]))
    return Example(dataclasses.replace(asked, branches=(Branch(written, len(written)),)), (ChoiceSet((0,), 0),))


def utilities(ranker, lists: Sequence[CandidateList], asked: Sequence[Prompt], path: Path, what: str) -> pd.DataFrame:
    """Minus the position of every candidate in what was written: columns key, candidate, utility."""
    titles = {each.key: ranker.named(each) for each in lists}
    longest = max((len(ranker.llm.encode("\n".join(each))) for each in titles.values()), default=0)
    lines = max(map(len, titles.values()), default=0)
    said = batches.write(ranker.llm, asked, path, what, max_tokens=longest + 2 * lines, lines=lines)
    out = []
    for key, text in zip(said["key"], said["text"], strict=True):
        # read against the list as it was shown: what was not written must not follow in the backbone's order
        shown = prompts.shown_order(key, len(titles[key]))
        order, _ = answers.ranking(text, [titles[key][c] for c in shown])
        out += [(key, shown[at], -float(place)) for place, at in enumerate(order, start=1)]
    return pd.DataFrame(out, columns=["key", "candidate", "utility"])
