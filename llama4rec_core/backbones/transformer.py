"""What the sequential backbones share: training sequences, windows of them, the transformer, the loss."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .fit import TrainingData


@dataclass(frozen=True)
class TransformerSettings:
    """What the sequential backbones have in common."""

    dim: int = 64  # D
    layers: int = 2  # transformer blocks
    heads: int = 2  # attention heads; must divide dim
    length: int = 50  # L: positions that are read
    dropout: float = 0.3  # on embeddings, attention outputs and feed-forward outputs
    negatives: int = 0  # sampled per window; 0: softmax over all items
    lr: float = 0.002  # of Adam
    batch_size: int = 64  # windows


def with_insertions(data: TrainingData) -> tuple[list[np.ndarray], np.ndarray]:
    """S training sequences and their users [S]: everyone's own, then a second one for each user with insertions (P2).

    The sequences with insertions are added to the originals, as equation 3 adds triples to D: what was observed keeps
    its weight. A position counts in the original sequence: 0 is before its first item.
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
    """One epoch's windows [W, length + 1] and the sequence each is cut from [W].

    A sequence of n items gives ceil((n - 1) / length) windows, cut at random. The first `length` items of a window are
    its inputs, the last `length` their targets. A shorter sequence is one window, padded at its end, where a causal
    model cannot look.
    """
    flat, n = np.concatenate(sequences), np.array([len(sequence) for sequence in sequences])
    owner = np.repeat(np.arange(len(n)), -(-np.maximum(n - 1, 0) // length))  # [W]
    end = rng.integers(np.minimum(n, length + 1)[owner], n[owner] + 1)  # [W], exclusive
    at = np.maximum(end - length - 1, 0)[:, None] + np.arange(length + 1)  # [W, L + 1], position in the sequence
    first = (np.cumsum(n) - n)[owner]  # [W], where the sequence begins in flat
    return np.where(at < end[:, None], flat[np.minimum(first[:, None] + at, len(flat) - 1)], pad), owner


def latest(histories: list[np.ndarray] | None, length: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The last `length` items of B histories, padded at the end [B, L], and the position of each one's last item [B].

    Raises ValueError for histories None.
    """
    if histories is None:
        raise ValueError("a sequential backbone reads histories: pass one array of items, oldest first, for each user")
    n = np.clip([len(history) for history in histories], 1, length)  # [B]
    table = np.full((len(n), n.max()), pad, dtype=np.int64)
    for row, history in zip(table, histories, strict=True):
        row[: min(len(history), length)] = history[-length:]
    return torch.from_numpy(table), torch.from_numpy(n - 1)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Attention is causal. With `visible`, bool [B, 1, 1, L], it looks in both directions, at the positions that are True.
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


class Transformer(nn.Module):
    """Embeddings of `tokens` ids and of positions, blocks, a norm. Raises ValueError where heads do not divide dim."""

    def __init__(self, settings: TransformerSettings, tokens: int, pad: int):
        super().__init__()
        dim, heads = settings.dim, settings.heads
        if dim % heads:
            raise ValueError(f"{type(settings).__name__}: dim {dim} cannot be divided among {heads} heads")
        self.item = nn.Embedding(tokens, dim, padding_idx=pad)
        self.position = nn.Parameter(0.02 * torch.randn(settings.length, dim))  # [L, D]
        nn.init.normal_(self.item.weight, std=0.02)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, settings.dropout) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, items: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Items [B, L] (pad at the end) -> states [B, L, D]; `visible` as in Block."""
        x = self.dropout(self.item(items) + self.position[: items.shape[1]])
        for block in self.blocks:
            x = block(x, visible)
        return self.norm(x)


def item_loss(h, target, weight, pad: int, negatives=None, bias=None) -> torch.Tensor:
    """Mean over the T targets that are no pad of -log softmax_i(h_t . e_i + b_i)[target].

    h [B, L, D], target [B, L], weight: the items' embeddings, then others', bias [I]. The softmax is over all items, or
    over the target and the row's `negatives` [B, M].
    """
    real = target != pad  # [B, L]
    if negatives is None:
        logits = h[real] @ weight[:pad].T  # [T, I]
        return F.cross_entropy(logits if bias is None else logits + bias, target[real])
    own = (h * F.embedding(target, weight)).sum(dim=-1, keepdim=True)  # [B, L, 1]
    others = h @ F.embedding(negatives, weight).transpose(1, 2)  # [B, L, M]
    if bias is not None:
        own = own + F.embedding(target.clamp(max=pad - 1), bias.unsqueeze(1))  # clamp: a pad is no target
        others = others + bias[negatives].unsqueeze(1)
    logits = torch.cat([own, others], dim=-1)[real]  # [T, 1 + M]
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
