"""Direct recommendation: SGL, LightGCN with a contrastive loss added."""

from dataclasses import dataclass

from torch import nn

from .fit import TrainingData, info_nce
from .graph import Sparse, normalised_adjacency, propagate
from .lightgcn import LightGCN, LightGCNSettings


@dataclass(frozen=True)
class SGLSettings(LightGCNSettings):
    drop: float = 0.3  # share of edges left out of a view
    temperature: float = 0.5  # of InfoNCE
    contrast: float = 0.01  # weight of InfoNCE in the loss
    epochs: int = 100
    patience: int = 15


class SGL(nn.Module):
    """SGL (Wu et al., SIGIR 2021) by edge dropout: loss = LightGCN's + contrast (InfoNCE over users + over items).

    Each epoch draws two views of the graph, each keeping an edge with probability 1 - drop. z' and z'' are the two
    views' propagated embeddings; a batch's distinct users (and positive items) are each other's negatives.
    Recommendations come from the whole graph.
    """

    def __init__(self, data: TrainingData, settings: SGLSettings):
        super().__init__()
        self.data, self.settings, self.recommender = data, settings, LightGCN(data, settings)
        self.views: list[Sparse] = []

    def examples(self, rng):
        users, items, size = self.data.users, self.data.items, (self.data.n_users, self.data.n_items)
        kept = (rng.random(len(users)) >= self.settings.drop for _ in range(2))  # bool [N] each
        self.views = [normalised_adjacency(users[edges], items[edges], *size) for edges in kept]
        return self.recommender.examples(rng)

    def loss(self, u, i, j):
        layers = self.settings.layers
        first, second = (propagate([view] * layers, self.recommender.e) for view in self.views)  # [U + I, D]
        contrast = sum(
            info_nce(first[distinct], second[distinct], self.settings.temperature)
            for distinct in (u.unique(), i.unique() + self.data.n_users)
        )
        return self.recommender.loss(u, i, j) + self.settings.contrast * contrast

    def scores(self, users, histories=None):
        return self.recommender.scores(users)  # [B, I]

    def user_embeddings(self, histories=None):
        return self.recommender.user_embeddings()  # [U, D]
