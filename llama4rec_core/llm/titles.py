"""Items' titles as tokens: as histories quote them, and as answers.

The untuned LLM reads whole titles and may say anything. A tuned one reads and says of a title only the tokens that tell
it from all others ("Star Wars", not "Star Wars (1977)"). These form a trie,

            ┌── Star ──┬── Wars              an inner node: what is common to several titles
    root ───┤          └── Trek ── :  ...    a leaf: one title (or several that are the same)
            └── Fargo

and at every node the next token is one of the node's children. So an answer's log p is a sum of choices among few
tokens, the titles' probabilities sum to one, and one pass over the inner nodes gives all of them (`catalogue`).
Shapes: I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Among, Branch


@dataclass(frozen=True, eq=False)
class Titles:
    """Each of I items' titles as tokens."""

    names: tuple[tuple[int, ...], ...]  # as it is quoted
    answers: tuple[Branch, ...]  # as an answer
    end: tuple[int, ...]  # of a line

    @classmethod
    def whole(cls, llm: LLM, titles: Sequence[str], further: int | None = 0) -> Titles:
        """Titles in full; of an answer only as many tokens count as tell it from all others, and `further` ones (None:
        all). What follows hardly says more about which item is meant."""
        tokens = [llm.encode(title + "\n") for title in titles]
        alone = [len(each) for each in tokens] if further is None else [n + further for n in lengths(tokens)]
        answers = (Branch(each, len(each)).cut(min(n, len(each))) for each, n in zip(tokens, alone, strict=True))
        return cls(tuple(llm.encode(title) for title in titles), tuple(answers), llm.encode("\n"))

    @classmethod
    def told_apart(cls, llm: LLM, titles: Sequence[str]) -> Titles:
        """Of each title the tokens that tell it from all others, each among those that the trie allows there."""
        tokens = [llm.encode(title + "\n") for title in titles]
        names = tuple(each[:n] for each, n in zip(tokens, lengths(tokens), strict=True))
        children = trie(names)
        among = {node: Among(tuple(sorted(tokens))) for node, tokens in children.items()}
        answers = (Branch(name, len(name), among=tuple(among[name[:n]] for n in range(len(name)))) for name in names)
        return cls(names, tuple(answers), llm.encode("\n"))

    def quoted(self, item: int) -> tuple[int, ...]:
        """A line of a history."""
        return self.names[item] if self.names[item][-len(self.end) :] == self.end else self.names[item] + self.end


def lengths(tokens: Sequence[tuple[int, ...]]) -> list[int]:
    """How many of each title's first tokens tell it from all others: those up to the one that no other shares; all
    where two titles are the same. The same in every list, so a candidate's score does not depend on its company."""
    shared = Counter(each[:n] for each in tokens for n in range(1, len(each) + 1))
    return [next((n for n in range(1, len(each)) if shared[each[:n]] == 1), len(each)) for each in tokens]


def trie(names: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], set[int]]:
    """The inner nodes, named by the tokens that lead to them (the root by none), and the tokens that can follow each.

    Raises ValueError where a title is the beginning of another: then it would have no end of its own.
    """
    children: dict[tuple[int, ...], set[int]] = {}
    for name in names:
        for n, token in enumerate(name):
            children.setdefault(name[:n], set()).add(token)
    for item, name in enumerate(names):
        if name in children:
            raise ValueError(f"the title of item {item} is the beginning of another title: titles must have an end")
    return children


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Every title at once: a branch for each inner node of the trie, and how their scores add up to titles."""

    branches: tuple[Branch, ...]  # each asks which child of its node comes next
    steps: np.ndarray  # int64 [n], places in the concatenated scores of all branches
    items: np.ndarray  # int64 [n], the items whose log p they are part of

    @classmethod
    def of(cls, titles: Titles) -> Catalogue:
        first: dict[tuple[int, ...], int] = {}  # node -> where its children's scores begin
        branches, steps, items, size = [], [], [], 0
        for item, answer in enumerate(titles.answers):
            for n, among in enumerate(answer.among):
                if len(among.tokens) == 1:  # log p is 0
                    continue
                node = answer.tokens[:n]
                if node not in first:
                    first[node] = size
                    size += len(among.tokens)
                    branches.append(Branch(node, choices=among))
                steps.append(first[node] + among.tokens.index(answer.tokens[n]))
                items.append(item)
        return cls(tuple(branches), np.array(steps), np.array(items))

    def log_p(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """log p of each title, float64 [I], from what `score_row` gives for the branches."""
        return np.bincount(self.items, weights=np.concatenate(scores)[self.steps])
