"""Rating prediction by the LLM: the probabilities of the scale's ratings after each item, read in one tree a user."""

from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.data.histories import Histories
from llama4rec_core.llm import batches
from llama4rec_core.llm.examples import rating_groups, rating_prompt
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.prompts import Scale
from llama4rec_core.llm.titles import Titles


def rate(
    llm: LLM,
    histories: Histories,
    titles: Titles,
    asked: Predictions,
    hints: Hints | None,
    length: int,
    scale: tuple[float, float],
    path: Path,
    what: str,
    row_tokens: int,
) -> pd.DataFrame:
    """What the LLM predicts for every case: columns part, user, item, rating, backbone (clipped to the scale), expected
    (over the scale), likeliest.

    asked: the cases with a backbone's ratings. hints: what prompts carry (None: LLM' or untuned). titles: as prompts
    quote them. length: rated titles of the history. The LLM's own answers are left in `path`, resumably.
    """
    groups = rating_groups(asked.cases, asked.ratings)
    prompts = [rating_prompt(llm, histories, titles, key, rows, length, hints) for key, rows in groups]
    scores = batches.score(llm, prompts, path, what, row_tokens)
    by_key = {key: rows.sort_values(["branch", "choice"])["log_p"].to_numpy() for key, rows in scores.groupby("key")}
    told, out = Scale.of(llm, histories.scale), []
    for key, rows in groups:
        log_p = told.log_p(by_key[key])  # [M, R]
        backbone = np.clip(rows["predicted"].to_numpy(), *scale)
        expected, likeliest = np.exp(log_p) @ histories.values, histories.values[log_p.argmax(axis=1)]
        frame = rows[["part", "user", "item", "rating"]].reset_index(drop=True)
        out.append(frame.assign(backbone=backbone, expected=expected, likeliest=likeliest))
    return pd.concat(out, ignore_index=True)
