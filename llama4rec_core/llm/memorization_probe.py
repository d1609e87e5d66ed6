"""Has the LLM read the data set itself? A probe to be shown beside every result on public data.

A data set's item file is known by heart, if at all, as lines "id|title". The LLM sees some of them and is asked to go
on after other ids. A title is not to be guessed from its number, so any share of right answers is memory.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llama4rec_core.llm.answers import same_title
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.model import LLM


def probe(
    llm: LLM, ids: Sequence[str], titles: Sequence[str], rng: np.random.Generator, asked: int = 64, shown: int = 5
) -> pd.DataFrame:
    """Ask for the titles of `asked` items by their ids in the data set's own files, after `shown` others with theirs.

    Columns: id, title, answer, known (the same title but for case, accents, punctuation and year).
    """
    drawn = rng.permutation(len(ids))[: asked + shown]
    examples, questions = np.sort(drawn[:shown]), np.sort(drawn[shown:])
    prefix = llm.start + llm.encode("".join(f"{ids[i]}|{titles[i]}\n" for i in examples))
    written = generate(llm, prefix, [llm.encode(f"{ids[i]}|") for i in questions], max_tokens=24)
    return pd.DataFrame(
        {
            "id": [ids[i] for i in questions],
            "title": [titles[i] for i in questions],
            "answer": written,
            "known": [same_title(text, titles[i]) for text, i in zip(written, questions, strict=True)],
        }
    )
