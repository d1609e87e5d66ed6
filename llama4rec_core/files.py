"""Files appear whole or not at all: written aside, then renamed. A failed write says so in one sentence."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

ELSEWHERE = "set LLAMA4REC_RESULTS (or LLAMA4REC_CACHE) to another folder"
LOCKED = f"the folder may not be written to: change its permissions, or {ELSEWHERE}"
REASONS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "the file would pass this system's size limit: raise the limit (ulimit -f)",
    errno.EACCES: LOCKED,
    errno.EPERM: LOCKED,
    errno.EROFS: f"the file system is read-only: {ELSEWHERE}",
}


class StorageError(OSError):
    """A result could not be written. Whatever was complete before stays and is used by the next run."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's write errors into one sentence that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None)
        if code is None:  # libraries that wrap the system's error in their own
            code = next((c for c in REASONS if f"os error {c}" in str(error) or os.strerror(c) in str(error)), None)
        if not isinstance(error, OSError) and code is None:
            raise
        said = f"could not write {path}: {REASONS.get(code, str(error))}, then run the same command again; "
        raise StorageError(code, said + "what is already computed is kept") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; it becomes `path` when the block ends well and vanishes when not."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder of files; a folder that stands at `path` (of an earlier try) is replaced."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    old = aside.with_name(f"{aside.name}.old")
    with explained(path):
        try:
            aside.mkdir(parents=True)
            yield aside
            if path.exists():
                os.replace(path, old)
            os.replace(aside, path)
        finally:
            if old.exists() and not path.exists():
                os.replace(old, path)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> Path:
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: object) -> Path:
    """numpy's numbers and arrays among the content become plain ones."""
    return write_text(path, json.dumps(content, indent=1, default=lambda value: value.tolist()) + "\n")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write_frame(path: Path, frame: pd.DataFrame) -> Path:
    """Parquet or CSV, by the ending."""
    with whole(path) as aside:
        if path.suffix == ".parquet":
            frame.to_parquet(aside, index=False)
        else:
            frame.to_csv(aside, index=False)
    return path


def read_frame(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def write_tensors(path: Path, tensors: dict) -> Path:
    from safetensors.torch import save_file  # imports torch, which takes seconds

    with whole(path) as aside:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, aside)
    return path


def read_tensors(path: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(path)
