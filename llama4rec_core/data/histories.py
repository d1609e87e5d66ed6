"""Every user's interactions in order, as prompts quote them, and the items that a user has not met in training.

Shapes: U users, I items, N interactions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from llama4rec_core.data.dataset import Dataset
from llama4rec_core.data.split import Split, cut_last
from llama4rec_core.data.wording import Words


@dataclass(frozen=True)
class Histories:
    """A user's sequence is train + validation + test; a prefix of it is the history of a case (see `cases`)."""

    items: np.ndarray  # int64 [N], user after user
    ratings: np.ndarray  # float32 [N], NaN where none was given
    begin: np.ndarray  # int64 [U+1]: items[begin[u] : begin[u+1]] are user u's
    n_train: np.ndarray  # int64 [U], N(u)
    n_before_window: np.ndarray  # int64 [U], N(u) without the window
    titles: tuple[str, ...]  # [I], of all items
    years: tuple[str, ...]  # [I], "" where not known
    scale: tuple[str, ...]  # the ratings that the data have, as they are written
    words: Words

    def history(self, user: int, prefix: int, length: int) -> np.ndarray:
        """int64 [min(prefix, length)]: the last `length` of the first `prefix` items of a user, oldest first."""
        begin = self.begin[user]
        return self.items[begin + max(0, prefix - length) : begin + prefix]

    def titles_of(self, user: int, prefix: int, length: int) -> list[str]:
        return [self.titles[item] for item in self.history(user, prefix, length)]

    def rated(self, user: int, prefix: int, length: int) -> list[tuple[int, int]]:
        """The last `length` of those first `prefix` items that the user rated, each with its rating's number on the
        scale."""
        first = slice(self.begin[user], self.begin[user] + prefix)
        rated = np.flatnonzero(~np.isnan(self.ratings[first]))
        rated = rated[max(0, len(rated) - length) :]
        items, ratings = self.items[first][rated], self.ratings[first][rated]
        return list(zip(items.tolist(), map(self.rating_number, ratings), strict=True))

    def rating_number(self, value: float) -> int:
        """Which rating of the scale is nearest to `value`."""
        return int(np.abs(self.values - value).argmin())

    @cached_property
    def values(self) -> np.ndarray:
        """float32: the scale as numbers."""
        return np.array(self.scale, dtype=np.float32)


def histories(dataset: Dataset, split: Split, window: np.ndarray, words: Words) -> Histories:
    """window [U]: how many of a user's last training interactions are the window (see `cut_last`)."""
    order = pd.concat([split.train, split.valid, split.test]).sort_values("user", kind="stable")
    before_window, _ = cut_last(split.train, window)
    return Histories(
        items=order["item"].to_numpy(dtype=np.int64),
        ratings=order["rating"].to_numpy(dtype=np.float32),
        begin=np.searchsorted(order["user"], np.arange(dataset.n_users + 1)),
        n_train=np.bincount(split.train["user"], minlength=dataset.n_users),
        n_before_window=np.bincount(before_window["user"], minlength=dataset.n_users),
        titles=tuple(dataset.items["title"]),
        years=tuple(dataset.items.get("year", [""] * dataset.n_items)),
        scale=tuple(f"{rating:g}" for rating in np.unique(dataset.interactions["rating"].dropna())),
        words=words,
    )


def unseen(histories: Histories, user: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [at most `count`]: different items without a training interaction of the user, drawn at random.

    Validation and test items may be drawn as any other.
    """
    seen = histories.history(user, histories.n_train[user], histories.n_train[user])
    free = np.setdiff1d(np.arange(len(histories.titles)), seen)
    return rng.choice(free, size=min(count, len(free)), replace=False)
