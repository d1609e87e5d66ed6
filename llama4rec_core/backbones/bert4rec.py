"""Sequential recommendation: BERT4Rec."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .fit import TrainingData
from .transformer import Transformer, TransformerSettings, item_loss, latest, windows, with_insertions


@dataclass(frozen=True)
class BERT4RecSettings(TransformerSettings):
    dropout: float = 0.2
    mask: float = 0.2  # rho: share of a window's items that are masked
    epochs: int = 120  # at most: masked items are learnt slowly
    patience: int = 12  # epochs without a better validation NDCG@10

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(f"BERT4Rec's setting length is {self.length}: it must be at least 2, an item and a mask")


def cloze(
    rows: np.ndarray, share: float, pad: int, mask: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The cloze task: windows [W, L] with items replaced by `mask`, and the targets [W, L], pad elsewhere.

    Each item is masked with probability `share`. A window in which none was drawn has its last item masked, as when
    recommending.
    """
    real = rows != pad
    hidden = real & (rng.random(rows.shape) < share)
    none = ~hidden.any(axis=1)
    hidden[none, real[none].sum(axis=1) - 1] = True
    return np.where(hidden, mask, rows), np.where(hidden, rows, pad)


class BERT4Rec(nn.Module):
    """BERT4Rec (Sun et al., CIKM 2019): masked items of a sequence are predicted from both sides.

    loss = mean over masked positions of -log softmax_i(gelu(h_t W + b) . e_i + b_i)[the item], h = transformer without
    a causal mask. To recommend, the state at a mask after the history is read. As in the paper, every epoch also has
    the end of each sequence with only its last item masked. The patience is long because published BERT4Recs were
    trained too short (Petrov & Macdonald, RecSys 2022).
    """

    def __init__(self, data: TrainingData, settings: BERT4RecSettings):
        super().__init__()
        self.settings, self.pad, self.mask, self.sampler = settings, data.n_items, data.n_items + 1, data.sampler
        sequences, owner = with_insertions(data)
        self.sequences = [sequence for sequence in sequences if len(sequence)]
        self.owner = owner[[len(sequence) > 0 for sequence in sequences]]
        self.states = Transformer(settings, data.n_items + 2, self.pad)  # items, pad, mask
        self.dense = nn.Linear(settings.dim, settings.dim)
        self.bias = nn.Parameter(torch.zeros(data.n_items))  # [I]

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items [B, L] (pad at the end) -> states [B, L, D]; each state depends on all items but the pad."""
        visible = (items != self.pad)[:, None, None, :]  # [B, 1, 1, L]
        return F.gelu(self.dense(self.states(items, visible)))

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """States [T, D] -> [T, I]."""
        return h @ self.states.item.weight[: self.pad].T + self.bias

    def examples(self, rng):
        """Items and targets [W + S, L], and negatives [W + S, M] where the settings have any."""
        length = self.settings.length
        pieces, row = windows(self.sequences, length - 1, self.pad, rng)  # [W, L]
        ends, _ = latest(self.sequences, length, self.pad)
        ends = np.pad(ends.numpy(), ((0, 0), (0, length - ends.shape[1])), constant_values=self.pad)  # [S, L]
        hidden = cloze(pieces, self.settings.mask, self.pad, self.mask, rng)
        last = cloze(ends, 0.0, self.pad, self.mask, rng)
        both = tuple(np.concatenate(part) for part in zip(hidden, last, strict=True))
        if not self.settings.negatives:
            return both
        return *both, self.sampler.draw(np.append(self.owner[row], self.owner), rng, self.settings.negatives)

    def loss(self, items, targets, negatives=None):
        longest = int((items != self.pad).sum(dim=1).max())
        items, targets = items[:, :longest], targets[:, :longest]
        return item_loss(self(items), targets, self.states.item.weight, self.pad, negatives, self.bias)

    def scores(self, users, histories):
        return self.logits(self.user_embeddings(histories))  # [B, I]

    def user_embeddings(self, histories):
        """The state at a mask that follows each history, [B, D]."""
        if histories is not None:
            histories = [np.append(history[-(self.settings.length - 1) :], self.mask) for history in histories]
        table, last = latest(histories, self.settings.length, self.pad)
        return self(table)[torch.arange(len(last)), last]
