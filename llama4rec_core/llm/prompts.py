"""Every prompt's pieces of text, as plain templates; the ways of ranking (`rankers/`) add what is asked at the end.

A prompt has the parts of the paper's figure 2, but what augments it (the similar user's history, the conventional
model's prediction) comes first and the user's own history last: so the likeliest next title is asked for just where a
history goes on, as the trunk has learnt it.

Tokens are made piece by piece (a title is always the same tokens), so a candidate costs its own title and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama4rec_core.data.wording import Words
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.titles import Titles
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
                self.learn.append((len(self.tokens), scale.ratings))
            self.tokens.append(scale.ratings.tokens[value])
            self.tokens.extend(titles.end)
        return self

    def _learn(self, answer: Branch) -> None:
        among = answer.among or [None] * answer.answer
        self.learn.extend((len(self.tokens) + n, each) for n, each in enumerate(among))

    def prompt(self, key: str, branches: Sequence[Branch]) -> Prompt:
        return Prompt(key, tuple(self.tokens), tuple(branches), tuple(self.learn))


@dataclass(frozen=True)
class Scale:
    """A rating scale as tokens: what all ratings begin with, and the token by which each differs."""

    shared: tuple[int, ...]
    ratings: Among
    low: str
    high: str

    @classmethod
    def of(cls, llm: LLM, scale: Sequence[str]) -> Scale:
        return cls(*llm.choices([f" {value}" for value in scale]), scale[0], scale[-1])


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
    """A branch per target item; what could come next is the scale's ratings.

    history, similar: (item, number of a rating of the scale) pairs. predictions: the conventional model's rating per
    target (None: not told). learn: the history's ratings are targets of tuning too.
    """
    known, text = Scale.of(llm, scale), Text.begin(llm, words)
    if similar is not None:
        text.add(SIMILAR_RATINGS).ratings(titles, similar, known)
    text.add(RATINGS, low=known.low, high=known.high).ratings(titles, history, known, learn)
    branches = []
    for i, item in enumerate(targets):
        told = llm.encode(PREDICTED.format(prediction=predictions[i])) if predictions is not None else ()
        asked = titles.names[item] + llm.encode(RATED) + known.shared
        branches.append(Branch(told + asked, choices=known.ratings))
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
