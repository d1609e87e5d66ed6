"""Direct recommendation: MF."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .fit import TrainingData, bpr_examples, bpr_loss


@dataclass(frozen=True)
class MFSettings:
    dim: int = 64  # D
    lr: float = 0.005  # of Adam
    batch_size: int = 2048  # pairs
    l2: float = 0.01  # on the embeddings and biases of a batch's users and items
    dropout: float = 0.0  # on the user embedding
    epochs: int = 60  # at most
    patience: int = 12  # epochs without a better validation NDCG@10


class MF(nn.Module):
    """Matrix factorisation: y_ui = p_u . q_i + b_i (Koren et al., 2009), fitted by BPR (Rendle et al., UAI 2009).

    loss = -log sigmoid(y_ui+ - y_ui-) + l2 (|p_u|^2 + |q_i+|^2 + |q_i-|^2 + b_i+^2 + b_i-^2) / 2
    """

    def __init__(self, data: TrainingData, settings: MFSettings):
        super().__init__()
        self.data, self.settings = data, settings
        self.p = nn.Parameter(0.1 * torch.randn(data.n_users, settings.dim))  # [U, D]
        self.q = nn.Parameter(0.1 * torch.randn(data.n_items, settings.dim))  # [I, D]
        self.b = nn.Parameter(torch.zeros(data.n_items))  # [I]

    def examples(self, rng):
        return bpr_examples(self.data, rng)

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
