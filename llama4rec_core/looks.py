"""Looks at test: a record of each, and the list of all that were ever made.

Whoever scores test cases leaves a record. Publishing merges the records of a run into `results/test_looks.csv`.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from llama4rec_core import paths
from llama4rec_core.files import write_json, write_text
from llama4rec_core.run import Run

COLUMNS = ["date", "commit", "preset", "configuration", "what", "why"]
EXEMPT = "smoke"  # the preset whose numbers mean nothing


def look(run: Run, what: str, why: str) -> dict[str, str]:
    """The record of one look at test, made now: `what` was scored ("LightGCN-s0"), and why.

    It is kept in the run's folder `looks` as well, which no rule makes anew, so that a row that is made again does not
    take the earlier look off the record. Keys: `COLUMNS`. `date` is the day in UTC, `configuration` the first 12 hex
    digits of the SHA-256 of the run's settings.json. Raises FileNotFoundError where the run has no settings.json.
    """
    settings = hashlib.sha256(run.path("settings.json").read_bytes()).hexdigest()
    now = datetime.now(UTC).date().isoformat(), paths.commit(), run.preset.name, settings[:12]
    record = dict(zip(COLUMNS, (*now, what, why), strict=True))
    name = hashlib.sha256(repr(record).encode()).hexdigest()[:16]
    write_json(run.path(f"looks/{name}.json"), record)
    return record


def merge(records: Iterable[dict], committed: Path) -> pd.DataFrame:
    """Add records to the CSV `committed`, sorted by date and then the rest, each once; returns all of them.

    Looks of the preset EXEMPT are left out. Raises ValueError where a record or the file lacks a column.
    """
    added = [record for record in records if record.get("preset") != EXEMPT]
    for record in added:
        if set(record) != set(COLUMNS):
            raise ValueError(f"a look at test has the keys {', '.join(COLUMNS)}, not {', '.join(record)}")
    table = pd.concat([read(committed), pd.DataFrame(added, columns=COLUMNS, dtype=str)])
    table = table.drop_duplicates().sort_values(COLUMNS, ignore_index=True)
    if len(table):
        write_text(committed, table.to_csv(index=False, lineterminator="\n"))
    return table


def read(committed: Path) -> pd.DataFrame:
    """All looks on record, columns `COLUMNS` as text; none where there is no file. Raises ValueError for others."""
    if not committed.exists():
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    table = pd.read_csv(committed, dtype=str, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{committed.name}: the columns are {', '.join(COLUMNS)}, not {', '.join(table.columns)}")
    return table


def count(looks: pd.DataFrame) -> int:
    """How often test was looked at. The seeds of one configuration, commit and reason are one look."""
    of = looks["what"].map(lambda what: re.sub(r"-s\d+\b", "", what))
    return len(looks.assign(what=of).drop_duplicates(["commit", "preset", "configuration", "what", "why"]))
