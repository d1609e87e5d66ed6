"""BookCrossing (Ziegler et al., 2005): books that users have, many of them rated, without time.

Its official archive has left the net, so the user names a folder or another archive.
"""

import csv
import html
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.data.dataset import Dataset, make_dataset
from llama4rec_core.data.download import RawFiles, SourceError, archive, first_source, layout
from llama4rec_core.data.lines import numbered_lines, table_of

FILES = {
    "BX-Book-Ratings.csv": ("user", "item", "rating"),
    "BX-Books.csv": ("item", "title", "author", "year", "publisher", "image s", "image m", "image l"),
    "BX-Users.csv": ("user", "location", "age"),
}


def fetch_bookcrossing(
    cache: Path, folder: Path | str | None = None, url: str | None = None, sha256: str | None = None
) -> RawFiles:
    """The raw files from the folder or the archive that the user names. Raises SourceError."""
    if (url is None) != (sha256 is None) or (folder is None and url is None):
        raise SourceError(
            f"BookCrossing has no official archive any more; name a folder that holds {', '.join(FILES)}, "
            "or give both url and sha256 of an archive"
        )
    into = cache / "bookcrossing" / "archive"
    sources = {} if url is None else {"archive": lambda: archive(url, sha256, FILES, into)}
    return first_source("BookCrossing", folder, (FILES,), sources)


def read_bookcrossing(
    folder: Path | str, source: str = "folder", unrated: str = "drop", of_user: int = 1, seed: int = 0, k: int = 5
) -> Dataset:
    """BookCrossing (BX-Book-Ratings.csv, BX-Books.csv, BX-Users.csv), ratings 1-10, k-core; users have at
    least `of_user` interactions.

    Rating 0 means "has the book, gave no rating": unrated "drop" leaves such interactions out, "keep" keeps them, with
    no rating. Broken lines, repetitions and ratings of books without a title are dropped with a warning that counts
    them. There is no time: `seed` puts the interactions into a random order.
    """
    files = layout(folder, FILES)
    tables, broken = zip(*map(_read_semicolons, files, FILES.values()), strict=True)
    interactions, items, users = tables
    for table in (interactions, items):
        table["item"] = table["item"].str.upper()  # an ISBN's last digit may be x

    items = items[["item", "title", "author", "year", "publisher"]].map(html.unescape).drop_duplicates("item")
    items["year"] = items["year"].replace("0", "")
    users["age"] = users["age"].replace("NULL", "")
    users["country"] = users["location"].str.rsplit(",", n=1).str[-1].str.strip()
    users = users.drop_duplicates("user")[["user", "age", "country"]]
    interactions["rating"] = interactions["rating"].replace("0", "")
    if unrated == "drop":
        interactions = interactions[interactions["rating"] != ""]
    repeated = interactions.duplicated(["user", "item"])
    untitled = ~interactions["item"].isin(items.loc[items["title"] != "", "item"]) & ~repeated
    if sum(broken) or repeated.any() or untitled.any():
        each = ", ".join(f"{file.name} {count}" for file, count in zip(files, broken, strict=True))
        warnings.warn(
            f"BookCrossing: skipped {sum(broken)} broken lines ({each}), {repeated.sum()} repeated ratings and "
            f"{untitled.sum()} ratings of books without a title",
            stacklevel=2,
        )
    interactions = k_core(interactions[~repeated & ~untitled], k, of_user)
    interactions = interactions.iloc[np.random.default_rng(seed).permutation(len(interactions))]
    return make_dataset("bookcrossing", interactions, items, users, (1, 10), source, files)


def k_core(interactions: pd.DataFrame, k: int, of_user: int = 1) -> pd.DataFrame:
    """The largest part in which every user and every item has at least k interactions, and every user `of_user`; order
    and index are kept."""
    if min(k, of_user) < 1:
        raise ValueError(f"k = {min(k, of_user)} makes no k-core; give a whole number of 1 or more")
    kept = interactions
    while len(kept):
        users, items = (kept.groupby(column)[column].transform("size") for column in ("user", "item"))
        enough = (users >= max(k, of_user)) & (items >= k)
        if enough.all():
            return kept
        kept = kept[enough]
    least = f"{k}-core" + f" with {of_user} interactions of a user" * (of_user > k)
    raise ValueError(f"no interaction is left in the {least} of {len(interactions)} interactions; choose fewer")


def _read_semicolons(path: Path, columns: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """The records and how many broken lines were skipped. Each line is read by itself: an unclosed quote spoils one."""
    lines = [(number, line) for number, line in numbered_lines(path, "latin-1") if number > 1]
    records = {number: next(csv.reader([line], delimiter=";", escapechar="\\")) for number, line in lines}
    whole = {n: [field.strip() for field in record] for n, record in records.items() if len(record) == len(columns)}
    return table_of(whole, columns, ";", path), len(records) - len(whole)
