"""A data set as every later station sees it: checked, with dense ids, in file order.

Shapes: U users, I items, N interactions.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Dataset:
    name: str  # "ml-100k", "ml-1m", "bookcrossing", or the user's own
    interactions: pd.DataFrame  # [N] user:int32 item:int32 rating:float32 time:int64 (seconds), in file order
    users: pd.DataFrame  # [U] row u = user u: user_id and feature columns, all str; "" where not known
    items: pd.DataFrame  # [I] row i = item i: item_id, title and feature columns, all str; several values joined by "|"
    scale: tuple[float, float]  # lowest and highest rating
    source: str  # "folder" | "archive" | "wheel" | "own"
    sha256: str  # content_hash of the interactions

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)


def make_dataset(
    name: str,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None = None,
    scale: tuple[float, float] | None = None,
    source: str = "own",
    interactions_file: str = "interactions",
    items_file: str = "items",
    users_file: str = "users",
) -> Dataset:
    """Check raw tables, give users and items dense ids, and return the Dataset.

    interactions: columns user, item, rating and optionally time (without it: 0, so a user's history is in file order).
    items: item, title, and any feature columns. users: user, and any feature columns; a user missing
    here has features "".
    scale: lowest and highest rating; None takes them from the data. The `*_file` names and each table's index (its
    name says "line" or "row") appear in error messages.

    Dense ids follow the original ids, by number where all are numbers, else by text. Items that nobody rated and users
    without an interaction are left out, as in the paper's Table 1.
    Raises ValueError for a missing column, an empty table, a rating or time that is no number, a rating outside the
    scale, a repeated interaction, a repeated item or user, an empty id, or an item without a title.
    """
    require_columns(interactions, ("user", "item", "rating"), interactions_file)
    require_columns(items, ("item", "title"), items_file)
    users = pd.DataFrame({"user": []}, dtype="str") if users is None else users
    require_columns(users, ("user",), users_file)
    if interactions.empty:
        raise ValueError(f"{interactions_file} is empty; it needs at least one row of user, item and rating")

    user_ids = _ids(interactions, "user", interactions_file)
    item_ids = _ids(interactions, "item", interactions_file)
    ratings = _ratings(interactions, scale, interactions_file)
    times = _times(interactions, interactions_file)
    _refuse_repeated(interactions, user_ids, item_ids, interactions_file)

    kept_users, kept_items = _in_order(user_ids), _in_order(item_ids)
    user_table = _features(users, "user", kept_users, users_file)
    item_table = _features(items, "item", kept_items, items_file)
    untitled = set(item_table.loc[item_table["title"].str.strip() == "", "item_id"])
    if untitled:
        at = int(np.flatnonzero(item_ids.isin(untitled))[0])
        place = _place(interactions, at, interactions_file)
        raise ValueError(
            f"{items_file} has no title for item {item_ids.iloc[at]!r} ({place}); "
            "add the item with its title, or remove its interactions"
        )

    frame = pd.DataFrame(
        {
            "user": pd.Index(kept_users).get_indexer(user_ids).astype(np.int32),
            "item": pd.Index(kept_items).get_indexer(item_ids).astype(np.int32),
            "rating": ratings.astype(np.float32),
            "time": times,
        }
    )
    scale = scale or (float(ratings.min()), float(ratings.max()))
    sha256 = content_hash(user_ids, item_ids, frame["rating"], frame["time"])
    return Dataset(name, frame, user_table, item_table, (float(scale[0]), float(scale[1])), source, sha256)


def content_hash(user_ids, item_ids, ratings, times) -> str:
    """SHA-256 over the lines "user_id\\titem_id\\trating\\ttime\\n" in file order, ids as in the source.

    Ratings are written without needless zeros (4, 3.5). For ML-100K this is the very text of the official `u.data`.
    """
    columns = (np.asarray(column).tolist() for column in (user_ids, item_ids, ratings, times))
    lines = (f"{u}\t{i}\t{r:g}\t{t}\n" for u, i, r, t in zip(*columns, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def subset_users(dataset: Dataset, n: int, seed: int) -> Dataset:
    """`n` users drawn at random, in their old order and numbered 0..n-1; all items stay. For quick trials.

    Raises ValueError where n is not between 1 and the number of users.
    """
    if not 1 <= n <= dataset.n_users:
        raise ValueError(f"n = {n} users cannot be drawn from {dataset.name}; n must be 1 to {dataset.n_users}")
    chosen = np.sort(np.random.default_rng(seed).choice(dataset.n_users, size=n, replace=False))
    new_id = np.full(dataset.n_users, -1, dtype=np.int32)
    new_id[chosen] = np.arange(n, dtype=np.int32)

    users = dataset.users.iloc[chosen].reset_index(drop=True)
    frame = dataset.interactions.assign(user=new_id[dataset.interactions["user"]])
    frame = frame[frame["user"] >= 0].reset_index(drop=True)
    sha256 = content_hash(
        users["user_id"].to_numpy()[frame["user"]],
        dataset.items["item_id"].to_numpy()[frame["item"]],
        frame["rating"],
        frame["time"],
    )
    return replace(dataset, interactions=frame, users=users, sha256=sha256)


def table_1(dataset: Dataset) -> pd.DataFrame:
    """The data set's row of the paper's Table 1, and how many interactions a user has."""
    n = len(dataset.interactions)
    per_user = np.bincount(dataset.interactions["user"], minlength=dataset.n_users)
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


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...], file: str) -> None:
    """ValueError naming the file, the first missing column and the columns there are."""
    for column in columns:
        if column not in frame.columns:
            there = ", ".join(map(str, frame.columns)) or "none"
            raise ValueError(f"{file} has no column {column!r} (it has: {there}); it needs {', '.join(columns)}")


def _place(frame: pd.DataFrame, position: int, file: str) -> str:
    return f"{file}, {frame.index.name or 'row'} {frame.index[position]}"


def _ids(frame: pd.DataFrame, column: str, file: str) -> pd.Series:
    """The id column as text without surrounding blanks."""
    ids = _text(frame[column]).str.strip()
    empty = np.flatnonzero(ids == "")
    if len(empty):
        raise ValueError(f"{_place(frame, empty[0], file)}, column {column!r} is empty; it needs the {column}'s id")
    return ids


def _text(values: pd.Series) -> pd.Series:
    missing = values.isna()
    return values.astype("str").mask(missing, "")


def _ratings(frame: pd.DataFrame, scale: tuple[float, float] | None, file: str) -> np.ndarray:
    ratings = pd.to_numeric(frame["rating"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(ratings))
    if len(wrong):
        where, value = _place(frame, wrong[0], file), str(frame["rating"].iloc[wrong[0]])
        raise ValueError(f"{where}, column 'rating': {value!r} is not a number; write a rating such as 4 or 3.5")
    if scale is not None:
        low, high = scale
        wrong = np.flatnonzero((ratings < low) | (ratings > high))
        if len(wrong):
            where, value = _place(frame, wrong[0], file), ratings[wrong[0]]
            raise ValueError(
                f"{where}, column 'rating': {value:g} lies outside the scale {low:g} to {high:g}; "
                "correct it, or give the right scale"
            )
    return ratings


def _times(frame: pd.DataFrame, file: str) -> np.ndarray:
    if "time" not in frame.columns:
        return np.zeros(len(frame), dtype=np.int64)
    times = pd.to_numeric(frame["time"], errors="coerce")
    if pd.api.types.is_integer_dtype(times) and not times.isna().any():
        return times.to_numpy(np.int64)  # exact, also beyond 2^53
    times = times.to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(times) | (times != np.floor(times)))
    if len(wrong):
        where, value = _place(frame, wrong[0], file), str(frame["time"].iloc[wrong[0]])
        raise ValueError(f"{where}, column 'time': {value!r} is no whole number of seconds; write it like 881250949")
    return times.astype(np.int64)


def _refuse_repeated(frame: pd.DataFrame, user_ids: pd.Series, item_ids: pd.Series, file: str) -> None:
    pairs = pd.DataFrame({"user": user_ids.to_numpy(), "item": item_ids.to_numpy()})
    repeated = np.flatnonzero(pairs.duplicated())
    if len(repeated):
        at = repeated[0]
        user, item = pairs.iloc[at]
        first = np.flatnonzero((pairs["user"] == user) & (pairs["item"] == item))[0]
        raise ValueError(
            f"{_place(frame, at, file)}: user {user!r} and item {item!r} are there a second time "
            f"(first: {frame.index.name or 'row'} {frame.index[first]}); keep one interaction of a user with an item"
        )


def _in_order(ids: pd.Series) -> list[str]:
    """The distinct ids in the order of their dense ids: by number where all are whole numbers, else by text."""
    distinct = ids.unique().tolist()
    if all(text.isascii() and text.isdigit() for text in distinct):
        return sorted(distinct, key=lambda text: (int(text), text))
    return sorted(distinct)


def _features(table: pd.DataFrame, key: str, kept: list[str], file: str) -> pd.DataFrame:
    """Rows of `table` for the ids in `kept`, in that order, all columns text, the key renamed to `<key>_id`."""
    text = pd.DataFrame({column: _text(table[column]) for column in table.columns})
    text[key] = _ids(table, key, file)
    repeated = np.flatnonzero(text[key].duplicated())
    if len(repeated):
        where, value = _place(table, repeated[0], file), text[key].iloc[repeated[0]]
        raise ValueError(f"{where}: {key} {value!r} is there a second time; keep one row for each {key}")
    others = [column for column in text.columns if column != key]
    if f"{key}_id" in others:
        raise ValueError(f"{file} has both a column {key!r} and a column '{key}_id'; rename the second")
    rows = text.set_index(key)[others].reindex(kept, fill_value="")
    rows.insert(0, f"{key}_id", pd.Series(kept, index=rows.index, dtype="str"))
    return rows.reset_index(drop=True)
