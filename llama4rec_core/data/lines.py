"""Text files with one record a line, read as text with their line numbers as index, so that errors can name a line."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from llama4rec_core.data.dataset import require_columns


def decode(path: Path, encoding: str, unpack: Callable[[bytes], bytes] = bytes) -> str:
    """The whole file. unpack: what makes text of its bytes (`gzip.decompress`). Raises ValueError where it cannot be
    read or unpacked, or is in another encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; check the name and that you may read it") from error
    try:
        return unpack(content).decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); pack it again with gzip") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding} text (byte {error.start}); save it in {encoding}") from error


def numbered_lines(path: Path, encoding: str) -> list[tuple[int, str]]:
    """All lines but blank ones. Only \\n and \\r\\n end a line (latin-1 text may hold other line characters)."""
    lines = decode(path, encoding).replace("\r\n", "\n").removesuffix("\r").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def read_lines(
    path: Path, separator: str, columns: tuple[str, ...], encoding: str = "utf-8", header: bool = False
) -> pd.DataFrame:
    """A file without quoting. header: its first line names its columns the RecBole way, `name:type`."""
    records = {number: line.split(separator) for number, line in numbered_lines(path, encoding)}
    names = columns
    if header and records:
        names = tuple(field.split(":")[0] for field in records.pop(min(records)))
        require_columns(pd.DataFrame(columns=list(names)), columns, str(path))
    return table_of(records, names, separator, path)[list(columns)]


def table_of(records: dict[int, list[str]], columns: tuple[str, ...], separator: str, path: Path) -> pd.DataFrame:
    """Records by line number. Raises ValueError where there is none, or one has another number of fields."""
    expected = f"{', '.join(columns)}, separated by {separator!r}"
    if not records:
        raise ValueError(f"{path} is empty; it needs at least one line of {expected} (below any header)")
    for number, record in records.items():
        if len(record) != len(columns):
            raise ValueError(f"{path}, line {number} has {len(record)} fields; it needs {len(columns)}: {expected}")
    index = pd.Index(records, name="line")
    return pd.DataFrame(list(records.values()), index, list(columns), dtype="str")
