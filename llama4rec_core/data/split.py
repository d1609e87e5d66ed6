"""Training, validation and test parts of a data set, and the cases that are predicted.

Everything is sorted by user, then time; ties stay in file order unless another tie-break is asked for.
Shapes: U users, N rows.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.data.dataset import Dataset
from llama4rec_core.files import whole

HELD_OUT = {"leave-one-out": (1, 1), "rolling": (5, 10)}  # a user's last items: validation, then test
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    protocol: str  # "leave-one-out" | "rolling"
    train: pd.DataFrame  # user, item, rating, time; sorted by user, then history; RangeIndex
    valid: pd.DataFrame  # the same columns and sorting
    test: pd.DataFrame
    sha256: str  # over the protocol and the three parts


def split(dataset: Dataset, protocol: str = "leave-one-out", tie_break: str = "file", seed: int = 0) -> Split:
    """Hold out the last items of each user.

    leave-one-out: the last item is the test, the one before it validation. rolling: the last 10 and the 5 before.
    tie_break orders a user's interactions of the same second: "file" (as they stand there), "reverse", or "random" (by
    seed).
    Raises ValueError for an unknown protocol or tie-break, and for a user who would keep no training item.
    """
    if protocol not in HELD_OUT:
        raise ValueError(f"protocol {protocol!r} is unknown; choose one of {', '.join(HELD_OUT)}")
    n_valid, n_test = HELD_OUT[protocol]

    frame = dataset.interactions
    order = np.lexsort((_tie_keys(len(frame), tie_break, seed), frame["time"], frame["user"]))
    frame = frame.iloc[order].reset_index(drop=True)
    bounds = offsets(frame, dataset.n_users)
    counts = np.diff(bounds)
    too_short = np.flatnonzero(counts < n_valid + n_test + 1)
    if len(too_short):
        user = too_short[0]
        raise ValueError(
            f"{dataset.name}: user {dataset.users['user_id'].iloc[user]!r} has {counts[user]} interaction(s); "
            f"{protocol} needs at least {n_valid + n_test + 1} of each user, so remove such users (k_core does)"
        )
    from_end = _from_end(bounds)
    test = frame[from_end < n_test]
    valid = frame[(from_end >= n_test) & (from_end < n_test + n_valid)]
    train = frame[from_end >= n_test + n_valid]
    return _make_split(protocol, train, valid, test)


def offsets(frame: pd.DataFrame, n_users: int) -> np.ndarray:
    """int64 [U+1]: `frame.item[offsets[u]:offsets[u+1]]` is user u's history in order (empty where u has no row).

    Raises ValueError where the frame is not sorted by user, or holds a user >= n_users.
    """
    users = frame["user"].to_numpy()
    if len(users) and (users[0] < 0 or np.any(np.diff(users) < 0) or users[-1] >= n_users):
        raise ValueError(f"column 'user' must be sorted and within 0 to {n_users - 1}; sort the frame by user first")
    return np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))]).astype(np.int64)


def cut_last(train: pd.DataFrame, n_users: int, window: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut each user's last `window` training rows off: (kept, targets), sorted as `train`, each with a RangeIndex.

    At least one row of a user stays, so a user with c rows gives min(window, c - 1) targets. The hint backbone is
    fitted on `kept`; the targets are what the LLM is tuned on. Raises ValueError for a negative window.
    """
    if window < 0:
        raise ValueError(f"window = {window} is negative; give the number of last training items to cut off, 0 or more")
    bounds = offsets(train, n_users)
    is_first = np.zeros(len(train), dtype=bool)
    is_first[bounds[:-1][np.diff(bounds) > 0]] = True
    cut = (_from_end(bounds) < window) & ~is_first
    return train[~cut].reset_index(drop=True), train[cut].reset_index(drop=True)


def cases(split: Split, task: str, window: int) -> pd.DataFrame:
    """One row for each thing to predict: case:int32, part, user, item, rating, prefix:int32.

    part is "window" (each user's last training rows, see `cut_last`), then "valid", then "test"; within a part the rows
    are sorted by user and history. A user's sequence is train + valid + test in order, and `prefix` says how many of
    its first items are the history of the case: for task "sequential" all that came before the target; for "direct" and
    "rating" a window case sees the rows before the window, and validation and test cases all training rows.
    Raises ValueError for an unknown task.
    """
    if task not in ("direct", "sequential", "rating"):
        raise ValueError(f"task {task!r} is unknown; choose direct, sequential or rating")
    n_users = int(split.train["user"].max()) + 1
    kept, targets = cut_last(split.train, n_users, window)
    n_kept, n_train, n_valid = (np.diff(offsets(part, n_users)) for part in (kept, split.train, split.valid))

    tables = []
    for part, frame, before in (
        ("window", targets, n_kept),
        ("valid", split.valid, n_train),
        ("test", split.test, n_train + n_valid if task == "sequential" else n_train),
    ):
        users = frame["user"].to_numpy()
        prefix = before[users]
        if task == "sequential":
            prefix = prefix + np.arange(len(frame)) - offsets(frame, n_users)[users]
        tables.append(frame[["user", "item", "rating"]].assign(part=part, prefix=prefix.astype(np.int32)))
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "case", np.arange(len(table), dtype=np.int32))
    return table[["case", "part", "user", "item", "rating", "prefix"]]


def save_split(split: Split, path: Path | str) -> None:
    """Write the split to one parquet file, whole or not at all."""
    path = Path(path)
    table = pd.concat([getattr(split, part).assign(part=part) for part in PARTS], ignore_index=True)
    table.attrs = {"protocol": split.protocol, "sha256": split.sha256}
    with whole(path) as aside:
        table.to_parquet(aside)


def load_split(path: Path | str) -> Split:
    """Read a split that `save_split` wrote. Raises ValueError where its content is not what was saved."""
    table = pd.read_parquet(path)
    parts = (table[table["part"] == part].drop(columns="part") for part in PARTS)
    loaded = _make_split(table.attrs.get("protocol", ""), *parts)
    if loaded.sha256 != table.attrs.get("sha256"):
        raise ValueError(f"{path} does not hold the split that was saved in it; make the split again")
    return loaded


def _tie_keys(n: int, tie_break: str, seed: int) -> np.ndarray:
    """[N] the order of rows with the same user and time."""
    if tie_break == "file":
        return np.arange(n)
    if tie_break == "reverse":
        return -np.arange(n)
    if tie_break == "random":
        return np.random.default_rng(seed).permutation(n)
    raise ValueError(f"tie_break {tie_break!r} is unknown; choose file, reverse or random")


def _from_end(bounds: np.ndarray) -> np.ndarray:
    """[N] how many rows of the same user come after each row, from the offsets [U+1]."""
    return np.repeat(bounds[1:], np.diff(bounds)) - 1 - np.arange(bounds[-1])


def _make_split(protocol: str, *parts: pd.DataFrame) -> Split:
    parts = tuple(part.reset_index(drop=True) for part in parts)
    digest = hashlib.sha256(protocol.encode())
    for name, part in zip(PARTS, parts, strict=True):
        digest.update(f"{name} {len(part)}".encode())
        for column, kind in (("user", "<i4"), ("item", "<i4"), ("rating", "<f4"), ("time", "<i8")):
            digest.update(part[column].to_numpy().astype(kind).tobytes())
    return Split(protocol, *parts, sha256=digest.hexdigest())
