"""The user's own data, from CSV (comma, header, UTF-8) or parquet files."""

import csv
import io
from pathlib import Path

import pandas as pd

from llama4rec_core.data.dataset import Dataset, make_dataset
from llama4rec_core.data.lines import decode, table_of


def read_own(
    interactions: Path | str,
    items: Path | str,
    users: Path | str | None = None,
    scale: tuple[float, float] | None = None,
) -> Dataset:
    """A Dataset named after the interactions' file; `make_dataset` says what the files hold. Raises ValueError."""
    tables = [None if path is None else _read_table(Path(path)) for path in (interactions, items, users)]
    return make_dataset(Path(interactions).stem, *tables, scale, "own", (interactions, items, users))


def _read_table(path: Path) -> pd.DataFrame:
    """Indexed by line numbers (CSV) or by row numbers from 0 (parquet)."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(path)
    if suffix != ".parquet":
        raise ValueError(f"{path} ends in {suffix!r}; give a file that ends in .csv or .parquet")
    try:
        return pd.read_parquet(path).reset_index(drop=True).rename_axis("row")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not readable as parquet ({error}); write it with to_parquet") from error


def _read_csv(path: Path) -> pd.DataFrame:
    reader = csv.reader(io.StringIO(decode(path, "utf-8"), newline=""))
    try:
        records = dict((reader.line_num, record) for record in reader if record)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is not CSV ({error}); quote its fields properly") from error
    if not records:
        raise ValueError(f"{path} is empty; its first line must name the columns")
    columns = tuple(name.strip() for name in records.pop(min(records)))
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path} names a column twice ({', '.join(columns)}); every column needs its own name")
    return table_of(records, columns, ",", path)
