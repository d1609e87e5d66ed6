"""Training, validation and test parts of a data set, and the cases that are predicted.

Everything is sorted by user, then time; ties stay in file order unless another tie-break is asked for.
Shapes: U users, N interactions.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from llama4rec_core.data.dataset import Dataset

HELD_OUT = {"leave-one-out": (1, 1), "rolling": (5, 10)}  # a user's last items: validation, then test


@dataclass(frozen=True)
class Split:
    protocol: str  # "leave-one-out" | "rolling"
    train: pd.DataFrame  # user, item, rating, time; sorted by user, then time; RangeIndex
    valid: pd.DataFrame  # the same columns and sorting
    test: pd.DataFrame

    @cached_property
    def sha256(self) -> str:
        """Over the protocol and the three parts."""
        digest = hashlib.sha256(self.protocol.encode())
        for name, part in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            digest.update(f"{name} {len(part)}".encode())
            for column, kind in (("user", "<i4"), ("item", "<i4"), ("rating", "<f4"), ("time", "<i8")):
                digest.update(part[column].to_numpy(kind).tobytes())
        return digest.hexdigest()


def split(dataset: Dataset, protocol: str = "leave-one-out", tie_break: str = "file", seed: int = 0) -> Split:
    """Hold out the last items of each user, as HELD_OUT says. Raises ValueError for a user with no item left to train.

    tie_break orders a user's interactions of the same second: as in the "file", in "reverse", or at "random" (by seed).
    """
    frame, rows = dataset.interactions, np.arange(len(dataset.interactions))
    ties = {"file": rows, "reverse": -rows, "random": np.random.default_rng(seed).permutation(rows)}
    for what, choice, known in (("protocol", protocol, HELD_OUT), ("tie_break", tie_break, ties)):
        if choice not in known:
            raise ValueError(f"{what} {choice!r} is unknown; choose one of {', '.join(known)}")
    n_valid, n_test = HELD_OUT[protocol]
    least = n_valid + n_test + 1
    counts = np.bincount(frame["user"], minlength=dataset.n_users)
    if counts.min() < least:
        user, few = np.argmax(counts < least), (counts < least).sum()
        raise ValueError(
            f"{dataset.name}: user {dataset.users['user_id'].iloc[user]!r} has {counts[user]} interaction(s); "
            f"{protocol} needs at least {least} of each user, and {few} of {len(counts)} have fewer: leave them out "
            f"(own data: `min_of_user: {least}`)"
            + ", or hold out fewer items (`protocol: leave-one-out`)"
            * (n_test > 1)
        )
    frame = frame.iloc[np.lexsort((ties[tie_break], frame["time"], frame["user"]))]
    from_end = frame.groupby("user").cumcount(ascending=False)
    test, train = from_end < n_test, from_end >= n_test + n_valid
    return Split(protocol, *(frame[part].reset_index(drop=True) for part in (train, ~train & ~test, test)))


def offsets(frame: pd.DataFrame, n_users: int) -> np.ndarray:
    """int64 [U+1]: `frame.item[offsets[u]:offsets[u+1]]` are user u's items in order. The frame is sorted by user."""
    users = frame["user"].to_numpy()
    if len(users) and (users[0] < 0 or np.any(np.diff(users) < 0) or users[-1] >= n_users):
        raise ValueError(f"column 'user' must be sorted and within 0 to {n_users - 1}; sort the frame by user first")
    return np.searchsorted(users, np.arange(n_users + 1))


def windows(train: pd.DataFrame, n_users: int, users: float, share: float, seed: int = 0) -> np.ndarray:
    """How many of each user's last training interactions are the user's window, int64 [U]; 0 for users without one.

    A share `users` of all, drawn by seed, are window users; their windows are the last `share` of their training
    sequences, rounded down, but at least one interaction long. One interaction at least stays before a window, so a
    user with a single one has none.
    """
    n_train = np.diff(offsets(train, n_users))
    out = np.zeros(n_users, dtype=np.int64)
    drawn = np.random.default_rng(seed).permutation(n_users)[: round(users * n_users)]
    out[drawn] = np.minimum(np.maximum(1, np.floor(share * n_train[drawn])), n_train[drawn] - 1)
    return out


def cut_last(train: pd.DataFrame, window: np.ndarray | int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut each user's window, the last `window[u]` training interactions, off: (what comes before it, the windows).

    window: int64 [U], or one number for all. At least one interaction of a user stays. Out-of-fold backbones are
    fitted on what comes before, the LLM's trunk reads nothing else, and hinted training examples ask for the windows'
    items. Both frames are sorted as `train`. Raises ValueError for a negative number.
    """
    if np.min(window) < 0:
        raise ValueError(
            f"window = {np.min(window)} is negative: give how many last training items to cut off, 0 or more"
        )
    n_users = int(train["user"].max()) + 1
    length = np.minimum(window, np.diff(offsets(train, n_users)) - 1)
    in_window = train.groupby("user").cumcount(ascending=False) < length[train["user"]]
    return train[~in_window].reset_index(drop=True), train[in_window].reset_index(drop=True)


def cases(split: Split, task: str, window: np.ndarray | int) -> pd.DataFrame:
    """One case for each item to predict: case:int32, part, user, item, rating, prefix:int32.

    part is "window" (see `cut_last`), then "valid", then "test"; within a part the cases are sorted by user and time.
    A user's sequence is train + valid + test in order, and `prefix` says how many of its first items are the history of
    the case: for task "sequential" all that came before the target; for "direct" and "rating" a window case sees what
    came before the window, and validation and test cases all N(u) training items. Items without a rating are no cases
    of "rating".
    """
    if task not in ("direct", "sequential", "rating"):
        raise ValueError(f"task {task!r} is unknown; choose direct, sequential or rating")
    n_users = int(split.train["user"].max()) + 1
    before_window, in_window = cut_last(split.train, window)
    counts = (np.bincount(part["user"], minlength=n_users) for part in (before_window, split.train, split.valid))
    n_before_window, n_train, n_valid = counts
    tables = []
    for part, frame, before in (
        ("window", in_window, n_before_window),
        ("valid", split.valid, n_train),
        ("test", split.test, n_train + n_valid if task == "sequential" else n_train),
    ):
        seen = frame.groupby("user").cumcount() if task == "sequential" else 0
        tables.append(frame[["user", "item", "rating"]].assign(part=part, prefix=before[frame["user"]] + seen))
    table = pd.concat(tables, ignore_index=True).astype({"prefix": np.int32})
    if task == "rating":
        table = table.dropna(subset="rating", ignore_index=True)
    return table.assign(case=np.arange(len(table), dtype=np.int32))[
        ["case", "part", "user", "item", "rating", "prefix"]
    ]
