"""Long LLM work in batches that are kept as they are finished: a kill loses one batch, and the next run goes on.

Batches depend on the prompts alone. Each is written whole to a part file; at the end the parts become one file and
one cost report. Before a batch is sent its size is noted, so that what was really sent, twice or once, can be counted.
Answers are kept under a fingerprint of the LLM and of what it was asked: other questions never get old answers.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.files import explained, read_frame, read_json, write_frame, write_json, write_text
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.model import LLM, machine
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.tree import Prompt, packed_rows, tokens_read
from llama4rec_core.progress import Progress

SCORES = {"key": "str", "branch": "int32", "choice": "int32", "log_p": "float32"}  # columns of a score file


def in_batches(
    path: Path,
    what: str,
    batches: Sequence[Sequence[int]],
    tokens: Sequence[int],
    work: Callable[[Sequence[int]], pd.DataFrame],
    asked: str,
    computed_by: str,
    logits: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Do `work` on each batch of request indices, keep each answer, return all of them and leave them in `path`
    (parquet). asked: the `fingerprint` of the requests; answers kept under another one are thrown away. computed_by:
    the `machine`.

    For the cost report `path`.json: how many `tokens` each request reads, at how many places the vocabulary's `logits`
    are computed for it, and, where `work` returns a column tokens_written, how many tokens the LLM wrote.
    """
    if path.exists() and path.with_suffix(".json").exists() and cost(path).get("asked") == asked:
        return read_frame(path)
    parts = path.with_name(f".{path.stem}-parts")
    if parts.exists() and ((parts / "asked.txt").read_text() if (parts / "asked.txt").exists() else "") != asked:
        shutil.rmtree(parts)
    with explained(parts):
        parts.mkdir(parents=True, exist_ok=True)
    write_text(parts / "asked.txt", asked)
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
        write_frame(part, work(batch))
        with explained(parts), open(parts / "seconds.txt", "a", encoding="utf-8") as log:
            log.write(f"{time.monotonic() - started:.3f}\n")
        progress.to(progress.done + len(batch))
    answers = pd.concat([read_frame(part) for part in done], ignore_index=True) if done else pd.DataFrame()
    sent, seconds = _table(parts / "sent.txt", 2), _table(parts / "seconds.txt", 1)
    written = int(answers["tokens_written"].sum()) if "tokens_written" in answers else 0
    spent_in_all = {
        "asked": asked,
        "prompts": sum(map(len, batches)),
        "prompts_sent": int(sent[:, 0].sum()),
        "tokens_read": int(sent[:, 1].sum()),
        "tokens_written": written,
        "logits": written + sum(logits or ()),
        "batches": len(batches),
        "seconds": round(float(seconds.sum()), 1),
        "machine": computed_by,
    }
    write_frame(path, answers)
    write_json(path.with_suffix(".json"), spent_in_all)  # last: with it the answers are whole
    shutil.rmtree(parts, ignore_errors=True)
    return answers


def fingerprint(llm: LLM, *asked: object) -> str:
    """Of an LLM with its checkpoint and of what it is asked: any content with a faithful repr (tokens, texts)."""
    form = str(getattr(llm.model, "dtype", ""))  # of its weights
    return sha256(repr((llm.sha256, llm.checkpoint_sha256, form, *asked)).encode()).hexdigest()


def _table(path: Path, columns: int) -> np.ndarray:
    """The numbers of a log, a row a line; no row where there is none."""
    return np.loadtxt(path, ndmin=2) if path.exists() else np.zeros((0, columns))


def logits_of(prompt: Prompt) -> int:
    """At how many places of a prompt the vocabulary's logits are computed: the end of the prefix once, and every token
    of an answer but its last; choices and told-apart titles need only few tokens' logits."""
    likelihoods = [branch for branch in prompt.branches if not branch.choices and not branch.among]
    at_prefix = any(branch.answer == len(branch.tokens) for branch in likelihoods)
    return at_prefix + sum(branch.answer - (branch.answer == len(branch.tokens)) for branch in likelihoods)


def score(
    llm: LLM, prompts: Sequence[Prompt], path: Path, what: str, row_tokens: int = 512, rows_per_batch: int = 8
) -> pd.DataFrame:
    """Score prompts resumably. Columns: key, branch, choice, log_p; one row per branch (choice 0), or per branch and
    choice."""
    packed = list(packed_rows(prompts, row_tokens))
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
    asked = fingerprint(llm, prompts, row_tokens, rows_per_batch)
    answers = in_batches(path, what, batches, tokens, work, asked, machine(llm), logits)
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

    asked = fingerprint(llm, prompts, max_tokens, lines, per_batch)
    answers = in_batches(path, what, batches, [len(prompt.prefix) for prompt in prompts], work, asked, machine(llm))
    return answers if len(answers) else pd.DataFrame({"key": [], "text": []}, dtype=str)


def cost(path: Path) -> dict:
    return read_json(path.with_suffix(".json"))
