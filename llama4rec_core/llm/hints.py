"""Prompt augmentation (4.3): what the conventional model adds to the LLM's prompt, in words.

Two things join a user's prompt: the history of the most similar user (equation 4: the largest cosine of the backbone's
user embeddings) and the backbone's own prediction (its top list in its order, or its rating).

What a prompt may quote ends where its case's history ends. For a training prompt that is before the user's window, for
the similar user too, and all numbers come from the out-of-fold backbone, which was fitted without any window.
Shapes: U users, C candidates.
"""

from dataclasses import dataclass

import numpy as np

from llama4rec_core.data.histories import Histories
from llama4rec_core.llm.prompts import Hint


@dataclass(frozen=True)
class Hints:
    """What one fitted backbone knows: who is similar to whom, and up to where that user may be quoted."""

    similar: np.ndarray  # int64 [U], equation 4 (`aggregation.most_similar_user` of the backbone's embeddings)
    quoted: np.ndarray  # int64 [U], how many of a user's first items may be quoted (N(u), or N(u) without the window)
    length: int  # at most this many of them, the latest

    def ranking(self, histories: Histories, user: int, candidates: np.ndarray) -> Hint:
        """Top-k: the similar user's items and the very candidates that are asked about, in the backbone's order."""
        other = int(self.similar[user])
        return Hint(
            similar=histories.history(other, int(self.quoted[other]), self.length),
            prediction=np.asarray(candidates),
        )

    def rating(self, histories: Histories, user: int) -> list[tuple[int, int]]:
        """Rating: the similar user's rated items (the backbone's predicted rating stands with each target)."""
        other = int(self.similar[user])
        return histories.rated(other, int(self.quoted[other]), self.length)
