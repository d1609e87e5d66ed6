"""The feature columns of users and items as numbers: codes, and one sparse product that looks up all of a row's."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse

from .graph import Sparse

NAMES = ("user_id", "item_id", "title", "zip_code")  # columns that name a row: its number already is a feature


class Field(NamedTuple):
    """One feature of R rows: `codes` int64 [R, M] out of `size` values. M > 1: several values a row, padded with 0."""

    name: str
    codes: np.ndarray
    size: int


def encode(name: str, column: pd.Series) -> Field:
    """Number a column's values from 1 in sorted order. "|" separates several values; an empty row has code 0."""
    texts = ["" if pd.isna(value) else str(value) for value in column]
    parts = [sorted({part.strip() for part in text.split("|")} - {""}) for text in texts]
    code = {value: n for n, value in enumerate(sorted({p for row in parts for p in row}), start=1)}
    codes = np.zeros((len(parts), max(map(len, parts), default=0) or 1), dtype=np.int64)
    for row, values in zip(codes, parts, strict=True):
        row[: len(values)] = [code[value] for value in values]
    return Field(name, codes, len(code) + 1)


def fields_of(side: str, count: int, features: pd.DataFrame | None) -> list[Field]:
    """The fields of `count` users or items (side "user" or "item"): the id, then each feature column in its order."""
    columns = [] if features is None else [c for c in features.columns if c not in NAMES]
    own = Field(side, np.arange(count)[:, None], count)
    return [own] + [encode(f"{side}_{c}".replace(".", "_"), features[c]) for c in columns]  # torch: no dots


def pool(fields: list[Field], first: int, size: int) -> tuple[Sparse, Sparse]:
    """The mean over each field's values as a sparse matrix [R F, size], and its transpose.

    Row r F + f is field f of row r. Column first + c is code c of the first field; the others follow. In a field of
    several values the padding, code 0, counts for nothing.
    """
    count = len(fields[0].codes)
    rows, columns, values = [], [], []
    for f, field in enumerate(fields):
        real = (field.codes > 0) | (field.codes.shape[1] == 1)
        row, place = np.nonzero(real)
        rows.append(row * len(fields) + f)
        columns.append(first + field.codes[row, place])
        values.append(1 / real.sum(axis=1)[row])
        first += field.size
    values, rows, columns = (np.concatenate(part) for part in (values, rows, columns))
    matrix = scipy.sparse.csr_array((values, (rows, columns)), shape=(count * len(fields), size))
    return Sparse(matrix), Sparse(matrix.T.tocsr())
