"""What is wrong with a user's own files, all at once: how often, where first, and what mends it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml

from llama4rec_core.data.bookcrossing import k_core
from llama4rec_core.data.dataset import given
from llama4rec_core.data.own import read_table, stripped, tidy
from llama4rec_core.data.split import HELD_OUT

if TYPE_CHECKING:
    from llama4rec_core.presets import DataSettings

GUESSES = {  # a column whose name has one of these words, perhaps with an s or id at its end, may be ours
    "user": ("user", "reader", "listener", "viewer", "customer", "member", "person"),
    "item": ("item", "book", "song", "movie", "film", "track", "product", "article", "isbn", "asin"),
    "rating": ("rating", "star", "score", "grade"),
    "time": ("time", "date", "when", "day"),
    "title": ("title", "name"),
}
SHOWN = 3  # lines of each problem


@dataclass(frozen=True)
class Problem:
    """One kind of fault. mend: what to write into the preset's `data` section; empty where the file must be mended."""

    what: str
    where: tuple[object, ...] = ()  # line or row numbers
    mend: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = ", ".join(map(str, self.where[:SHOWN])) + (", ..." if len(self.where) > SHOWN else "")
        where = f" ({len(self.where)} times: line {lines})" if self.where else ""
        way = f"write {_yaml(self.mend)}" if self.mend else "mend the file"
        return f"{self.what}{where}: {way}"


TOO_FEW = Problem("too few users and items have enough interactions to hold any out")


def problems(settings: DataSettings) -> list[Problem]:
    """Of the files that a preset's `data` section names, read with what it says. Raises nothing for what they hold."""
    files = [Path(settings.interactions), Path(settings.items)]
    tables, found = [], []
    for file, needed, may in zip(files, (("user", "item"), ("item", "title")), (("rating", "time"), ()), strict=True):
        try:
            table = read_table(file, settings.columns, settings.separator)
        except ValueError as error:
            found.append(Problem(str(error)))
            continue
        guessed = _guessed(table, (*needed, *may))
        if missing := [name for name in needed if name not in table and name not in guessed]:
            found.append(Problem(f"{file.name} has no column for {' and '.join(missing)} (it has: {', '.join(table)})"))
        if guessed:
            said = ", ".join(f"{theirs} for {ours}" for ours, theirs in sorted(guessed.items()))
            found.append(Problem(f"{file.name} has {said}", (), {"columns": guessed}))
        more = {ours: (theirs,) for ours, theirs in guessed.items()}
        tables.append(read_table(file, settings.columns | more, settings.separator))
    if len(tables) < 2 or not {"user", "item"} <= set(tables[0]) or not {"item", "title"} <= set(tables[1]):
        return found
    found = _together(found, settings.columns)
    interactions, items = map(stripped, tables)
    found += _of_interactions(interactions, items, files, settings)
    twice = items["item"].duplicated()
    if twice.any():
        found.append(Problem(f"{files[1].name}: an item is there a second time", _lines(twice)))
    if (empty := items["item"] == "").any():
        found.append(Problem(f"{files[1].name}: item is empty", _lines(empty)))
    found += _of_users(settings)
    return found + _of_counts(interactions, items, settings, found)


def _of_interactions(
    interactions: pd.DataFrame, items: pd.DataFrame, files: list[Path], settings: DataSettings
) -> Iterable[Problem]:
    name = files[0].name
    for column in ("user", "item"):
        if (empty := interactions[column] == "").any():
            yield Problem(f"{name}: {column} is empty", _lines(empty))
    if "rating" in interactions:
        ratings = pd.to_numeric(interactions["rating"], errors="coerce")
        if (bad := given(interactions) & ~np.isfinite(ratings.astype(float))).any():
            yield Problem(f"{name}: rating is no number, as {interactions['rating'][bad].iloc[0]!r}", _lines(bad))
        if settings.scale:
            outside = (ratings < settings.scale[0]) | (ratings > settings.scale[1])
            if outside.any():
                now = [float(min(ratings.min(), settings.scale[0])), float(max(ratings.max(), settings.scale[1]))]
                yield Problem(f"{name}: rating lies outside the scale", _lines(outside), {"scale": now})
    if "time" in interactions:
        times = pd.to_numeric(interactions["time"], errors="coerce").astype(float)
        if (bad := (times % 1 != 0)).any():
            said = f"{name}: time is neither whole seconds nor a date such as 2026-11-26"
            yield Problem(f"{said}, but {interactions['time'][bad].iloc[0]!r}", _lines(bad))
    repeated = interactions.duplicated(["user", "item"])
    if settings.duplicates == "error" and repeated.any():
        yield Problem(f"{name}: a user has an item a second time", _lines(repeated), {"duplicates": "last"})
    titled = items.loc[items["title"] != "", "item"]
    untitled = ~interactions["item"].isin(titled)
    if settings.untitled == "error" and untitled.any():
        yield Problem(f"{files[1].name} has no title for an item of {name}", _lines(untitled), {"untitled": "drop"})


def _of_users(settings: DataSettings) -> Iterable[Problem]:
    if not settings.users_file:
        return
    name = Path(settings.users_file).name
    try:
        users = stripped(read_table(settings.users_file, settings.columns, settings.separator))
    except ValueError as error:
        yield Problem(str(error))
        return
    if "user" not in users:
        yield Problem(f"{name} has no column for user (it has: {', '.join(users)})")
        return
    if (empty := users["user"] == "").any():
        yield Problem(f"{name}: user is empty", _lines(empty))
    if (twice := users["user"].duplicated()).any():
        yield Problem(f"{name}: a user is there a second time", _lines(twice))


def _of_counts(
    interactions: pd.DataFrame, items: pd.DataFrame, settings: DataSettings, found: list[Problem]
) -> list[Problem]:
    """Users with too few interactions, once what is to be mended has been."""
    mended = replace(settings, **{key: value for each in found for key, value in each.mend.items()})
    left = tidy(interactions, items, mended.duplicates, mended.untitled)
    try:
        left = k_core(left, settings.min_interactions, settings.min_of_user)
    except ValueError:
        return [TOO_FEW]
    needed = sum(HELD_OUT[settings.protocol]) + 1
    short = left["user"].value_counts() < needed
    for protocol in dict.fromkeys((settings.protocol, "leave-one-out")):
        least = sum(HELD_OUT[protocol]) + 1
        mend: dict[str, object] = {} if protocol == settings.protocol else {"protocol": protocol}
        if (left["user"].value_counts() < least).any():
            mend["min_of_user"] = least
            try:
                k_core(left, settings.min_interactions, least)
            except ValueError:
                continue
        said = f"{short.sum()} of {len(short)} users have fewer than the {needed} interactions that {settings.protocol}"
        return [Problem(f"{said} needs", (), mend)] if mend else []
    return [TOO_FEW]


def mending(found: Iterable[Problem]) -> str:
    """All that is to be written into the preset, as YAML; "" where nothing mends the problems."""
    mend = {key: value for each in found for key, value in each.mend.items()}
    return yaml.safe_dump({"data": mend}, sort_keys=False, default_flow_style=None) if mend else ""


def _together(found: list[Problem], named: dict[str, tuple[str, ...]]) -> list[Problem]:
    """The columns of both files in one mend, beside those that were named already."""
    columns: dict[str, list[str]] = {ours: list(theirs) for ours, theirs in named.items()}
    for each in found:
        for ours, theirs in each.mend.get("columns", {}).items():
            columns.setdefault(ours, []).append(theirs)
    mend = {"columns": {ours: theirs[0] if len(theirs) == 1 else theirs for ours, theirs in columns.items()}}
    return [replace(each, mend=mend) if each.mend else each for each in found]


def _guessed(table: pd.DataFrame, wanted: Iterable[str]) -> dict[str, str]:
    """For columns that are not there, the one other column whose name says it may be it. The surest is taken first."""
    missing, out = [ours for ours in wanted if ours not in table], {}
    while missing:
        free = [name for name in table if name not in (*GUESSES, *out.values())]
        like = {ours: [name for name in free if _has_word(name, GUESSES[ours])] for ours in missing}
        sure = [ours for ours in missing if len(like[ours]) == 1]
        if not sure:
            return out
        out[sure[0]] = like[sure[0]][0]
        missing.remove(sure[0])
    return out


def _has_word(name: str, words: tuple[str, ...]) -> bool:
    """The names "songID" and "song_title" have the word song, "start" does not have the word star."""
    like = re.compile(f"({'|'.join(words)})(s|id|ids)?")
    return any(like.fullmatch(part.lower()) for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))


def _lines(bad: pd.Series) -> tuple[object, ...]:
    return tuple(bad.index[bad].tolist())


def _yaml(mend: dict[str, object]) -> str:
    return yaml.safe_dump(mend, sort_keys=False, default_flow_style=True).strip().replace("\n", " ")
