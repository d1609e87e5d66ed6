"""Ratings in: files to a Dataset, a Dataset to its splits and cases, and to the histories that prompts quote."""
# ruff: noqa: F401  these names are for others

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama4rec_core import paths
from llama4rec_core.data.bookcrossing import fetch_bookcrossing, read_bookcrossing
from llama4rec_core.data.dataset import Dataset, make_dataset, read_dataset, subset_users, table_1, write_dataset
from llama4rec_core.data.download import SourceError
from llama4rec_core.data.histories import Histories, histories, unseen
from llama4rec_core.data.movielens import fetch_ml1m, fetch_ml100k, read_ml1m, read_ml100k
from llama4rec_core.data.own import read_own
from llama4rec_core.data.split import cases, cut_last, offsets, split, windows
from llama4rec_core.data.wording import BOOKS, FILMS, WORDS, Words

if TYPE_CHECKING:
    from llama4rec_core.presets import DataSettings

READERS = {
    "ml-100k": (fetch_ml100k, read_ml100k),
    "ml-1m": (fetch_ml1m, read_ml1m),
    "bookcrossing": (fetch_bookcrossing, read_bookcrossing),
}


def load(name: str, folder: Path | str | None = None, how: dict | None = None, **archive: str) -> Dataset:
    """One of the paper's data sets, "ml-100k", "ml-1m" or "bookcrossing", from the first source that has it.

    folder: holds the raw files. how: `unrated` and `of_user` of `read_bookcrossing`. archive: the url and sha256 of
    another than the official one (BookCrossing has none).
    """
    if name not in READERS:
        raise ValueError(f"the data set {name!r} is unknown; choose {', '.join(READERS)}, or use read_own")
    fetch, read = READERS[name]
    return read(*fetch(paths.cache(), folder, **archive), **(how or {}))


def as_set(settings: DataSettings) -> Dataset:
    """The data of a preset's `data` section, all users."""
    if settings.name == "own":
        kept = ("duplicates", "untitled", "min_interactions", "min_of_user")
        how = {key: getattr(settings, key) for key in ("columns", "separator", *kept)}
        dataset = read_own(settings.interactions, settings.items, settings.users_file, settings.scale, **how)
    else:
        how = {"unrated": settings.unrated, "of_user": settings.min_of_user}
        dataset = load(settings.name, settings.folder, how if settings.name == "bookcrossing" else None)
    return replace(dataset, name=settings.called or dataset.name)
