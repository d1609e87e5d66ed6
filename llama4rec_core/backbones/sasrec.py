"""Sequential recommendation: SASRec."""

from dataclasses import dataclass

import torch
from torch import nn

from .fit import TrainingData
from .transformer import Transformer, TransformerSettings, item_loss, latest, windows, with_insertions


@dataclass(frozen=True)
class SASRecSettings(TransformerSettings):
    layers: int = 1  # transformer block
    epochs: int = 60  # at most; patience ends the training
    patience: int = 4  # epochs without a better validation NDCG@10


class SASRec(nn.Module):
    """SASRec (Kang & McAuley, ICDM 2018): y_ti = h_t . e_i, h = causal transformer over the items up to t.

    loss = mean over targets of -log softmax(y_t)[next item]. The softmax over all items replaces the paper's one
    sampled negative: SASRec gains most from that (Klenitskiy & Vasilev, RecSys 2023). For a large catalogue,
    `negatives` > 0 samples the softmax's other items from outside the user's training items.
    """

    def __init__(self, data: TrainingData, settings: SASRecSettings, tokens: int = 0):
        """`tokens`: how many more ids than items and the pad have an embedding (CL4SRec's mask)."""
        super().__init__()
        self.settings, self.pad, self.sampler = settings, data.n_items, data.sampler
        self.sequences, self.owner = with_insertions(data)
        self.states = Transformer(settings, data.n_items + 1 + tokens, self.pad)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items [B, L] (pad at the end) -> states [B, L, D]; state t depends on items 0..t only."""
        return self.states(items)

    def examples(self, rng):
        """Windows [W, L + 1], and negatives [W, M] where the settings have any."""
        table, row = windows(self.sequences, self.settings.length, self.pad, rng)
        if not len(table):
            raise ValueError("no user has two training items: SASRec has nothing to learn from")
        if not self.settings.negatives:
            return (table,)
        return table, self.sampler.draw(self.owner[row], rng, self.settings.negatives)

    def loss(self, window, negatives=None):
        return item_loss(self(window[:, :-1]), window[:, 1:], self.states.item.weight, self.pad, negatives)

    def scores(self, users, histories):
        return self.user_embeddings(histories) @ self.states.item.weight[: self.pad].T  # [B, I]

    def user_embeddings(self, histories):
        """The state after the last item of each history, [B, D]; an empty history is read as one pad."""
        table, last = latest(histories, self.settings.length, self.pad)
        return self(table)[torch.arange(len(last)), last]
