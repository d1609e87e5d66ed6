"""Every prompt's pieces of text, as plain templates; the ways of ranking (`rankers/`) add what is asked at the end.

A prompt has the parts of the paper's figure 2, but what augments it (the similar user's history, the conventional
model's prediction) comes first and the user's own history last: so the likeliest next title is asked for just where a
history goes on, as the trunk has learnt it.

Tokens are made piece by piece (a title is always the same tokens), so a candidate costs its own title and nothing else.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama4rec_core.data.wording import Words
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.titles import Titles, lengths
from llama4rec_core.llm.tree import Among, Branch, Prompt

# -- ranking (direct and sequential) -----------------------------------------------------------------------------------
HISTORY = "{Items} this {user} {chose}, oldest first:\n"
SIMILAR = "{Items} a {user} of similar taste {chose}:\n"
PREDICTION = "A recommender system suggests, best first:\n"
CANDIDATES = "Candidates:\n"
# -- pairwise preference (P1) ------------------------------------------------------------------------------------------
PAIR = "Which of these two {items} would this {user} rather choose?\n"
ANSWER = "Answer:\n"
# -- rating ------------------------------------------------------------------------------------------------------------
RATINGS = "Ratings from {low} to {high} that this {user} gave, oldest first:\n"
SIMILAR_RATINGS = "Ratings a {user} of similar taste gave:\n"
PREDICTED = "A recommender system predicts {prediction:.1f} for the next one.\n"
RATED = ":"
MOST_RATINGS = 200  # that a scale may have
# -- attributes (P3): in-context examples, then the item ---------------------------------------------------------------
ATTRIBUTES = "{Items}, with what each is known for.\n"


@dataclass(frozen=True)
class Hint:
    """Prompt augmentation (4.3) of one ranking prompt: the similar user's items, and the candidates in the conventional
    model's order."""

    similar: np.ndarray  # int64
    prediction: np.ndarray  # int64


@dataclass
class Text:
    """Pieces of a prefix as tokens, and which of them tuning learns."""

    llm: LLM
    words: Words
    tokens: list[int]
    learn: list[tuple[int, Among | None]]

    @classmethod
    def begin(cls, llm: LLM, words: Words) -> Text:
        return cls(llm, words, list(llm.start), [])

    def add(self, template: str, lines: Sequence[str] = (), **more: object) -> Text:
        """Append a template filled with the data set's words, and lines as they are."""
        self.tokens.extend(self.llm.encode(say(template, self.words, **more)))
        for line in lines:
            self.tokens.extend(self.llm.encode(line + "\n"))
        return self

    def titles(self, titles: Titles, items: Sequence[int], learn: bool = False) -> Text:
        """Append items' titles, a line each. learn: every title is a target in tuning, after those before it."""
        for item in items:
            if learn:
                self._learn(titles.answers[item])
            self.tokens.extend(titles.quoted(item))
        return self

    def ratings(self, titles: Titles, rated: Sequence[tuple[int, int]], scale: Scale, learn: bool = False) -> Text:
        """Append items with the ratings they were given, each the number of a rating of the scale. learn: every rating
        is a target."""
        for item, value in rated:
            self.tokens.extend(titles.names[item] + self.llm.encode(RATED) + scale.shared)
            if learn:
                nodes = [scale.nodes[node] for node, _ in scale.ways[value]]
                self.learn.extend((len(self.tokens) + len(path), among) for path, among in nodes)
            self.tokens.extend(scale.texts[value] + titles.end)
        return self

    def _learn(self, answer: Branch) -> None:
        among = answer.among or [None] * answer.answer
        self.learn.extend((len(self.tokens) + n, each) for n, each in enumerate(among))

    def prompt(self, key: str, branches: Sequence[Branch]) -> Prompt:
        return Prompt(key, tuple(self.tokens), tuple(branches), tuple(self.learn))


@dataclass(frozen=True)
class Scale:
    """A rating scale as tokens: a trie of its R ratings, each of which is a way down. Where every rating is one token
    of its own (1 to 5), there is one node, the root. A rating that begins another (1 and 10) ends with its line."""

    shared: tuple[int, ...]  # what all ratings begin with
    texts: tuple[tuple[int, ...], ...]  # [R], the rest of each
    nodes: tuple[tuple[tuple[int, ...], Among], ...]  # where ratings part: the tokens that lead there, what can follow
    ways: tuple[
        tuple[tuple[int, int], ...], ...
    ]  # [R], the choices that lead to each: (node, number of the token), ...
    low: str
    high: str

    @classmethod
    def of(cls, llm: LLM, scale: Sequence[str]) -> Scale:
        """scale: the ratings as they are written. Raises ValueError for fewer than two, or more than MOST_RATINGS."""
        if not 2 <= len(scale) <= MOST_RATINGS:
            raise ValueError(
                f"the data have {len(scale)} different rating(s); an LLM rates 2 to {MOST_RATINGS}: round them, or "
                "leave rating prediction out (no rating backbone, `out_of_fold: {rating: null}`)"
            )
        coded = [llm.encode(f" {value}") for value in scale]
        shared = os.path.commonprefix(coded)
        texts = [tokens[len(shared) :] for tokens in coded]
        ended = [text + llm.encode("\n") for text in texts]
        told_apart = [each[:n] for each, n in zip(ended, lengths(ended), strict=True)]
        children: dict[tuple[int, ...], dict[int, None]] = {}  # of each node, in the order of the ratings
        for each in told_apart:
            for n, token in enumerate(each):
                children.setdefault(each[:n], {})[token] = None
        nodes = {path: llm.among(tuple(tokens)) for path, tokens in children.items() if len(tokens) > 1}
        number, ways = {path: n for n, path in enumerate(nodes)}, []
        for each in told_apart:
            parts = [n for n in range(len(each)) if each[:n] in nodes]
            ways.append(tuple((number[each[:n]], nodes[each[:n]].tokens.index(each[n])) for n in parts))
        return cls(tuple(shared), tuple(texts), tuple(nodes.items()), tuple(ways), scale[0], scale[-1])

    def branches(self, before: tuple[int, ...]) -> list[Branch]:
        """What asks for a rating after `before`: a branch for each node."""
        return [Branch(before + self.shared + path, choices=among) for path, among in self.nodes]

    def log_p(self, scores: np.ndarray) -> np.ndarray:
        """log p of each rating, [M, R], from the scores of M times `branches`, one after the other, [M, S] or flat."""
        begins = np.cumsum([0, *(len(among.tokens) for _, among in self.nodes)])
        steps = np.zeros((begins[-1], len(self.ways)), dtype=scores.dtype)
        for rating, way in enumerate(self.ways):
            for node, choice in way:
                steps[begins[node] + choice, rating] = 1
        return scores.reshape(-1, begins[-1]) @ steps


def say(template: str, words: Words, **more: object) -> str:
    """A template with the data set's words for items and users, and with `more`."""
    named = {
        "Items": words.items.capitalize(),
        "items": words.items,
        "user": words.user,
        "chose": words.chose,
        "chooses": words.chooses,
    }
    return template.format(**named, **more)


def with_history(
    llm: LLM, words: Words, titles: Titles, history: Sequence[int], hint: Hint | None = None, learn: bool = False
) -> Text:
    """What every ranking prompt begins with: what augments it, and the history's titles (learn: each a target)."""
    text = Text.begin(llm, words)
    if hint is not None:
        text.add(SIMILAR).titles(titles, hint.similar).add(PREDICTION).titles(titles, hint.prediction)
    return text.add(HISTORY).titles(titles, history, learn)


def shown_order(key: str, count: int) -> np.ndarray:
    """An order in which a list is shown, the same whenever the key is: a prompt without hints must not show the
    backbone's."""
    return np.random.default_rng(zlib.crc32(key.encode())).permutation(count)


def pairs(
    llm: LLM, key: str, titles: Titles, history: Sequence[int], couples: Sequence[tuple[int, int]], words: Words
) -> Prompt:
    """P1: each couple of items asked in both orders. Four branches a couple: (a,b) a, (a,b) b, (b,a) a, (b,a) b."""
    question, answer, branches = llm.encode(say(PAIR, words)), llm.encode(ANSWER), []
    for a, b in couples:
        for first, second in ((a, b), (b, a)):
            told = question + titles.quoted(first) + titles.quoted(second) + answer
            branches += [titles.answers[item].after(told) for item in (a, b)]
    return with_history(llm, words, titles, history).prompt(key, branches)


def rating(
    llm: LLM,
    key: str,
    titles: Titles,
    history: Sequence[tuple[int, int]],
    targets: Sequence[int],
    scale: Sequence[str],
    words: Words,
    similar: Sequence[tuple[int, int]] | None = None,
    predictions: Sequence[float] | None = None,
    learn: bool = True,
) -> Prompt:
    """For each target item the branches of the scale's nodes (`Scale.branches`; for ratings of one token each, one).

    history, similar: (item, number of a rating of the scale) pairs. predictions: the conventional model's rating per
    target (None: not told). learn: the history's ratings are targets of tuning too.
    """
    known, text = Scale.of(llm, scale), Text.begin(llm, words)
    if similar:
        text.add(SIMILAR_RATINGS).ratings(titles, similar, known)
    text.add(RATINGS, low=known.low, high=known.high).ratings(titles, history, known, learn)
    branches = []
    for i, item in enumerate(targets):
        told = llm.encode(PREDICTED.format(prediction=predictions[i])) if predictions is not None else ()
        branches += known.branches(told + titles.names[item] + llm.encode(RATED))
    return text.prompt(key, branches)


def attributes_prefix(llm: LLM, words: Words) -> tuple[int, ...]:
    """P3's shared beginning: the instruction and the in-context examples."""
    lines = []
    for title, year, *values in words.examples:
        told = "; ".join(f"{how} {value}" for (_, how), value in zip(words.attributes, values, strict=True))
        lines.append(f"{attributes_question(title, year)} {told}")
    return tuple(Text.begin(llm, words).add(ATTRIBUTES, lines).tokens)


def attributes_question(title: str, year: str) -> str:
    """P3's question about one item, up to where the first attribute's name begins the answer."""
    return f"{title} ({year}):" if year else f"{title}:"
