"""Sequential recommendation: SASRec."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .fit import BACKBONES, Backbone, NegativeSampler, TrainingData


@dataclass(frozen=True)
class SASRecSettings:
    dim: int = 64  # D
    layers: int = 2  # transformer blocks
    heads: int = 2  # attention heads; must divide dim
    length: int = 50  # L: items of the history that are read
    dropout: float = 0.3  # on embeddings, attention outputs and feed-forward outputs
    negatives: int = 0  # sampled per sequence; 0: softmax over all items, best where the catalogue allows it
    lr: float = 0.002  # of Adam
    batch_size: int = 64  # windows
    epochs: int = 10  # at most
    patience: int = 4  # epochs without a better validation NDCG@10


def with_insertions(data: TrainingData) -> tuple[list[np.ndarray], np.ndarray]:
    """S training sequences and their users [S]: everyone's own, and for a user with insertions a second one with them.

    P2's sequences are trained on *in addition to* the originals, as equation 3 adds triples to D: what was really
    observed keeps its weight. A position counts in the original sequence: 0 is before its first item.
    """
    sequences, owner = data.histories, np.arange(data.n_users)
    if data.insertions is None:
        return sequences, owner
    users = np.unique(data.insertions[:, 0])
    for user in users:
        _, items, positions = data.insertions[data.insertions[:, 0] == user].T
        sequences.append(np.insert(sequences[user], positions, items))
    return sequences, np.concatenate([owner, users])


def windows(sequences: list[np.ndarray], length: int, pad: int, rng: np.random.Generator):
    """One epoch's windows [W, length + 1] and their sequences [W]; n items give ceil((n - 1) / length), cut at random.

    The first `length` items of a window are its inputs, the last `length` their targets. A sequence that is shorter
    is one window, filled up with `pad` at its end, where a causal model cannot look.
    """
    flat, n = np.concatenate(sequences), np.array([len(sequence) for sequence in sequences])
    owner = np.repeat(np.arange(len(n)), -(-np.maximum(n - 1, 0) // length))  # [W]
    end = rng.integers(np.minimum(n, length + 1)[owner], n[owner] + 1)  # [W], exclusive
    at = np.maximum(end - length - 1, 0)[:, None] + np.arange(length + 1)  # [W, L + 1], place in the sequence
    first = (np.cumsum(n) - n)[owner]  # [W], place of the sequence in flat
    return np.where(at < end[:, None], flat[np.minimum(first[:, None] + at, len(flat) - 1)], pad), owner


def latest(histories: list[np.ndarray] | None, length: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The last `length` items of B histories, filled up with `pad` at the end [B, L], and each one's last place [B]."""
    if histories is None:
        raise ValueError("a sequential backbone reads histories: pass one array of items, oldest first, for each user")
    n = np.clip([len(history) for history in histories], 1, length)  # [B]
    table = np.full((len(n), n.max()), pad, dtype=np.int64)
    for row, history in zip(table, histories, strict=True):
        row[: min(len(history), length)] = history[-length:]
    return torch.from_numpy(table), torch.from_numpy(n - 1)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Attention is causal, or, where `visible` is given (bool, True at the places [B, 1, 1, L] that may be looked at), in
    both directions.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        b, n, d = x.shape  # [B, L, D]
        qkv = self.query_key_value(self.norm_attention(x)).view(b, n, 3, self.heads, -1)  # [B, L, 3, heads, D / heads]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, L, D / heads] each
        a = F.scaled_dot_product_attention(q, k, v, visible, is_causal=visible is None)  # [B, heads, L, D / heads]
        x = x + self.dropout(self.project(a.transpose(1, 2).reshape(b, n, d)))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm_forward(x)))))


def item_loss(
    h: torch.Tensor,
    target: torch.Tensor,
    asked: torch.Tensor,
    weight: torch.Tensor,
    n_items: int,
    negatives: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over the places that are asked about of -log softmax_i(h_t . e_i + b_i)[target].

    h [B, L, D], target and asked [B, L], weight: embeddings of at least the n_items items, bias [I]. The softmax is
    over all items, or over the target and the row's `negatives` [B, M].
    """
    if negatives is None:
        logits = h[asked] @ weight[:n_items].T  # [T, I], T places asked about
        return F.cross_entropy(logits if bias is None else logits + bias, target[asked])
    own = (h * F.embedding(target, weight)).sum(dim=-1, keepdim=True)  # [B, L, 1]
    others = h @ F.embedding(negatives, weight).transpose(1, 2)  # [B, L, M]
    if bias is not None:
        own = own + F.embedding(target.clamp(max=n_items - 1), bias.unsqueeze(1))  # what is not asked has any bias
        others = others + bias[negatives].unsqueeze(1)
    logits = torch.cat([own, others], dim=-1)[asked]  # [T, 1 + M]
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


class SASRec(nn.Module):
    """SASRec (Kang & McAuley, ICDM 2018): y_ti = h_t . e_i, h = causal transformer over the items up to t.

    loss = mean over targets of -log softmax(y_t)[next item]: over all items instead of one sampled negative, which
    Klenitskiy & Vasilev (RecSys 2023) found to be what SASRec lacked. `negatives` > 0 samples the softmax's other
    items, from outside the user's training items, where the catalogue is too large.
    """

    def __init__(self, data: TrainingData, settings: SASRecSettings, tokens: int = 0):
        """`tokens`: how many ids after the items' and the pad's have an embedding too (CL4SRec's mask)."""
        super().__init__()
        if settings.dim % settings.heads:
            raise ValueError(f"SASRec's dim {settings.dim} cannot be divided among {settings.heads} heads")
        self.settings, self.pad, self.sampler = settings, data.n_items, NegativeSampler(data)
        self.sequences, self.owner = with_insertions(data)
        self.item = nn.Embedding(data.n_items + 1 + tokens, settings.dim, padding_idx=self.pad)
        self.position = nn.Parameter(0.02 * torch.randn(settings.length, settings.dim))  # [L, D]
        nn.init.normal_(self.item.weight, std=0.02)
        self.dropout = nn.Dropout(settings.dropout)
        blocks = (Block(settings.dim, settings.heads, settings.dropout) for _ in range(settings.layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Items [B, L] (pad at the end) -> states [B, L, D]; state t depends on items 0..t only."""
        x = self.dropout(self.item(items) + self.position[: items.shape[1]])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def examples(self, rng):
        table, row = windows(self.sequences, self.settings.length, self.pad, rng)  # [W, L + 1], [W]
        if not len(table):
            raise ValueError("no user has two training items: SASRec has nothing to learn from")
        if not self.settings.negatives:
            return (table,)
        users = np.repeat(self.owner[row][:, None], self.settings.negatives, axis=1)
        return table, self.sampler.draw(users, rng)  # [W, L + 1], [W, negatives]

    def loss(self, window, negatives=None):
        target = window[:, 1:]  # [B, L]
        return item_loss(self(window[:, :-1]), target, target != self.pad, self.item.weight, self.pad, negatives)

    def scores(self, users, histories):
        return self.user_embeddings(histories) @ self.item.weight[: self.pad].T  # [B, I]

    def user_embeddings(self, histories):
        """The state after the last item of each history, [B, D]; an empty history is read as one pad."""
        table, last = latest(histories, self.settings.length, self.pad)
        return self(table)[torch.arange(len(last)), last]


BACKBONES["SASRec"] = Backbone("sequential", SASRec, SASRecSettings)
