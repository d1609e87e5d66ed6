"""Sequential recommendation: CL4SRec, SASRec with a contrastive loss added."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .fit import TrainingData, info_nce
from .sasrec import SASRec
from .transformer import TransformerSettings


@dataclass(frozen=True)
class CL4SRecSettings(TransformerSettings):
    crop: float = 0.6  # eta: share of a sequence that a crop keeps
    mask: float = 0.3  # gamma: share of its items that are masked
    reorder: float = 0.6  # beta: share of it that is shuffled
    temperature: float = 0.2  # of InfoNCE
    contrast: float = 0.03  # weight of InfoNCE in the loss
    epochs: int = 60  # at most; patience ends the training
    patience: int = 4  # epochs without a better validation NDCG@10


def crop(rows: np.ndarray, n: np.ndarray, share: float, pad: int, rng: np.random.Generator) -> np.ndarray:
    """A random run of max(1, floor(share n)) items of each sequence, rows [W, L] of n [W] items each."""
    size = np.maximum((share * n).astype(np.int64), 1)  # [W]
    start = rng.integers(0, np.maximum(n - size, 0) + 1)  # [W]
    place = np.arange(rows.shape[1])  # [L]
    piece = np.take_along_axis(rows, np.minimum(start[:, None] + place, rows.shape[1] - 1), axis=1)
    return np.where(place < size[:, None], piece, pad)


def masked(rows: np.ndarray, n: np.ndarray, share: float, mask: int, rng: np.random.Generator) -> np.ndarray:
    """The sequences with floor(share n) random items replaced by `mask`, [W, L]."""
    place = np.arange(rows.shape[1])
    draw = np.where(place < n[:, None], rng.random(rows.shape), np.inf)  # [W, L]
    order = draw.argsort(axis=1).argsort(axis=1)  # rank of each position's draw; positions without an item come last
    return np.where(order < (share * n).astype(np.int64)[:, None], mask, rows)


def reorder(rows: np.ndarray, n: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The sequences with a random run of floor(share n) items shuffled, [W, L]."""
    size = (share * n).astype(np.int64)
    start = rng.integers(0, np.maximum(n - size, 0) + 1)[:, None]  # [W, 1]
    place = np.arange(rows.shape[1])
    inside = (place >= start) & (place < start + size[:, None])  # [W, L]
    key = np.where(inside, start + rng.random(rows.shape) * (size[:, None] - 1e-9), place)
    return np.take_along_axis(rows, key.argsort(axis=1, kind="stable"), axis=1)


class CL4SRec(nn.Module):
    """CL4SRec (Xie et al., ICDE 2022): loss = SASRec's + contrast InfoNCE(s', s'').

    s' and s'' are the states after two versions of a sequence. Each version is made by crop, mask or reorder, drawn for
    each sequence. The negatives are the second versions of the batch's other sequences, and states are compared by
    cosine, as in SGL (the paper: both versions, and the dot product).
    """

    def __init__(self, data: TrainingData, settings: CL4SRecSettings):
        super().__init__()
        self.settings, self.recommender = settings, SASRec(data, settings, tokens=1)
        self.pad, self.mask = data.n_items, data.n_items + 1

    def examples(self, rng):
        """SASRec's windows [W, L + 1], two versions of each [W, L], and its sampled negatives where it has any."""
        table, *negatives = self.recommender.examples(rng)
        rows = table[:, :-1]
        return table, self._version(rows, rng), self._version(rows, rng), *negatives

    def _version(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, s = (rows != self.pad).sum(axis=1), self.settings  # [W]
        cropped, hidden = crop(rows, n, s.crop, self.pad, rng), masked(rows, n, s.mask, self.mask, rng)
        versions = np.stack([cropped, hidden, reorder(rows, n, s.reorder, rng)])  # [3, W, L]
        return versions[rng.integers(3, size=len(rows)), np.arange(len(rows))]

    def loss(self, window, first, second, negatives=None):
        both = torch.cat([first, second])  # [2 B, L]
        last = (both != self.pad).sum(dim=1) - 1
        states = self.recommender(both)[torch.arange(len(both)), last]  # [2 B, D]
        contrast = info_nce(*states.chunk(2), self.settings.temperature)
        return self.recommender.loss(window, negatives) + self.settings.contrast * contrast

    def scores(self, users, histories):
        return self.recommender.scores(users, histories)  # [B, I]

    def user_embeddings(self, histories):
        return self.recommender.user_embeddings(histories)  # [B, D]
