"""Every prompt's pieces of text, as plain templates; the ways of ranking (`rankers/`) add what is asked at the end.

A prompt has the parts of the paper's figure 2: instruction and history first, then what augments it (the similar
user's history, the conventional model's prediction), then, unlike there, the candidates last. That order is the cheap
one: what a user's prompts share comes first and is read once.

Tokens are made piece by piece (a title is always the same tokens), so a candidate costs its own title and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama4rec_core.data.wording import Words
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Branch, Prompt

# -- ranking (direct and sequential) -----------------------------------------------------------------------------------
HISTORY = "{Items} this {user} {chose}, oldest first:\n"
SIMILAR = "{Items} a {user} of similar taste {chose}:\n"
PREDICTION = "A recommender system suggests, best first:\n"
CANDIDATES = "Candidates:\n"
# -- pairwise preference (P1) ------------------------------------------------------------------------------------------
PAIR = "Which of these two {items} would this {user} rather choose?\n{first}\n{second}\nAnswer:\n"
# -- rating ------------------------------------------------------------------------------------------------------------
RATINGS = "Ratings from {low} to {high} that this {user} gave, oldest first:\n"
SIMILAR_RATINGS = "Ratings a {user} of similar taste gave:\n"
PREDICTED = "A recommender system predicts {prediction:.1f} for the next one.\n"
ASKED = "{title}:"
# -- attributes (P3): in-context examples, then the item ---------------------------------------------------------------
ATTRIBUTES = "{Items}, with what each is known for.\n"


@dataclass(frozen=True)
class Hint:
    """Prompt augmentation (4.3) of one ranking prompt: the similar user's titles, and the candidates in the
    conventional model's order."""

    similar: tuple[str, ...]
    prediction: tuple[str, ...]


@dataclass
class Text:
    """Pieces of a prefix as tokens, and which of them tuning learns."""

    llm: LLM
    words: Words
    tokens: list[int]
    learn: list[int]

    @classmethod
    def begin(cls, llm: LLM, words: Words) -> Text:
        return cls(llm, words, list(llm.start), [])

    def add(self, template: str, lines: Sequence[str] = (), learn_from: int | None = None, **more: object) -> Text:
        """Append a template filled with the data set's words, and lines as they are. Its tokens from number
        `learn_from` on are targets in tuning (None: none of them)."""
        tokens = self.llm.encode(say(template, self.words, **more))
        if learn_from is not None:
            self.learn.extend(range(len(self.tokens) + learn_from, len(self.tokens) + len(tokens)))
        self.tokens.extend(tokens)
        for line in lines:
            self.tokens.extend(self.llm.encode(line + "\n"))
        return self

    def prompt(self, key: str, branches: Sequence[Branch]) -> Prompt:
        return Prompt(key, tuple(self.tokens), tuple(branches), tuple(self.learn))


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


def with_history(llm: LLM, words: Words, history: Sequence[str], hint: Hint | None = None) -> Text:
    """What every ranking prompt begins with: the history's titles, and what augments it."""
    text = Text.begin(llm, words).add(HISTORY, history)
    if hint is not None:
        text.add(SIMILAR, hint.similar).add(PREDICTION, hint.prediction)
    return text


def shown_order(key: str, count: int) -> np.ndarray:
    """An order in which a list is shown, the same whenever the key is: a prompt without hints must not show the
    backbone's."""
    return np.random.default_rng(zlib.crc32(key.encode())).permutation(count)


def title_branch(llm: LLM, title: str) -> Branch:
    """A title as an answer."""
    tokens = llm.encode(title + "\n")
    return Branch(tokens, answer=len(tokens))


def pairs(llm: LLM, key: str, history: Sequence[str], couples: Sequence[tuple[str, str]], words: Words) -> Prompt:
    """P1: each couple asked in both orders. Four branches a couple: (a,b) a, (a,b) b, (b,a) a, (b,a) b."""
    branches = []
    for a, b in couples:
        for first, second in ((a, b), (b, a)):
            question = llm.encode(say(PAIR, words, first=first, second=second))
            for title in (a, b):
                answer = title_branch(llm, title).tokens
                branches.append(Branch(question + answer, answer=len(answer)))
    return with_history(llm, words, history).prompt(key, branches)


def rating(
    llm: LLM,
    key: str,
    history: Sequence[tuple[str, str]],
    targets: Sequence[str],
    scale: Sequence[str],
    words: Words,
    similar: Sequence[tuple[str, str]] | None = None,
    predictions: Sequence[float] | None = None,
) -> Prompt:
    """A branch per target item; what could come next is the scale's ratings.

    history, similar: (title, rating) pairs. predictions: the conventional model's rating per target (None: not told).
    """
    shared, choices = llm.choices([f" {value}" for value in scale])
    text = Text.begin(llm, words).add(RATINGS, low=scale[0], high=scale[-1])
    for title, value in history:
        text.add(ASKED, title=title).add("{value}", learn_from=len(shared), value=f" {value}").add("\n")
    if similar is not None:
        text.add(SIMILAR_RATINGS, [f"{ASKED.format(title=title)} {value}" for title, value in similar])
    branches = []
    for i, title in enumerate(targets):
        told = llm.encode(PREDICTED.format(prediction=predictions[i])) if predictions is not None else ()
        branches.append(Branch(told + llm.encode(ASKED.format(title=title)) + shared, choices=choices))
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
