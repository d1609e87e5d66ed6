"""Direct recommendation: LightGCN."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .fit import TrainingData, bpr_examples, bpr_loss
from .graph import normalised_adjacency, propagate


@dataclass(frozen=True)
class LightGCNSettings:
    dim: int = 64  # D
    layers: int = 2  # of propagation
    lr: float = 0.01  # of Adam
    batch_size: int = 4096  # pairs
    l2: float = 1e-4  # on the layer-0 embeddings of a batch's users and items
    epochs: int = 80  # at most
    patience: int = 10  # epochs without a better validation NDCG@10


class LightGCN(nn.Module):
    """LightGCN (He et al., SIGIR 2020): y_ui = e_u . e_i, E = mean of E^0 ... E^K, E^(k+1) = D^-1/2 A D^-1/2 E^k.

    The graph holds real training interactions only. An augmented triple is a preference between two items, not an
    interaction: it joins the loss (equation 3) and adds no edge.
    """

    def __init__(self, data: TrainingData, settings: LightGCNSettings):
        super().__init__()
        self.data, self.settings = data, settings
        adjacency = normalised_adjacency(data.users, data.items, data.n_users, data.n_items)
        self.adjacency = [adjacency] * settings.layers
        self.e = nn.Parameter(0.1 * torch.randn(data.n_users + data.n_items, settings.dim))  # E^0, [U + I, D]

    def examples(self, rng):
        return bpr_examples(self.data, rng)

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
