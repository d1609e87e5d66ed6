"""Long LLM work in batches that are kept as they are finished: a kill loses one batch, and the next run goes on.

Batches depend on the prompts alone. Each is written whole to a part file; at the end the parts become one file and
one cost report. Before a batch is sent its size is noted, so that what was really sent, twice or once, can be counted.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.files import explained, read_frame, read_json, write_frame, write_json
from llama4rec_core.llm.engine import Prompt, generate, rows, score_row, tokens_read
from llama4rec_core.llm.weights import LLM
from llama4rec_core.progress import Progress

SCORES = {"key": "str", "branch": "int32", "choice": "int32", "log_p": "float32"}  # columns of a score file


def in_batches(
    path: Path,
    what: str,
    batches: Sequence[Sequence[int]],
    tokens: Sequence[int],
    work: Callable[[Sequence[int]], pd.DataFrame],
    logits: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Do `work` on each batch of request indices, keep each answer, return all of them and leave them in `path`
    (parquet).

    For the cost report `path`.json: how many `tokens` each request reads, at how many places the vocabulary's `logits`
    are computed for it, and, where `work` returns a column tokens_written, how many tokens the LLM wrote.
    """
    if path.exists():
        return read_frame(path)
    parts = path.with_name(f".{path.stem}-parts")
    with explained(parts):
        parts.mkdir(parents=True, exist_ok=True)
    done = [parts / f"{b:05d}.parquet" for b in range(len(batches))]
    finished = sum(len(batch) for part, batch in zip(done, batches, strict=True) if part.exists())
    progress = Progress(what, sum(map(len, batches)), finished, "prompts")
    for part, batch in zip(done, batches, strict=True):
        if part.exists():
            continue
        started = time.monotonic()
        with explained(parts), open(parts / "sent.txt", "a", encoding="utf-8") as log:
            log.write(f"{len(batch)} {sum(tokens[i] for i in batch)}\n")
            log.flush()
            os.fsync(log.fileno())
        found = work(batch)
        written = int(found["tokens_written"].sum()) if "tokens_written" in found else 0
        seen = written + (sum(logits[i] for i in batch) if logits is not None else 0)
        write_frame(part, found)
        with explained(parts), open(parts / "done.txt", "a", encoding="utf-8") as log:
            log.write(f"{time.monotonic() - started:.3f} {written} {seen}\n")
        progress.to(progress.done + len(batch))
    answers = pd.concat([read_frame(part) for part in done], ignore_index=True) if done else pd.DataFrame()
    sent, spent = (_table(parts / name) for name in ("sent.txt", "done.txt"))
    cost = {
        "prompts": sum(map(len, batches)),
        "prompts_sent": int(sent[:, 0].sum()),
        "tokens_read": int(sent[:, 1].sum()),
        "tokens_written": int(spent[:, 1].sum()),
        "logits": int(spent[:, 2].sum()),
        "batches": len(batches),
        "seconds": round(float(spent[:, 0].sum()), 1),
    }
    write_json(path.with_suffix(".json"), cost)
    write_frame(path, answers)
    shutil.rmtree(parts, ignore_errors=True)
    return answers


def _table(path: Path) -> np.ndarray:
    """The numbers of a log, a row a line; three columns of nothing where there is none."""
    return np.loadtxt(path, ndmin=2) if path.exists() else np.zeros((0, 3))


def logits_of(prompt: Prompt) -> int:
    """At how many places of a prompt the vocabulary's logits are computed: the end of the prefix once, and every token
    of an answer but its last; choices need only their own."""
    likelihoods = [branch for branch in prompt.branches if not branch.choices]
    at_prefix = any(branch.answer == len(branch.tokens) for branch in likelihoods)
    return at_prefix + sum(branch.answer - (branch.answer == len(branch.tokens)) for branch in likelihoods)


def score(
    llm: LLM, prompts: Sequence[Prompt], path: Path, what: str, row_tokens: int = 512, rows_per_batch: int = 8
) -> pd.DataFrame:
    """Score prompts resumably. Columns: key, branch, choice, log_p; one row per branch (choice 0), or per branch and
    choice."""
    packed = list(rows(prompts, row_tokens))
    first = np.cumsum(
        [0, *map(len, packed)]
    )  # prompts are numbered in packed order, so that a batch is a range of rows
    order = [index for row in packed for index in row]
    groups = [range(start, min(start + rows_per_batch, len(packed))) for start in range(0, len(packed), rows_per_batch)]
    batches = [range(first[group[0]], first[group[-1] + 1]) for group in groups]
    row_at = dict(zip(batches, groups, strict=True))

    def work(batch: Sequence[int]) -> pd.DataFrame:
        out = []
        for row in row_at[batch]:
            asked = [prompts[i] for i in packed[row]]
            for prompt, branches in zip(asked, score_row(llm, asked), strict=True):
                out += [
                    (prompt.key, b, c, value) for b, values in enumerate(branches) for c, value in enumerate(values)
                ]
        return pd.DataFrame(out, columns=list(SCORES)).astype(SCORES)

    tokens = [read for row in packed for read in tokens_read([prompts[i] for i in row])]
    logits = [logits_of(prompts[i]) for i in order]
    answers = in_batches(path, what, batches, tokens, work, logits)
    return answers if len(answers) else pd.DataFrame(columns=list(SCORES)).astype(SCORES)


def write(
    llm: LLM, prompts: Sequence[Prompt], path: Path, what: str, max_tokens: int, lines: int, per_batch: int = 16
) -> pd.DataFrame:
    """Let the LLM write after each prompt's prefix, resumably; like lengths together. Columns: key, text."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].prefix), prompts[i].key))
    batches = [order[start : start + per_batch] for start in range(0, len(order), per_batch)]

    def work(batch: Sequence[int]) -> pd.DataFrame:
        said = generate(llm, (), [prompts[i].prefix for i in batch], max_tokens, lines)
        written = [len(llm.encode(text)) for text in said]
        return pd.DataFrame({"key": [prompts[i].key for i in batch], "text": said, "tokens_written": written})

    answers = in_batches(path, what, batches, [len(prompt.prefix) for prompt in prompts], work)
    return answers if len(answers) else pd.DataFrame({"key": [], "text": []}, dtype=str)


def cost(path: Path) -> dict:
    return read_json(path.with_suffix(".json"))
