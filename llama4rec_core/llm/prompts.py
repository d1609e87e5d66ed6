"""Every prompt of the project, as plain templates.

A prompt is put together from pieces of text in the order of the paper's figure 2: instruction and history first, then
what augments it (the similar user's history, the conventional model's prediction), then the candidates. That order is
also the cheap one: what a user's prompts share comes first and is read once.

Tokens are made piece by piece (a title is always the same tokens), so a candidate costs its own title and nothing else.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama4rec_core.llm.engine import Branch, Prompt
from llama4rec_core.llm.weights import LLM


@dataclass(frozen=True)
class Words:
    """How a data set's users and items are called in its prompts."""

    items: str = "items"
    user: str = "user"
    chose: str = "chose"
    chooses: str = "chooses"
    attributes: tuple[tuple[str, str], ...] = ()  # P3: (attribute, how it is asked for); none: P3 is left out
    examples: tuple[tuple[str, ...], ...] = ()  # P3's in-context examples: title, year (may be ""), each attribute

    def __post_init__(self):
        for example in self.examples:
            if len(example) != 2 + len(self.attributes):
                raise ValueError(
                    f"the P3 example {example[0] if example else example!r} has {len(example)} entries: it needs a "
                    f"title, a year and {len(self.attributes)} attributes"
                )


FILMS = Words(
    "films", "viewer", "watched", "watches", (("director", "directed by"), ("star", "starring")),
    # not one of these films is in MovieLens-100K: an example must not answer a question that will be asked
    (
        ("Spirited Away", "2001", "Hayao Miyazaki", "Rumi Hiiragi"),
        ("Gladiator", "2000", "Ridley Scott", "Russell Crowe"),
        ("The Departed", "2006", "Martin Scorsese", "Leonardo DiCaprio"),
        ("Lost in Translation", "2003", "Sofia Coppola", "Bill Murray"),
    ),
)  # fmt: skip
BOOKS = Words(
    "books", "reader", "read", "reads", (("genre", "a book of the genre"), ("pages", "with a page count of")),
    (
        ("The Road", "2006", "science fiction", "287"),
        ("Gone Girl", "2012", "thriller", "432"),
        ("The Goldfinch", "2013", "literary fiction", "784"),
    ),
)  # fmt: skip
WORDS = {"ml-100k": FILMS, "ml-1m": FILMS, "bookcrossing": BOOKS}  # a preset's data.words come before these

# -- ranking (direct and sequential) ---------------------------------------------------------------
HISTORY = "{Items} this {user} {chose}, oldest first:\n"
SIMILAR = "{Items} a {user} of similar taste {chose}:\n"
PREDICTION = "A recommender system suggests, best first:\n"
NEXT = "This {user} {chooses} next:\n"
# relevance: a question at the end of each candidate
RELEVANT = "{title}\nWould this {user} choose it next?"
YES, NO = " yes", " no"
# labels: the candidates under letters, one letter as the answer
CANDIDATES = "Candidates:\n"
LABELLED = "{letter}. {title}"
LABEL = "The one this {user} {chooses} next:"
# the paper's way: the whole list as the answer
LISTING = "All candidates, the one this {user} most likely {chooses} next first:\n"
# -- pairwise preference (P1) ------------------------------------------------------------------------------------------
PAIR = "Which of these two {items} would this {user} rather choose?\n{first}\n{second}\nAnswer:\n"
# -- rating -----------------------------------------------------------------------------------------------------------
RATINGS = "Ratings from {low} to {high} that this {user} gave, oldest first:\n"
SIMILAR_RATINGS = "Ratings a {user} of similar taste gave:\n"
PREDICTED = "A recommender system predicts {prediction:.1f} for the next one.\n"
ASKED = "{title}:"
# -- attributes (P3): in-context examples, then the film --------------------------------------------------------------
ATTRIBUTES = "{Items}, with what each is known for.\n"


@dataclass(frozen=True)
class Hint:
    """Prompt augmentation (4.3) in words: the similar user's history and the conventional model's prediction."""

    similar: tuple[str, ...]  # titles, or "title: rating" lines
    prediction: tuple[str, ...] = ()  # top-k: the candidates in the backbone's order


@dataclass
class _Text:
    """Pieces of a prefix, and which of their tokens tuning learns."""

    llm: LLM
    tokens: list[int]
    learn: list[int]

    def add(self, text: str, learn_from: int | None = None) -> None:
        """Append `text`; its tokens from number `learn_from` on are labels in tuning (None: none of them)."""
        tokens = self.llm.encode(text)
        if learn_from is not None:
            self.learn.extend(range(len(self.tokens) + learn_from, len(self.tokens) + len(tokens)))
        self.tokens.extend(tokens)


def _begin(llm: LLM) -> _Text:
    return _Text(llm, list(llm.start), [])


def _say(template: str, words: Words, **more: object) -> str:
    named = {
        "Items": words.items.capitalize(),
        "items": words.items,
        "user": words.user,
        "chose": words.chose,
        "chooses": words.chooses,
    }
    return template.format(**named, **more)


def _lines(text: _Text, heading: str, lines: Sequence[str]) -> None:
    text.add(heading)
    for line in lines:
        text.add(line + "\n")


def _told(llm: LLM, history: Sequence[str], words: Words, hint: Hint | None) -> _Text:
    """What every ranking prompt begins with: the history, and what augments it."""
    text = _begin(llm)
    _lines(text, _say(HISTORY, words), history)
    if hint is not None:
        _lines(text, _say(SIMILAR, words), hint.similar)
        _lines(text, PREDICTION, hint.prediction)
    return text


def ranking(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: Hint | None = None
) -> Prompt:
    """A branch per candidate, its title as the answer: ranked by likelihood, in no order, so there is no order bias."""
    text = _told(llm, history, words, hint)
    text.add(_say(NEXT, words))
    return Prompt(key, tuple(text.tokens), tuple(title_branch(llm, title) for title in candidates))


def relevance(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: Hint | None = None
) -> Prompt:
    """A branch per candidate that ends in a yes-or-no question: ranked by log p(yes) - log p(no)."""
    text = _told(llm, history, words, hint)
    shared, choices = llm.choices([YES, NO])
    branches = [
        Branch(llm.encode(_say(RELEVANT, words, title=title)) + shared, choices=choices) for title in candidates
    ]
    return Prompt(key, tuple(text.tokens), tuple(branches))


def labels(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: Hint | None = None
) -> Prompt:
    """The candidates under letters, in an order drawn from the key: one branch, whose choices are the candidates'
    letters (choice c is candidate c's). Raises ValueError for more than 26."""
    if len(candidates) > len(string.ascii_uppercase):
        raise ValueError(f"{len(candidates)} candidates are more than there are letters: rank them in another mode")
    text, order = _told(llm, history, words, hint), drawn_order(key, len(candidates))
    letters = string.ascii_uppercase[: len(candidates)]
    _lines(
        text, CANDIDATES, [LABELLED.format(letter=x, title=candidates[c]) for x, c in zip(letters, order, strict=True)]
    )
    text.add(_say(LABEL, words))
    shared, tokens = llm.choices([f" {letter}" for letter in letters])
    choices = tuple(tokens[place] for place in np.argsort(order))
    return Prompt(key, tuple(text.tokens), (Branch(shared, choices=choices),))


def listing(
    llm: LLM, key: str, history: Sequence[str], candidates: Sequence[str], words: Words, hint: Hint | None = None
) -> Prompt:
    """The paper's prompt: the candidates, in an order drawn from the key, and the ordered list is to be written (no
    branches)."""
    text = _told(llm, history, words, hint)
    _lines(text, CANDIDATES, [candidates[c] for c in drawn_order(key, len(candidates))])
    text.add(_say(LISTING, words))
    return Prompt(key, tuple(text.tokens), ())


def drawn_order(key: str, count: int) -> np.ndarray:
    """An order in which a list is shown, the same whenever the key is: a prompt without hints must not show the
    backbone's."""
    return np.random.default_rng(zlib.crc32(key.encode())).permutation(count)


def title_branch(llm: LLM, title: str) -> Branch:
    tokens = llm.encode(title + "\n")
    return Branch(tokens, answer=len(tokens))


def pairs(llm: LLM, key: str, history: Sequence[str], couples: Sequence[tuple[str, str]], words: Words) -> Prompt:
    """P1: each couple asked in both orders. Four branches a couple: (a,b) a, (a,b) b, (b,a) a, (b,a) b."""
    text = _begin(llm)
    _lines(text, _say(HISTORY, words), history)
    branches = []
    for a, b in couples:
        for first, second in ((a, b), (b, a)):
            question = llm.encode(_say(PAIR, words, first=first, second=second))
            branches += [
                Branch(question + title_branch(llm, title).tokens, answer=len(title_branch(llm, title).tokens))
                for title in (a, b)
            ]
    return Prompt(key, tuple(text.tokens), tuple(branches))


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
    text = _begin(llm)
    shared, choices = llm.choices([f" {value}" for value in scale])
    text.add(_say(RATINGS, words, low=scale[0], high=scale[-1]))
    for title, value in history:
        text.add(ASKED.format(title=title))
        text.add(f" {value}", learn_from=len(shared))
        text.add("\n")
    if similar is not None:
        _lines(text, _say(SIMILAR_RATINGS, words), [f"{ASKED.format(title=title)} {value}" for title, value in similar])
    branches = []
    for i, title in enumerate(targets):
        told = llm.encode(PREDICTED.format(prediction=predictions[i])) if predictions is not None else ()
        branches.append(Branch(told + llm.encode(ASKED.format(title=title)) + shared, choices=choices))
    return Prompt(key, tuple(text.tokens), tuple(branches), tuple(text.learn))


def attributes_prefix(llm: LLM, words: Words) -> tuple[int, ...]:
    """P3's shared beginning: the instruction and the in-context examples."""
    text = _begin(llm)
    text.add(_say(ATTRIBUTES, words))
    for title, year, *values in words.examples:
        told = "; ".join(f"{how} {value}" for (_, how), value in zip(words.attributes, values, strict=True))
        text.add(f"{attributes_question(title, year, words)} {told}\n")
    return tuple(text.tokens)


def attributes_question(title: str, year: str, words: Words) -> str:
    """P3's question about one item, up to where the first attribute's name begins the answer."""
    return f"{title} ({year}):" if year else f"{title}:"
