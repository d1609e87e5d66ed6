"""Sequential recommendation: BERT4Rec."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .fit import BACKBONES, Backbone, NegativeSampler, TrainingData
from .sequential import Block, item_loss, latest, windows, with_insertions


@dataclass(frozen=True)
class BERT4RecSettings:
    dim: int = 64  # D
    layers: int = 2  # transformer blocks
    heads: int = 2  # attention heads; must divide dim
    length: int = 50  # L: places that are read, the mask's among them
    dropout: float = 0.2  # on embeddings, attention outputs and feed-forward outputs
    mask: float = 0.2  # rho: share of a window's items that are masked
    negatives: int = 0  # sampled per sequence; 0: softmax over all items
    lr: float = 0.002  # of Adam
    batch_size: int = 64  # windows
    epochs: int = 120  # at most: the cloze task learns slowly, so patience ends it
    patience: int = 12  # epochs without a better validation NDCG@10


def cloze(
    rows: np.ndarray, share: float, pad: int, mask: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Windows [W, L] with each item masked with probability `share`, and the items to be found, pad elsewhere [W, L].

    A window in which none was drawn has its last item masked: that is what will be asked when recommending.
    """
    real = rows != pad
    hidden = real & (rng.random(rows.shape) < share)
    none = ~hidden.any(axis=1)
    hidden[none, real[none].sum(axis=1) - 1] = True
    return np.where(hidden, mask, rows), np.where(hidden, rows, pad)


class BERT4Rec(nn.Module):
    """BERT4Rec (Sun et al., CIKM 2019): items of a sequence are masked and found again from both sides.

    loss = mean over masked places of -log softmax_i(gelu(h_t W + b) . e_i + b_i)[the item], h = transformer without a
    causal mask. To recommend, a mask is put after the history and read out. Petrov & Macdonald (RecSys 2022) found
    published BERT4Recs to be trained too short, hence the patience here. As in the paper every epoch also has each
    sequence's end with only its last item masked.
    """

    def __init__(self, data: TrainingData, settings: BERT4RecSettings):
        super().__init__()
        if settings.dim % settings.heads:
            raise ValueError(f"BERT4Rec's dim {settings.dim} cannot be divided among {settings.heads} heads")
        self.settings, self.pad, self.mask = settings, data.n_items, data.n_items + 1
        self.sampler = NegativeSampler(data)
        sequences, owner = with_insertions(data)
        self.sequences = [sequence for sequence in sequences if len(sequence)]
        self.owner = owner[[len(sequence) > 0 for sequence in sequences]]
        self.item = nn.Embedding(data.n_items + 2, settings.dim, padding_idx=self.pad)  # items, pad, mask
        self.position = nn.Parameter(0.02 * torch.randn(settings.length, settings.dim))  # [L, D]
        nn.init.normal_(self.item.weight, std=0.02)
        self.dropout = nn.Dropout(settings.dropout)
        blocks = (Block(settings.dim, settings.heads, settings.dropout) for _ in range(settings.layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.turn = nn.LayerNorm(settings.dim), nn.Linear(settings.dim, settings.dim)
        self.bias = nn.Parameter(torch.zeros(data.n_items))  # [I]

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items [B, L] (pad at the end) -> states [B, L, D]; every state depends on all items that are no pad."""
        visible = (items != self.pad)[:, None, None, :]  # [B, 1, 1, L]
        x = self.dropout(self.item(items) + self.position[: items.shape[1]])
        for block in self.blocks:
            x = block(x, visible)
        return F.gelu(self.turn(self.norm(x)))

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """States [T, D] -> [T, I]."""
        return h @ self.item.weight[: self.pad].T + self.bias

    def examples(self, rng):
        """Items and what is to be found at their masked places [W + S, L], and negatives [W + S, M] where asked for."""
        length = self.settings.length
        pieces, row = windows(self.sequences, length - 1, self.pad, rng)  # [W, L]
        ends, _ = latest(self.sequences, length, self.pad)
        ends = np.pad(ends.numpy(), ((0, 0), (0, length - ends.shape[1])), constant_values=self.pad)  # [S, L]
        hidden = cloze(pieces, self.settings.mask, self.pad, self.mask, rng)
        last = cloze(ends, 0.0, self.pad, self.mask, rng)
        both = tuple(np.concatenate(part) for part in zip(hidden, last, strict=True))
        if not self.settings.negatives:
            return both
        users = np.concatenate([self.owner[row], self.owner])[:, None]
        return *both, self.sampler.draw(np.repeat(users, self.settings.negatives, axis=1), rng)

    def loss(self, items, targets, negatives=None):
        longest = int((items != self.pad).sum(dim=1).max())
        items, targets = items[:, :longest], targets[:, :longest]
        asked = targets != self.pad
        return item_loss(self(items), targets, asked, self.item.weight, self.pad, negatives, self.bias)

    def scores(self, users, histories):
        return self.logits(self.user_embeddings(histories))  # [B, I]

    def user_embeddings(self, histories):
        """The state at a mask that follows each history, [B, D]."""
        if histories is not None:
            histories = [np.append(history[-(self.settings.length - 1) :], self.mask) for history in histories]
        table, last = latest(histories, self.settings.length, self.pad)
        return self(table)[torch.arange(len(last)), last]


BACKBONES["BERT4Rec"] = Backbone("sequential", BERT4Rec, BERT4RecSettings)
