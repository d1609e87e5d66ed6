"""Direct recommendation: SGL, LightGCN with a contrastive task beside it."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from .contrast import info_nce
from .direct import LightGCN, normalised_adjacency, propagate
from .fit import BACKBONES, Backbone, TrainingData
from .sparse import Sparse

VIEWS = ("edge dropout", "node dropout", "random walk")


@dataclass(frozen=True)
class SGLSettings:
    dim: int = 64  # D
    layers: int = 2  # of propagation
    view: str = "edge dropout"  # or "node dropout", "random walk"
    drop: float = 0.3  # share of edges (of nodes) left out of a view
    temperature: float = 0.5  # of InfoNCE
    contrast: float = 0.01  # weight of InfoNCE beside BPR
    lr: float = 0.01  # of Adam
    batch_size: int = 4096  # pairs
    l2: float = 1e-4  # on the layer-0 embeddings of a batch's users and items
    epochs: int = 100  # at most
    patience: int = 15  # epochs without a better validation NDCG@10


def kept_edges(
    view: str, users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, drop: float, rng: np.random.Generator
) -> np.ndarray:
    """Which of the N interactions a view keeps, bool [N]: each with probability 1 - drop ("edge dropout", and each
    layer of "random walk"), or those whose user and item both stay ("node dropout")."""
    if view == "node dropout":
        return (rng.random(n_users) >= drop)[users] & (rng.random(n_items) >= drop)[items]
    return rng.random(len(users)) >= drop


class SGL(nn.Module):
    """SGL (Wu et al., SIGIR 2021): loss = LightGCN's + contrast (InfoNCE over users + over items).

    Each epoch draws two views of the graph. Edge dropout and node dropout use one thinned graph in all layers, random
    walk another in each. z' and z'' are the two views' propagated embeddings; a batch's distinct users (and positive
    items) are each other's negatives. What is recommended is propagated on the whole graph.
    """

    def __init__(self, data: TrainingData, settings: SGLSettings):
        super().__init__()
        if settings.view not in VIEWS:
            raise ValueError(f"SGL's view {settings.view!r} is unknown: the known ones are {', '.join(VIEWS)}")
        self.data, self.settings = data, settings
        self.recommender = LightGCN(data, settings)
        self.views: list[list[Sparse]] = []  # two, each with one adjacency a layer

    def examples(self, rng):
        self.views = [self._view(rng) for _ in range(2)]
        return self.recommender.examples(rng)

    def _view(self, rng: np.random.Generator) -> list[Sparse]:
        data, asked = self.data, self.settings
        size = data.n_users, data.n_items

        def thinned() -> Sparse:
            kept = kept_edges(asked.view, data.users, data.items, *size, asked.drop, rng)
            return normalised_adjacency(data.users[kept], data.items[kept], *size)

        if asked.view == "random walk":
            return [thinned() for _ in range(asked.layers)]
        return [thinned()] * asked.layers

    def loss(self, u, i, j):
        first, second = (propagate(view, self.recommender.e) for view in self.views)  # [U + I, D]
        contrast = sum(
            info_nce(first[distinct], second[distinct], self.settings.temperature)
            for distinct in (u.unique(), i.unique() + self.data.n_users)
        )
        return self.recommender.loss(u, i, j) + self.settings.contrast * contrast

    def scores(self, users, histories=None):
        return self.recommender.scores(users)  # [B, I]

    def user_embeddings(self, histories=None):
        return self.recommender.user_embeddings()  # [U, D]


BACKBONES["SGL"] = Backbone("direct", SGL, SGLSettings)
