"""A data set as every later step sees it: checked, with dense ids, in file order.

Shapes: U users, I items, N interactions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.files import read_frame, read_json, write_frame, write_json

TABLES = {"interactions": ("user", "item"), "items": ("item", "title"), "users": ("user",)}  # least columns


@dataclass(frozen=True)
class Dataset:
    name: str  # "ml-100k", "ml-1m", "bookcrossing", or the user's own
    interactions: pd.DataFrame  # [N] user:int32 item:int32 rating:float32 (NaN: none was given) time:int64 (seconds),
    # in file order
    users: pd.DataFrame  # [U] row u = user u: user_id and feature columns, all str; "" where not known
    items: pd.DataFrame  # [I] row i = item i: item_id, title and feature columns, all str; several values joined by "|"
    scale: tuple[float, float]  # lowest and highest rating
    source: str  # "folder" | "archive" | "wheel" | "own"

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    @cached_property
    def sha256(self) -> str:
        """Content hash: over the lines "user_id\\titem_id\\trating\\ttime\\n" in file order, ids as in the source.

        Ratings are written without needless zeros (4, 3.5). For ML-100K this is the very text of the official `u.data`.
        """
        users, items, digest = self.users["user_id"].tolist(), self.items["item_id"].tolist(), hashlib.sha256()
        for start in range(0, len(self.interactions), 100_000):  # a block at a time: data may be large
            block = self.interactions.iloc[start : start + 100_000]
            columns = (block[column].tolist() for column in ("user", "item", "rating", "time"))
            lines = (f"{users[u]}\t{items[i]}\t{r:g}\t{t}\n" for u, i, r, t in zip(*columns, strict=True))
            digest.update("".join(lines).encode())
        return digest.hexdigest()


def make_dataset(
    name: str,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None = None,
    scale: tuple[float, float] | None = None,
    source: str = "own",
    files: Sequence[Path | str] = tuple(TABLES),
) -> Dataset:
    """Check raw tables, give users and items dense ids, and return the Dataset. Raises ValueError.

    interactions: columns user, item and optionally rating (empty: none was given; where nobody gave one, all are 1, so
    there is nothing to predict) and time, in whole seconds (without it: 0, so a user's history is in file order).
    items: item, title, and any feature columns. users: user, and any feature columns; a user missing here has features
    "". scale: lowest and highest rating; None takes them from the data. files: the tables' names in error messages,
    which call a row by its index ("line" or "row", by the index's name).

    Dense ids follow the original ids, by number where all are numbers, else by text. Items that nobody rated and users
    without an interaction are left out, as in the paper's Table 1.
    """
    for table, columns, file in zip((interactions, items, users), TABLES.values(), files, strict=True):
        if table is not None:
            require_columns(table, columns, file)
            if table.empty:
                raise ValueError(f"{file} is empty; it needs at least one row of {', '.join(columns)}")

    file, items_file, users_file = files
    rated = given(interactions)
    if not rated.any():
        interactions, rated = interactions.assign(rating=1), ~rated
    user_ids, item_ids = _ids(interactions["user"], file), _ids(interactions["item"], file)
    ratings = pd.to_numeric(interactions["rating"], errors="coerce").astype(np.float64)
    problem = ", column 'rating': {} is not a number; write a rating such as 4 or 3.5, or nothing"
    _refuse(rated & ~np.isfinite(ratings), interactions["rating"], file, problem)
    low, high = scale = tuple(map(float, scale or (ratings.min(), ratings.max())))
    problem = f", column 'rating': {{}} lies outside the scale {low:g} to {high:g}; correct it, or give the right scale"
    _refuse((ratings < low) | (ratings > high), ratings, file, problem)
    written = interactions["time"] if "time" in interactions else pd.Series(0, interactions.index)
    times = pd.to_numeric(written, errors="coerce")  # integers stay exact, also beyond 2^53
    problem = ", column 'time': {} is no whole number of seconds; write it like 881250949 or 2026-11-26"
    _refuse(times.astype(np.float64) % 1 != 0, written, file, problem)
    (of_user, users_there), (of_item, items_there) = map(pd.factorize, (user_ids, item_ids))
    pairs = pd.Series(of_user * len(items_there) + of_item, interactions.index)
    repeated = pairs.duplicated()
    if repeated.any():
        at = repeated.argmax()
        first = _row(pairs, pairs == pairs.iloc[at])
        problem = f": user {user_ids.iloc[at]!r} and item {{}} are there a second time (first: {first}); "
        _refuse(repeated, item_ids, file, problem + "keep one interaction of a user with an item")

    kept_users, kept_items = _in_order(users_there), _in_order(items_there)
    users = pd.DataFrame({"user": []}, dtype="str") if users is None else users
    user_table = _features(users, "user", kept_users, users_file)
    item_table = _features(items, "item", kept_items, items_file)
    dense_user, dense_item = kept_users.get_indexer(users_there)[of_user], kept_items.get_indexer(items_there)[of_item]
    untitled = pd.Series((item_table["title"].str.strip() == "").to_numpy()[dense_item], interactions.index)
    if untitled.any():
        raise ValueError(
            f"{items_file} has no title for item {item_ids.iloc[untitled.argmax()]!r} "
            f"({file}, {_row(item_ids, untitled)}); add the item with its title, or remove its interactions"
        )
    frame = pd.DataFrame({"rating": ratings, "time": times}).astype({"rating": np.float32, "time": np.int64})
    frame.insert(0, "user", dense_user.astype(np.int32))
    frame.insert(1, "item", dense_item.astype(np.int32))
    return Dataset(name, frame.reset_index(drop=True), user_table, item_table, scale, source)


def subset_users(dataset: Dataset, n: int, seed: int) -> Dataset:
    """`n` users drawn at random, in their old order and numbered 0..n-1; all items stay. For quick trials."""
    if not 1 <= n <= dataset.n_users:
        raise ValueError(f"n = {n} users cannot be drawn from {dataset.name}; n must be 1 to {dataset.n_users}")
    chosen = np.sort(np.random.default_rng(seed).choice(dataset.n_users, size=n, replace=False))
    frame = dataset.interactions[dataset.interactions["user"].isin(chosen)].reset_index(drop=True)
    frame["user"] = np.searchsorted(chosen, frame["user"]).astype(np.int32)
    return replace(dataset, interactions=frame, users=dataset.users.iloc[chosen].reset_index(drop=True))


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """Write a parquet file for each table and, last, dataset.json (name, scale, source, sha256, rows of each table)."""
    about = {key: getattr(dataset, key) for key in ("name", "scale", "source", "sha256")}
    for table in TABLES:
        write_frame(folder / f"{table}.parquet", getattr(dataset, table))
        about[table] = len(getattr(dataset, table))
    write_json(folder / "dataset.json", about)


def read_dataset(folder: Path) -> Dataset:
    """The Dataset that `write_dataset` wrote. Raises ValueError where the files do not belong together."""
    about = read_json(folder / "dataset.json")
    tables = {table: read_frame(folder / f"{table}.parquet") for table in TABLES}
    dataset = Dataset(about["name"], **tables, scale=tuple(about["scale"]), source=about["source"])
    try:
        fits = all(len(tables[table]) == about[table] for table in TABLES) and dataset.sha256 == about["sha256"]
    except IndexError:  # an interaction of a user or an item that is not there
        fits = False
    if not fits:
        raise ValueError(f"{folder} does not hold the data set that its dataset.json describes; write it again")
    return dataset


def table_1(dataset: Dataset) -> pd.DataFrame:
    """The data set's row of the paper's Table 1, and how many interactions a user has."""
    n, per_user = len(dataset.interactions), np.bincount(dataset.interactions["user"], minlength=dataset.n_users)
    row = {
        "dataset": dataset.name,
        "users": dataset.n_users,
        "items": dataset.n_items,
        "interactions": n,
        "density": n / (dataset.n_users * dataset.n_items),
        "scale": f"{dataset.scale[0]:g}-{dataset.scale[1]:g}",
        "mean_per_user": per_user.mean(),
        "min_per_user": per_user.min(),
        "max_per_user": per_user.max(),
    }
    return pd.DataFrame([row])


def given(interactions: pd.DataFrame) -> pd.Series:
    """Which interactions carry a rating: something stands in that column, if there is one."""
    written = interactions.get("rating", pd.Series(np.nan, interactions.index))
    if written.dtype.kind in "iuf":
        return written.notna()
    return written.astype("str").fillna("").str.strip() != ""


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...], file: Path | str) -> None:
    """ValueError naming the file, the first missing column and the columns there are."""
    for column in columns:
        if column not in frame.columns:
            there = ", ".join(map(str, frame.columns)) or "none"
            raise ValueError(f"{file} has no column {column!r} (it has: {there}); it needs {', '.join(columns)}")


def _refuse(bad: pd.Series, values: pd.Series, file: Path | str, problem: str) -> None:
    """ValueError "FILE, line N" + problem for the first bad value, which takes the place of {}."""
    if bad.any():
        value = values.iloc[bad.argmax()]
        shown = f"{value:.12g}" if isinstance(value, float) else repr(str(value))
        raise ValueError(f"{file}, {_row(values, bad)}{problem.format(shown)}")


def _row(table: pd.DataFrame | pd.Series, marked: pd.Series) -> str:
    """How error messages call the first row that is marked."""
    return f"{table.index.name or 'row'} {table.index[marked.argmax()]}"


def _ids(column: pd.Series, file: Path | str) -> pd.Series:
    ids = column.astype("str").fillna("").str.strip()
    _refuse(ids == "", ids, file, f", column {column.name!r} is empty; it needs the {column.name}'s id")
    return ids


def _in_order(ids: pd.Index) -> pd.Index:
    """Distinct ids in the order of their dense ids: by number where all are whole numbers, else by text."""
    distinct = ids.tolist()
    numbers = all(text.isascii() and text.isdigit() for text in distinct)
    return pd.Index(sorted(distinct, key=lambda text: (int(text) if numbers else 0, text)))


def _features(table: pd.DataFrame, key: str, kept: pd.Index, file: Path | str) -> pd.DataFrame:
    """Rows of `table` for the ids in `kept`, all columns text, the key renamed to `<key>_id`."""
    ids = _ids(table[key], file)
    _refuse(ids.duplicated(), ids, file, f": {key} {{}} is there a second time; keep one row for each {key}")
    if f"{key}_id" in table:
        raise ValueError(f"{file} has both a column {key!r} and a column '{key}_id'; rename the second")
    text = table.astype("str").fillna("").drop(columns=key).set_axis(ids)
    return text.reindex(kept.rename(f"{key}_id"), fill_value="").reset_index()
