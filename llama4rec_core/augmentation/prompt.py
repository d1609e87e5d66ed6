"""Prompt augmentation (4.3): what the conventional model adds to the LLM's prompt, in words.

Two things join a user's prompt: the history of the most similar user (equation 4: the largest cosine of the
backbone's user embeddings) and the backbone's own prediction (its top list in its order, or its rating).

What a prompt may quote ends where its case's history ends. For a tuning prompt that is before the user's window, for
the similar user too, and all numbers come from the hint backbone, which was fitted without any window.
Shapes: U users, I items, N interactions, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from llama4rec_core.data import Dataset, Split, cut_last, offsets
from llama4rec_core.llm.prompts import Hint, Words


@dataclass(frozen=True)
class Sequences:
    """Every user's interactions in order, and how items and ratings are called in a prompt."""

    items: np.ndarray  # int64 [N], user after user: train, validation, test in order
    ratings: np.ndarray  # float32 [N]
    begin: np.ndarray  # int64 [U+1]
    n_train: np.ndarray  # int64 [U], N(u)
    n_kept: np.ndarray  # int64 [U], N(u) without the window
    titles: tuple[str, ...]  # [I]
    scale: tuple[str, ...]  # what a rating can be, as it is written
    words: Words

    def history(self, user: int, prefix: int, length: int) -> np.ndarray:
        """The last `length` of the first `prefix` items of a user, oldest first."""
        begin = self.begin[user]
        return self.items[begin + max(0, prefix - length) : begin + prefix]

    def watched(self, user: int, prefix: int, length: int) -> list[str]:
        return [self.titles[item] for item in self.history(user, prefix, length)]

    def rated(self, user: int, prefix: int, length: int) -> list[tuple[str, str]]:
        begin = self.begin[user]
        ratings = self.ratings[begin + max(0, prefix - length) : begin + prefix]
        return [
            (title, self.rating_text(value))
            for title, value in zip(self.watched(user, prefix, length), ratings, strict=True)
        ]

    def rating_text(self, value: float) -> str:
        """The written rating nearest to `value`."""
        return self.scale[int(np.abs(self.values - value).argmin())]

    @cached_property
    def values(self) -> np.ndarray:
        """The scale as numbers."""
        return np.array([float(text) for text in self.scale], dtype=np.float32)


def sequences(dataset: Dataset, split: Split, window: int, words: Words) -> Sequences:
    order = pd.concat([split.train, split.valid, split.test]).sort_values(
        "user", kind="stable"
    )  # parts are in order for each user
    kept, _ = cut_last(split.train, dataset.n_users, window)
    low, high = dataset.scale
    return Sequences(
        items=order["item"].to_numpy(dtype=np.int64),
        ratings=order["rating"].to_numpy(dtype=np.float32),
        begin=offsets(order, dataset.n_users),
        n_train=np.diff(offsets(split.train, dataset.n_users)),
        n_kept=np.diff(offsets(kept, dataset.n_users)),
        titles=tuple(dataset.items["title"]),
        scale=tuple(str(value) for value in range(int(np.ceil(low)), int(np.floor(high)) + 1)),
        words=words,
    )


@dataclass(frozen=True)
class HintSource:
    """What one fitted backbone knows: who is similar to whom, and up to where that user may be quoted."""

    similar: np.ndarray  # int64 [U], equation 4
    quoted: np.ndarray  # int64 [U], how many of a user's first items may be quoted (N(u), or N(u) without the window)
    length: int  # at most this many of them, the latest

    def ranking(self, told: Sequences, user: int, candidates: np.ndarray) -> Hint:
        """Top-k: the similar user's titles and the very candidates that are asked about, in the backbone's order."""
        other = int(self.similar[user])
        return Hint(
            similar=tuple(told.watched(other, int(self.quoted[other]), self.length)),
            prediction=tuple(told.titles[item] for item in candidates),
        )

    def rating(self, told: Sequences, user: int) -> list[tuple[str, str]]:
        """Rating: the similar user's rated titles (the backbone's predicted rating stands with each target)."""
        other = int(self.similar[user])
        return told.rated(other, int(self.quoted[other]), self.length)
