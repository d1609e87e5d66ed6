"""Read the original files of each data set, or the user's own, into a `Dataset`.

Tables are read as text with their line numbers as index, so that `make_dataset` can say where something is wrong.
"""

import csv
import html
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core import paths
from llama4rec_core.data import sources
from llama4rec_core.data.dataset import Dataset, make_dataset, require_columns

# The canonical content hash of ML-100K. It is also the SHA-256 of the official `u.data`.
ML100K_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
# SHA-256 of the official `ratings.dat` of ML-1M.
ML1M_RATINGS_SHA256 = "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f"

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

YEAR = re.compile(r"\((\d{4})\)")
ARTICLES = "The|An?|La|Le|Les|L'|Il|El|Los|Las|Der|Die|Das|Det"
ARTICLE_LAST = re.compile(rf"([^()\s][^()]*), ({ARTICLES})(?=\s*(?:[()]|$))")


def load(
    name: str,
    folder: Path | str | None = None,
    cache: Path | str | None = None,
    url: str | None = None,
    sha256: str | None = None,
    seed: int = 0,
) -> Dataset:
    """One of the paper's data sets, "ml-100k", "ml-1m" or "bookcrossing", from the first source that has it.

    folder: holds the raw files. cache: where downloads go (default: `paths.cache()`). url and sha256: another archive
    than the official one (BookCrossing has none). seed: BookCrossing's history order.
    Raises ValueError for an unknown name, SourceError where no source has the data, and what the reader raises.
    """
    cache = cache or paths.cache()
    elsewhere = {} if url is None and sha256 is None else {"url": url, "sha256": sha256}
    if name == "ml-100k":
        raw = sources.ml100k(cache, folder, **elsewhere)
        return read_ml100k(raw.folder, raw.source)
    if name == "ml-1m":
        raw = sources.ml1m(cache, folder, **elsewhere)
        return read_ml1m(raw.folder, raw.source)
    if name == "bookcrossing":
        raw = sources.bookcrossing(cache, folder, **elsewhere)
        return read_bookcrossing(raw.folder, raw.source, seed)
    raise ValueError(f"the data set {name!r} is unknown; choose ml-100k, ml-1m or bookcrossing, or use read_own")


def read_ml100k(folder: Path | str, source: str = "folder", sha256: str | None = ML100K_SHA256) -> Dataset:
    """MovieLens 100K in the official layout (u.data, u.item, u.user) or RecBole's (ml-100k.inter, .item, .user).

    Both give the same Dataset: titles in reading order without the year, `year`, `genres`; users' age, gender and
    occupation. sha256: the content hash the interactions must have; None takes any. Raises ValueError.
    """
    folder = Path(folder)
    names = sources.layout(folder, sources.ML100K_OFFICIAL, sources.ML100K_RECBOLE)
    data, item, user = (folder / name for name in names)
    if names == sources.ML100K_OFFICIAL:
        interactions = read_lines(data, "\t", ("user", "item", "rating", "time"))
        flags = [f"flag {genre}" for genre in ML100K_GENRES]
        movies = read_lines(item, "|", ("item", "title", "date", "video date", "url", *flags), "latin-1")
        genres = [
            "|".join(genre for genre, flag in zip(ML100K_GENRES, row, strict=True) if flag == "1")
            for row in movies[flags].itertuples(index=False)
        ]
        users = read_lines(user, "|", ("user", "age", "gender", "occupation", "zip"), "latin-1")
    else:
        interactions = read_lines(data, "\t", ("user_id", "item_id", "rating", "timestamp"), header=True)
        interactions.columns = ["user", "item", "rating", "time"]
        movies = read_lines(item, "\t", ("item_id", "movie_title", "release_year", "class"), header=True)
        # RecBole cut the last parentheses off the official title; put them back: "Toy Story" + "1995".
        known = movies["release_year"] != "unkonwn"
        title = (movies["movie_title"] + " (" + movies["release_year"] + ")").where(known, "unknown")
        genres = movies["class"].str.replace(" ", "|")
        movies = movies.assign(item=movies["item_id"], title=title)
        users = read_lines(user, "\t", ("user_id", "age", "gender", "occupation", "zip_code"), header=True)
        users = users.rename(columns={"user_id": "user"})

    dataset = make_dataset(
        "ml-100k",
        interactions,
        _movies(movies, genres),
        users[["user", "age", "gender", "occupation"]],
        (1, 5),
        source,
        *map(str, (data, item, user)),
    )
    if sha256 is not None and dataset.sha256 != sha256:
        raise ValueError(
            f"{data} is not the published ML-100K (content hash {sha256} expected, {dataset.sha256} found); "
            "take the unchanged files, or load these as your own data with read_own"
        )
    return dataset


def read_ml1m(folder: Path | str, source: str = "folder", sha256: str | None = ML1M_RATINGS_SHA256) -> Dataset:
    """MovieLens 1M (ratings.dat, movies.dat, users.dat). sha256: of ratings.dat; None takes any. Raises ValueError."""
    folder = Path(folder)
    ratings, movies, users = (folder / name for name in sources.layout(folder, sources.ML1M_FILES))
    if sha256 is not None:
        try:
            sources.verify(ratings, sha256)
        except sources.SourceError as error:
            raise ValueError(f"{error}; take the unchanged ML-1M, or load these files with read_own") from error
    interactions = read_lines(ratings, "::", ("user", "item", "rating", "time"), "latin-1")
    movie_table = read_lines(movies, "::", ("item", "title", "genres"), "latin-1")
    user_table = read_lines(users, "::", ("user", "gender", "age", "occupation", "zip"), "latin-1")
    occupations = {str(code): name for code, name in enumerate(ML1M_OCCUPATIONS)}
    user_table = user_table.replace({"age": ML1M_AGES, "occupation": occupations})
    return make_dataset(
        "ml-1m",
        interactions,
        _movies(movie_table, movie_table["genres"]),
        user_table[["user", "age", "gender", "occupation"]],
        (1, 5),
        source,
        *map(str, (ratings, movies, users)),
    )


def read_bookcrossing(folder: Path | str, source: str = "folder", seed: int = 0, k: int = 5) -> Dataset:
    """BookCrossing (BX-Book-Ratings.csv, BX-Books.csv, BX-Users.csv), explicit ratings 1-10, k-core.

    Rating 0 means "has the book" and is dropped. Broken lines, repetitions and ratings of books without a title are
    dropped with a warning that counts them. There is no time: all times are 0 and the rows are put into a random order
    by `seed`, so the content hash depends on the seed. Raises ValueError.
    """
    folder = Path(folder)
    ratings, books, readers = (folder / name for name in sources.layout(folder, sources.BOOKCROSSING_FILES))
    interactions, broken_ratings = _read_semicolons(ratings, ("user", "item", "rating"))
    columns = ("item", "title", "author", "year", "publisher", "image s", "image m", "image l")
    items, broken_books = _read_semicolons(books, columns)
    users, broken_users = _read_semicolons(readers, ("user", "location", "age"))

    items = items[["item", "title", "author", "year", "publisher"]].apply(lambda column: column.map(html.unescape))
    items["year"] = items["year"].where(items["year"] != "0", "")
    users["age"] = users["age"].where(users["age"] != "NULL", "")
    users["country"] = users["location"].str.rsplit(",", n=1).str[-1].str.strip()

    interactions = interactions[interactions["rating"] != "0"]
    n_explicit = len(interactions)
    interactions, items = interactions.drop_duplicates(["user", "item"]), items.drop_duplicates("item")
    users = users.drop_duplicates("user")
    titled = interactions["item"].isin(items.loc[items["title"] != "", "item"])
    broken = broken_ratings + broken_books + broken_users
    repeated = n_explicit - len(interactions)
    if broken or repeated or not titled.all():
        warnings.warn(
            f"BookCrossing: skipped {broken} broken lines ({ratings.name} {broken_ratings}, "
            f"{books.name} {broken_books}, {readers.name} {broken_users}), {repeated} repeated ratings and "
            f"{int((~titled).sum())} ratings of books without a title",
            stacklevel=2,
        )
    interactions = k_core(interactions[titled], k)
    interactions = interactions.iloc[np.random.default_rng(seed).permutation(len(interactions))]
    return make_dataset(
        "bookcrossing",
        interactions,
        items,
        users[["user", "age", "country"]],
        (1, 10),
        source,
        *map(str, (ratings, books, readers)),
    )


def read_own(
    interactions_path: Path | str,
    items_path: Path | str,
    users_path: Path | str | None = None,
    scale: tuple[float, float] | None = None,
) -> Dataset:
    """The user's own data from CSV (comma, header, UTF-8) or parquet files.

    interactions: columns user, item, rating and optionally time (whole seconds; without it a user's rows must stand in
    the order of history). items: item, title and any features. users: user and any features. scale: lowest and highest
    rating; None takes them from the data. The Dataset is named after the interactions' file. Raises ValueError.
    """
    interactions = read_table(interactions_path, ("user", "item", "rating"))
    items = read_table(items_path, ("item", "title"))
    users = None if users_path is None else read_table(users_path, ("user",))
    files = map(str, (interactions_path, items_path, users_path))
    return make_dataset(Path(interactions_path).stem, interactions, items, users, scale, "own", *files)


def k_core(interactions: pd.DataFrame, k: int) -> pd.DataFrame:
    """The largest part in which every user and every item has at least k rows; rows keep their order and index.

    interactions: any frame with columns user and item. Raises ValueError for k < 1, or where nothing would remain.
    """
    if k < 1:
        raise ValueError(f"k = {k} makes no k-core; give a whole number of 1 or more")
    users, items = (pd.factorize(interactions[column])[0] for column in ("user", "item"))
    kept = np.arange(len(interactions))
    while len(kept):
        enough = (np.bincount(users[kept])[users[kept]] >= k) & (np.bincount(items[kept])[items[kept]] >= k)
        if enough.all():
            return interactions.iloc[kept]
        kept = kept[enough]
    raise ValueError(f"no interaction is left in the {k}-core of {len(interactions)} interactions; choose a smaller k")


def read_table(path: Path | str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV (index: line numbers) or parquet file (index: row numbers from 0) that has at least these columns."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        try:
            frame = pd.read_parquet(path).reset_index(drop=True).rename_axis("row")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not readable as parquet ({error}); write it with to_parquet") from error
    elif suffix == ".csv":
        frame = _read_csv(path)
    else:
        raise ValueError(f"{path} ends in {suffix!r}; give a file that ends in .csv or .parquet")
    require_columns(frame, columns, str(path))
    if frame.empty:
        raise ValueError(f"{path} is empty; it needs at least one row of {', '.join(columns)}")
    return frame


def read_lines(
    path: Path, separator: str, columns: tuple[str, ...], encoding: str = "utf-8", header: bool = False
) -> pd.DataFrame:
    """A file with one record a line and no quoting, as text, indexed by line number; blank lines are passed over.

    header: the first line names the columns the RecBole way, `name:type`, and must hold all of `columns`.
    Raises ValueError for an empty file, wrong encoding, another header, or a line with another number of fields.
    """
    lines = [(number, line) for number, line in enumerate(_text_lines(path, encoding), start=1) if line]
    if header and lines:
        columns_there = tuple(field.split(":")[0] for field in lines.pop(0)[1].split(separator))
        require_columns(pd.DataFrame(columns=list(columns_there)), columns, str(path))
    else:
        columns_there = columns
    if not lines:
        raise ValueError(f"{path} is empty; it needs at least one line of {', '.join(columns)}")
    rows = [line.split(separator) for _, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != len(columns_there):
            raise ValueError(
                f"{path}, line {number} has {len(row)} fields; it needs {len(columns_there)}, "
                f"separated by {separator!r}: {', '.join(columns_there)}"
            )
    index = pd.Index([number for number, _ in lines], name="line")
    return pd.DataFrame(rows, columns=list(columns_there), index=index, dtype="str")[list(columns)]


def movie_title(text: str) -> tuple[str, str]:
    """Title in reading order, and year: "Postino, Il (1994)" -> ("Il Postino", "1994"); year "" where there is none."""
    text = " ".join(text.split())
    years = list(YEAR.finditer(text))
    title, year = (text[: years[-1].start()].strip(), years[-1].group(1)) if years else (text, "")
    return ARTICLE_LAST.sub(_article_first, title), year


def _article_first(match: re.Match) -> str:
    name, article = match.groups()
    return f"{article}{name}" if article.endswith("'") else f"{article} {name}"


def _movies(movies: pd.DataFrame, genres) -> pd.DataFrame:
    """item, title, year, genres from MovieLens columns; the genre "unknown" becomes ""."""
    titles, years = zip(*map(movie_title, movies["title"]), strict=True)
    table = movies[["item"]].assign(title=titles, year=years, genres=genres)
    return table.assign(genres=table["genres"].where(table["genres"] != "unknown", ""))


def _text_lines(path: Path, encoding: str) -> list[str]:
    """Lines without their ends; only \\n and \\r\\n end a line (latin-1 text may hold other line characters)."""
    return [line.removesuffix("\r") for line in _decode(path, encoding).split("\n")]


def _decode(path: Path, encoding: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; check the name and that you may read it") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding} text (byte {error.start}); save it in {encoding}") from error


def _read_csv(path: Path) -> pd.DataFrame:
    reader = csv.reader(io.StringIO(_decode(path, "utf-8"), newline=""))
    rows, numbers = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise ValueError(f"{path} is empty; its first line must name the columns")
        if len(set(header)) < len(header):
            raise ValueError(f"{path} names a column twice ({', '.join(header)}); every column needs its own name")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num} has {len(row)} fields; it needs {len(header)}, "
                    f"separated by commas: {', '.join(header)}"
                )
            rows.append(row)
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is not CSV ({error}); quote its fields properly") from error
    return pd.DataFrame(rows, columns=header, index=pd.Index(numbers, name="line", dtype="int64"), dtype="str")


def _read_semicolons(path: Path, columns: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """A BookCrossing file (header, `;`, quotes, `\\"`, latin-1) and how many broken lines were skipped.

    Each line is read by itself, so that an unclosed quote spoils no other.
    """
    rows, numbers, broken = [], [], 0
    for number, line in enumerate(_text_lines(path, "latin-1")[1:], start=2):
        if not line:
            continue
        row = next(csv.reader([line], delimiter=";", escapechar="\\"))
        if len(row) == len(columns):
            rows.append([field.strip() for field in row])
            numbers.append(number)
        else:
            broken += 1
    if not rows:
        raise ValueError(f"{path} is empty; it needs a header and lines of {', '.join(columns)}, separated by ';'")
    return pd.DataFrame(rows, columns=list(columns), index=pd.Index(numbers, name="line"), dtype="str"), broken
