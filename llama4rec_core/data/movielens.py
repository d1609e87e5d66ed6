"""MovieLens 100K and 1M (GroupLens): where their files come from, and how they are read.

ML-100K comes in the official layout or in RecBole's, out of its wheel. Both give the same Dataset: titles in reading
order without the year, `year`, `genres`; users' age, gender and occupation.
"""

import re
import warnings
from itertools import compress
from pathlib import Path

import pandas as pd
import pooch

from llama4rec_core.data.dataset import Dataset, make_dataset
from llama4rec_core.data.download import RawFiles, archive, first_source, layout, wheel_member
from llama4rec_core.data.lines import read_lines

ML100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ML100K_ARCHIVE_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
ML100K_OFFICIAL = ("u.data", "u.item", "u.user")
ML100K_RECBOLE = {
    "ml-100k.inter": {"user_id": "user", "item_id": "item", "rating": "rating", "timestamp": "time"},
    "ml-100k.item": {"item_id": "item", "movie_title": "title", "release_year": "year", "class": "genres"},
    "ml-100k.user": {"user_id": "user", "age": "age", "gender": "gender", "occupation": "occupation"},
}  # RecBole's names of columns, and ours
ML100K_RECBOLE_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
ML100K_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"  # content hash = SHA-256 of u.data
ML1M_URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
ML1M_ARCHIVE_SHA256 = "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"
ML1M_FILES = {
    "ratings.dat": ("user", "item", "rating", "time"),
    "movies.dat": ("item", "title", "genres"),
    "users.dat": ("user", "gender", "age", "occupation", "zip"),
}
ML1M_COUNTS = (1_000_209, 6_040, 3_706)  # ratings, users, rated films
ML1M_RATINGS_SHA256 = "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f"  # of ratings.dat

ML100K_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()  # the flags of u.item, in order
ML1M_AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+"}
ML1M_OCCUPATIONS = (
    "other|academic/educator|artist|clerical/admin|college/grad student|customer service|doctor/health care|"
    "executive/managerial|farmer|homemaker|K-12 student|lawyer|programmer|retired|sales/marketing|scientist|"
    "self-employed|technician/engineer|tradesman/craftsman|unemployed|writer"
).split("|")  # by code 0-20

LAST_YEAR = re.compile(r"(.*)\((\d{4})\)")
ARTICLES = "The|An?|La|Le|Les|L'|Il|El|Los|Las|Der|Die|Das|Det"
ARTICLE_LAST = re.compile(rf"([^()\s][^()]*), ({ARTICLES})(?=\s*(?:[()]|$))")


def fetch_ml100k(
    cache: Path, folder: Path | str | None = None, url: str = ML100K_URL, sha256: str = ML100K_ARCHIVE_SHA256
) -> RawFiles:
    """The raw files from the folder the user names, the official archive, or the wheel of RecBole 1.2.1.

    What the cache already holds comes before anything that needs the network. Raises SourceError.
    """
    from_archive, from_wheel = cache / "ml-100k" / "archive", cache / "ml-100k" / "wheel"

    def wheel() -> Path:
        for name, digest in ML100K_RECBOLE_SHA256.items():
            wheel_member("recbole", "1.2.1", f"recbole/dataset_example/ml-100k/{name}", digest, from_wheel)
        return from_wheel

    sources = {"archive": lambda: archive(url, sha256, ML100K_OFFICIAL, from_archive), "wheel": wheel}
    if (from_wheel / "ml-100k.user").exists() and not (from_archive / "u.user").exists():  # each the last to be written
        sources = dict(reversed(sources.items()))
    return first_source("ML-100K", folder, (ML100K_OFFICIAL, ML100K_RECBOLE), sources)


def fetch_ml1m(
    cache: Path, folder: Path | str | None = None, url: str = ML1M_URL, sha256: str = ML1M_ARCHIVE_SHA256
) -> RawFiles:
    """The raw files from the folder the user names, or the official archive. Raises SourceError."""
    sources = {"archive": lambda: archive(url, sha256, ML1M_FILES, cache / "ml-1m" / "archive")}
    return first_source("ML-1M", folder, (ML1M_FILES,), sources)


def read_ml100k(folder: Path | str, source: str = "folder", sha256: str | None = ML100K_SHA256) -> Dataset:
    """MovieLens 100K in the official layout (u.data, u.item, u.user) or RecBole's (ml-100k.inter, .item, .user).

    sha256: the content hash the interactions must have; None takes any. Raises ValueError.
    """
    files = data, item, user = layout(folder, ML100K_OFFICIAL, ML100K_RECBOLE)
    if data.name in ML100K_OFFICIAL:
        interactions = read_lines(data, "\t", ("user", "item", "rating", "time"))
        flags = [f"flag {genre}" for genre in ML100K_GENRES]
        movies = read_lines(item, "|", ("item", "title", "date", "video date", "url", *flags), "latin-1")
        movies["genres"] = ["|".join(compress(ML100K_GENRES, row)) for row in (movies[flags] == "1").to_numpy()]
        users = read_lines(user, "|", ("user", "age", "gender", "occupation", "zip"), "latin-1")
    else:
        interactions, movies, users = (
            read_lines(path, "\t", tuple(names), header=True).rename(columns=names)
            for path, names in zip(files, ML100K_RECBOLE.values(), strict=True)
        )
        # RecBole cut the last parentheses off the official title; put them back: "Toy Story" + "1995".
        known = movies["year"] != "unkonwn"
        movies["title"] = (movies["title"] + " (" + movies["year"] + ")").where(known, "unknown")
        movies["genres"] = movies["genres"].str.replace(" ", "|")
    dataset = _dataset("ml-100k", interactions, movies, users, source, files)
    if sha256 is not None and dataset.sha256 != sha256:
        raise ValueError(
            f"{data} is not the published ML-100K (content hash {sha256} expected, {dataset.sha256} found); "
            "take the unchanged files, or load these as your own data with read_own"
        )
    return dataset


def read_ml1m(folder: Path | str, source: str = "folder", sha256: str | None = ML1M_RATINGS_SHA256) -> Dataset:
    """MovieLens 1M (ratings.dat, movies.dat, users.dat). sha256: of ratings.dat; None takes any. Raises ValueError.

    Another file in a folder that the user names is taken, with a warning, where it has ML1M_COUNTS.
    """
    files = layout(folder, ML1M_FILES)
    other = sha256 is not None and (digest := pooch.file_hash(files[0])) != sha256
    wrong = "" if not other else f"{files[0]} is not the published file: SHA-256 {sha256} expected, {digest} found"
    if wrong and source != "folder":
        raise ValueError(f"{wrong}; take the unchanged ML-1M, or load these files with read_own")
    interactions, movies, users = (
        read_lines(path, "::", columns, "latin-1") for path, columns in zip(files, ML1M_FILES.values(), strict=True)
    )
    occupations = {str(code): name for code, name in enumerate(ML1M_OCCUPATIONS)}
    users = users.replace({"age": ML1M_AGES, "occupation": occupations})
    dataset = _dataset("ml-1m", interactions, movies, users, source, files)
    if wrong:
        counts = len(dataset.interactions), dataset.n_users, dataset.n_items
        if counts != ML1M_COUNTS:
            counted = [f"{n:,} {what}" for n, what in zip(counts, ("ratings", "users", "rated films"), strict=True)]
            raise ValueError(
                f"{wrong}, and it has {', '.join(counted)}; take the unchanged ML-1M, or load these files with read_own"
            )
        warnings.warn(f"{wrong}; it is taken, for it has as many ratings, users and films", stacklevel=2)
    return dataset


def movie_title(text: str) -> tuple[str, str]:
    """Title in reading order, and year: "Postino, Il (1994)" -> ("Il Postino", "1994"); year "" where there is none."""
    text = " ".join(text.split())
    dated = LAST_YEAR.match(text)
    title, year = (dated[1].strip(), dated[2]) if dated else (text, "")
    return ARTICLE_LAST.sub(lambda name: name[2] + ("" if name[2].endswith("'") else " ") + name[1], title), year


def _dataset(name: str, interactions: pd.DataFrame, movies: pd.DataFrame, users: pd.DataFrame, source: str, files):
    movies["title"], movies["year"] = zip(*map(movie_title, movies["title"]), strict=True)
    movies["genres"] = movies["genres"].replace("unknown", "")
    movies, users = movies[["item", "title", "year", "genres"]], users[["user", "age", "gender", "occupation"]]
    return make_dataset(name, interactions, movies, users, (1, 5), source, files)
