"""The user's own data: CSV (also .gz) or parquet files, read as the preset's `data` section says."""

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import csv as arrow_csv

from llama4rec_core.data.bookcrossing import k_core
from llama4rec_core.data.dataset import TABLES, Dataset, make_dataset, require_columns
from llama4rec_core.data.lines import decode, table_of

SEPARATORS = ",;\t|"
LARGE = 50_000_000  # bytes of a CSV that is not read line by line
HEADERS = {  # what a column may also be called
    "user": ("userId", "user_id", "userid", "UserID"),
    "item": ("itemId", "item_id", "itemid", "ItemID", "movieId", "movie_id"),
    "rating": ("Rating", "score"),
    "time": ("timestamp", "Timestamp", "datetime", "date"),
    "title": ("Title", "name"),
}


def read_own(
    interactions: Path | str,
    items: Path | str,
    users: Path | str | None = None,
    scale: tuple[float, float] | None = None,
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    separator: str | None = None,
    duplicates: str = "error",
    untitled: str = "error",
    min_interactions: int = 1,
    min_of_user: int = 1,
) -> Dataset:
    """A Dataset named after the interactions' file; `make_dataset` says what the files hold. Raises ValueError.

    columns: ours (user, item, rating, time, title) -> what the files call them (the first of several that a file has);
    HEADERS are understood anyway.
    separator: None guesses it from a CSV's first line. duplicates: which interaction of a user with an item is kept
    ("first", "last", or "error"). untitled: "drop" leaves out interactions with items without a title.
    min_interactions: users and items with fewer are left out, until all have as many. min_of_user: users with fewer
    than these are, too.
    """
    tables = [read_table(path, columns, separator) for path in (interactions, items, users) if path is not None]
    tables[0] = tidy(*tables[:2], duplicates, untitled)
    require_columns(tables[0], TABLES["interactions"], interactions)
    if max(min_interactions, min_of_user) > 1:
        tables[0] = k_core(stripped(tables[0]), min_interactions, min_of_user)
    tables += [None] * (3 - len(tables))
    return make_dataset(Path(interactions).name.split(".")[0], *tables, scale, "own", (interactions, items, users))


def read_table(path: Path | str, columns: Mapping[str, Sequence[str]] | None = None, separator: str | None = None):
    """A file as text, our names for its columns, indexed by line numbers (CSV) or by row numbers from 0 (parquet)."""
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:] if suffix.lower() in (".csv", ".tsv", ".txt", ".gz")]
    if suffixes and suffixes != [".gz"]:
        table = _read_large(path, separator, columns or {}) if _is_large(path) else None
        table = _read_csv(path, separator) if table is None else table
    elif path.suffix.lower() == ".parquet":
        try:
            table = pd.read_parquet(path).reset_index(drop=True).rename_axis("row")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not readable as parquet ({error}); write it with to_parquet") from error
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}; give a file that ends in .csv or .parquet")
    for ours, usual in HEADERS.items():
        named = [name for name in (columns or {}).get(ours, ()) if name in table]
        if named and named[0] != ours and ours in table:
            table = table.drop(columns=ours)  # the user names another one
        found = named or [name for name in usual if name in table and ours not in table]
        table = table.rename(columns={found[0]: ours}) if found else table
    if "time" in table and table["time"].dtype.kind not in "iuf":
        table["time"] = _seconds(table["time"])
    return table


def tidy(interactions: pd.DataFrame, items: pd.DataFrame, duplicates: str, untitled: str) -> pd.DataFrame:
    """The interactions without those that the two settings leave out."""
    if untitled == "drop" and {"item", "title"} <= set(items):
        interactions, items = stripped(interactions), stripped(items)
        interactions = interactions[interactions["item"].isin(items.loc[items["title"] != "", "item"])]
    if duplicates != "error" and {"user", "item"} <= set(interactions):
        interactions = stripped(interactions).drop_duplicates(["user", "item"], keep=duplicates)
    return interactions


def stripped(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its users, items and titles as text, without blanks around them."""
    names = [name for name in ("user", "item", "title") if name in table]
    return table.assign(**{name: table[name].astype("str").fillna("").str.strip() for name in names})


def _seconds(written: pd.Series) -> pd.Series:
    """Dates such as 2026-11-26 or 2026-11-26T12:30:00Z as seconds since 1970, UTC where no zone is told; all else as it
    is."""
    text = written.astype("str")
    dated = text.str.fullmatch(r"\s*\d{4}-\d\d-\d\d([T ].*)?\s*")
    times = pd.to_datetime(text.where(dated).str.strip(), utc=True, format="ISO8601", errors="coerce")
    seconds = (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    return seconds.astype("Int64").astype("str").where(times.notna(), text)


def _is_large(path: Path) -> bool:
    return path.exists() and path.stat().st_size > LARGE and path.suffix.lower() != ".gz"


def _read_large(path: Path, separator: str | None, columns: Mapping[str, Sequence[str]]) -> pd.DataFrame | None:
    """A large CSV, column by column: the same table, its ratings and times as numbers. None where a line is not as it
    must be: then `_read_csv` says which."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().rstrip("\r\n")
    separator = separator or _separator_of(first)
    kinds = {"rating": pa.float64(), "time": pa.int64()}
    known = {name: kind for ours, kind in kinds.items() for name in (ours, *HEADERS[ours], *columns.get(ours, ()))}
    names = [name.strip().strip('"') for name in first.split(separator)]
    for numbers in (known, {}):  # times may be dates
        types = {name: numbers.get(name, pa.string()) for name in names}
        try:
            table = arrow_csv.read_csv(
                path,
                parse_options=arrow_csv.ParseOptions(delimiter=separator, ignore_empty_lines=False),
                convert_options=arrow_csv.ConvertOptions(column_types=types, null_values=[""]),
            )
        except pa.ArrowInvalid:
            continue
        texts = [column for column in table.columns if column.type == pa.string()]
        # where line numbers would be others: blank lines, line breaks in fields
        odd = [*(pc.equal(text, "") for text in texts[:1]), *(pc.match_substring(text, "\n") for text in texts)]
        if table.column_names != names or len(set(names)) < len(names) or any(pc.any(each).as_py() for each in odd):
            return None
        table = table.to_pandas(split_blocks=True, self_destruct=True)
        return table.set_axis(pd.RangeIndex(2, len(table) + 2, name="line"))
    return None


def _separator_of(first_line: str) -> str:
    return max(SEPARATORS, key=first_line.count)  # the comma where there is none


def _read_csv(path: Path, separator: str | None) -> pd.DataFrame:
    text = decode(path, "utf-8", gzip.decompress if path.suffix.lower() == ".gz" else bytes)
    separator = separator or _separator_of(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        records = dict((reader.line_num, record) for record in reader if record)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is not CSV ({error}); quote its fields properly") from error
    if not records:
        raise ValueError(f"{path} is empty; its first line must name the columns")
    columns = tuple(name.strip() for name in records.pop(min(records)))
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path} names a column twice ({', '.join(columns)}); every column needs its own name")
    return table_of(records, columns, separator, path)
