"""Direct recommendation: MF and LightGCN, both trained with BPR on D' = D + {(u, i+, i-)} (equation 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import nn

from .fit import BACKBONES, Backbone, NegativeSampler, TrainingData
from .sparse import Sparse, product, sparse


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """-mean log sigmoid(y_ui+ - y_ui-) over the B pairs (Rendle et al., UAI 2009); equation 3 divided by B."""
    return -F.logsigmoid(positive - negative).mean()


def bpr_examples(
    data: TrainingData, sampler: NegativeSampler, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One epoch over D': each interaction with a fresh negative, each augmented triple as it is. Three [N + M]."""
    u, i, j = data.users, data.items, sampler.draw(data.users, rng)
    if data.triples is not None:
        u, i, j = (np.concatenate(pair) for pair in zip((u, i, j), data.triples.T, strict=True))
    return u, i, j


@dataclass(frozen=True)
class MFSettings:
    dim: int = 64  # D
    lr: float = 0.005  # of Adam
    batch_size: int = 2048  # pairs
    l2: float = 0.01  # on the embeddings and biases of a batch's users and items
    dropout: float = 0.0  # share of the user embedding's entries left out in training
    epochs: int = 60  # at most
    patience: int = 12  # epochs without a better validation NDCG@10


class MF(nn.Module):
    """Matrix factorisation: y_ui = p_u . q_i + b_i (Koren et al., 2009), fitted by BPR (Rendle et al., UAI 2009).

    loss = -log sigmoid(y_ui+ - y_ui-) + l2 (|p_u|^2 + |q_i+|^2 + |q_i-|^2 + b_i+^2 + b_i-^2) / 2
    """

    def __init__(self, data: TrainingData, settings: MFSettings):
        super().__init__()
        self.data, self.settings, self.sampler = data, settings, NegativeSampler(data)
        self.p = nn.Parameter(0.1 * torch.randn(data.n_users, settings.dim))  # [U, D]
        self.q = nn.Parameter(0.1 * torch.randn(data.n_items, settings.dim))  # [I, D]
        self.b = nn.Parameter(torch.zeros(data.n_items))  # [I]

    def examples(self, rng):
        return bpr_examples(self.data, self.sampler, rng)

    def loss(self, u, i, j):
        items = torch.stack([i, j])  # [2, B]
        p, q, b = F.embedding(u, self.p), F.embedding(items, self.q), self.b[items]  # [B, D], [2, B, D], [2, B]
        y = (F.dropout(p, self.settings.dropout, self.training) * q).sum(dim=2) + b  # [2, B]
        size = p.square().sum() + q.square().sum() + b.square().sum()
        return bpr_loss(*y) + self.settings.l2 / 2 * size / len(u)

    def scores(self, users, histories=None):
        return self.p[users] @ self.q.T + self.b  # [B, I]

    def user_embeddings(self, histories=None):
        return self.p  # [U, D]


@dataclass(frozen=True)
class LightGCNSettings:
    dim: int = 64  # D
    layers: int = 2  # of propagation
    lr: float = 0.01  # of Adam
    batch_size: int = 4096  # pairs
    l2: float = 1e-4  # on the layer-0 embeddings of a batch's users and items
    epochs: int = 80  # at most
    patience: int = 10  # epochs without a better validation NDCG@10


def normalised_adjacency(users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> Sparse:
    """D^-1/2 A D^-1/2 of the bipartite graph, sparse [U + I, U + I]; a repeated interaction counts once."""
    user, item = np.divmod(np.unique(users * n_items + items), n_items)
    rows, columns = np.concatenate([user, item + n_users]), np.concatenate([item + n_users, user])
    degree = np.bincount(rows, minlength=n_users + n_items)
    values = (1 / np.sqrt(degree[rows] * degree[columns])).astype(np.float32)
    return sparse(scipy.sparse.csr_array((values, (rows, columns)), shape=(n_users + n_items,) * 2))


def hops(adjacencies: Sequence[Sparse], e: torch.Tensor) -> torch.Tensor:
    """E^0, A_1 E^0, A_2 A_1 E^0, ..., one hop for each of the L adjacencies: [U + I, L + 1, D]."""
    out = [e]
    for adjacency in adjacencies:
        out.append(product(adjacency, adjacency, out[-1]))
    return torch.stack(out, dim=1)


def propagate(adjacencies: Sequence[Sparse], e: torch.Tensor) -> torch.Tensor:
    """The mean of `hops`, (E^0 + ... + E^L) / (L + 1), [U + I, D], without keeping them."""
    total = e
    for adjacency in adjacencies:
        e = product(adjacency, adjacency, e)
        total = total + e
    return total / (len(adjacencies) + 1)


class LightGCN(nn.Module):
    """LightGCN (He et al., SIGIR 2020): y_ui = e_u . e_i, E = mean of E^0 ... E^K, E^(k+1) = D^-1/2 A D^-1/2 E^k.

    The graph holds real training interactions only: an augmented triple is a preference between two items, not an
    interaction, so it joins the loss (equation 3) and no edge.
    """

    def __init__(self, data: TrainingData, settings: LightGCNSettings):
        super().__init__()
        self.data, self.settings, self.sampler = data, settings, NegativeSampler(data)
        adjacency = normalised_adjacency(data.users, data.items, data.n_users, data.n_items)
        self.adjacency = [adjacency] * settings.layers
        self.e = nn.Parameter(0.1 * torch.randn(data.n_users + data.n_items, settings.dim))  # E^0, [U + I, D]

    def examples(self, rng):
        return bpr_examples(self.data, self.sampler, rng)

    def loss(self, u, i, j):
        nodes = torch.stack([u, i + self.data.n_users, j + self.data.n_users])  # [3, B]
        e_u, e_i, e_j = F.embedding(nodes, propagate(self.adjacency, self.e))  # [B, D] each
        size = F.embedding(nodes, self.e).square().sum(dim=(0, 2))  # [B]
        return bpr_loss((e_u * e_i).sum(dim=1), (e_u * e_j).sum(dim=1)) + self.settings.l2 / 2 * size.mean()

    def scores(self, users, histories=None):
        e_users, e_items = self._embeddings()
        return e_users[users] @ e_items.T  # [B, I]

    def user_embeddings(self, histories=None):
        return self._embeddings()[0]  # [U, D]

    def _embeddings(self):
        return propagate(self.adjacency, self.e).split([self.data.n_users, self.data.n_items])


BACKBONES["MF"] = Backbone("direct", MF, MFSettings)
BACKBONES["LightGCN"] = Backbone("direct", LightGCN, LightGCNSettings)
