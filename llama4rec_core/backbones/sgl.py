"""Direct recommendation: SGL, LightGCN with a contrastive task beside it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .contrast import info_nce
from .direct import bpr_examples, bpr_loss, normalised_adjacency, propagate
from .fit import BACKBONES, Backbone, NegativeSampler, TrainingData

VIEWS = ("edge dropout", "node dropout", "random walk")


@dataclass(frozen=True)
class SGLSettings:
    dim: int = 64  # D
    layers: int = 2  # of propagation
    view: str = "edge dropout"  # or "node dropout", "random walk"
    drop: float = 0.3  # share of edges (of nodes) left out of a view
    temperature: float = 0.5  # of InfoNCE
    contrast: float = 0.1  # weight of InfoNCE beside BPR
    lr: float = 0.01  # of Adam
    batch_size: int = 4096  # pairs
    l2: float = 1e-4  # on the layer-0 embeddings of a batch's users and items
    epochs: int = 60  # at most
    patience: int = 8  # epochs without a better validation NDCG@10


def kept_edges(
    view: str, users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, drop: float, rng: np.random.Generator
) -> np.ndarray:
    """Which of the N interactions a view keeps, bool [N]: each with probability 1 - drop ("edge dropout", and each
    layer of "random walk"), or those whose user and item both stay ("node dropout")."""
    if view == "node dropout":
        return (rng.random(n_users) >= drop)[users] & (rng.random(n_items) >= drop)[items]
    return rng.random(len(users)) >= drop


class SGL(nn.Module):
    """SGL (Wu et al., SIGIR 2021): loss = BPR + contrast (InfoNCE over users + InfoNCE over items) + L2, on LightGCN.

    Each epoch draws two views of the graph. Edge dropout and node dropout use one thinned graph in all layers, random
    walk another in each. z' and z'' are the two views' propagated embeddings; a batch's distinct users (and positive
    items) are each other's negatives. What is recommended is propagated on the whole graph.
    """

    def __init__(self, data: TrainingData, settings: SGLSettings):
        super().__init__()
        if settings.view not in VIEWS:
            raise ValueError(f"SGL's view {settings.view!r} is unknown: the known ones are {', '.join(VIEWS)}")
        self.data, self.settings, self.sampler = data, settings, NegativeSampler(data)
        self.adjacency = [normalised_adjacency(data.users, data.items, data.n_users, data.n_items)] * settings.layers
        self.views: list[list[torch.Tensor]] = []  # two, each with one adjacency a layer
        self.e = nn.Parameter(0.1 * torch.randn(data.n_users + data.n_items, settings.dim))  # E^0, [U + I, D]

    def examples(self, rng):
        self.views = [self._view(rng) for _ in range(2)]
        return bpr_examples(self.data, self.sampler, rng)

    def _view(self, rng: np.random.Generator) -> list[torch.Tensor]:
        data, asked = self.data, self.settings
        size = data.n_users, data.n_items

        def thinned() -> torch.Tensor:
            kept = kept_edges(asked.view, data.users, data.items, *size, asked.drop, rng)
            return normalised_adjacency(data.users[kept], data.items[kept], *size)

        if asked.view == "random walk":
            return [thinned() for _ in range(asked.layers)]
        return [thinned()] * asked.layers

    def loss(self, u, i, j):
        nodes = torch.stack([u, i + self.data.n_users, j + self.data.n_users])  # [3, B]
        e_u, e_i, e_j = F.embedding(nodes, propagate(self.adjacency, self.e))  # [B, D] each
        size = F.embedding(nodes, self.e).square().sum(dim=(0, 2))  # [B]
        first, second = (propagate(view, self.e) for view in self.views)  # [U + I, D]
        contrast = sum(
            info_nce(first[distinct], second[distinct], self.settings.temperature)
            for distinct in (nodes[0].unique(), nodes[1].unique())
        )
        return (
            bpr_loss((e_u * e_i).sum(dim=1), (e_u * e_j).sum(dim=1))
            + self.settings.contrast * contrast
            + self.settings.l2 / 2 * size.mean()
        )

    def scores(self, users, histories=None):
        e_users, e_items = self._embeddings()
        return e_users[users] @ e_items.T  # [B, I]

    def user_embeddings(self, histories=None):
        return self._embeddings()[0]  # [U, D]

    def _embeddings(self):
        return propagate(self.adjacency, self.e).split([self.data.n_users, self.data.n_items])


BACKBONES["SGL"] = Backbone("direct", SGL, SGLSettings)
