"""Direct recommendation: MixGCF, LightGCN with hard negatives that are mixed from real ones."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .direct import LightGCN, bpr_loss, hops
from .fit import BACKBONES, Backbone, NegativeSampler, TrainingData


@dataclass(frozen=True)
class MixGCFSettings:
    dim: int = 64  # D
    layers: int = 2  # L, of propagation
    negatives: int = 16  # M, candidates that a hard negative is mixed from
    lr: float = 0.01  # of Adam
    batch_size: int = 4096  # pairs
    l2: float = 1e-4  # on the layer-0 embeddings of a batch's users and items
    epochs: int = 60  # at most
    patience: int = 8  # epochs without a better validation NDCG@10


def mix_positive(positive: torch.Tensor, negative: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Positive mixing: e' = share e_+ + (1 - share) e_-, for anything of one shape; `share` is uniform in (0, 1)."""
    return share * positive + (1 - share) * negative


@torch.no_grad()
def hardest(query: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Hop mixing: which of M candidates, mixed with the positive, fits the query best at each of H hops, int64 [B, H].

    query [B, D], negatives [B, M, H, D]. All M get the same share of the same positive, which leaves their order as it
    is: the one that fits best unmixed.
    """
    return torch.einsum("bd,bmhd->bmh", query, negatives).argmax(dim=1)


class MixGCF(nn.Module):
    """MixGCF (Huang et al., KDD 2021) on LightGCN: BPR against a negative that no item has.

    Of M un-interacted items, each mixed with the positive (`mix_positive`, a share a hop), every hop takes the one that
    fits the user best (`hardest`), and e_mixed is the mean over hops:
    loss = -log sigmoid(e_u . e_i+ - e_u . e_mixed) + L2.
    An augmented triple (u, i+, i-) has i- as its only candidate.
    """

    def __init__(self, data: TrainingData, settings: MixGCFSettings):
        super().__init__()
        self.data, self.settings, self.sampler = data, settings, NegativeSampler(data)
        self.recommender = LightGCN(data, settings)

    def examples(self, rng):
        """Users [N], positives [N], candidates [N, M]."""
        u, i = self.data.users, self.data.items
        candidates = self.sampler.draw(np.repeat(u[:, None], self.settings.negatives, axis=1), rng)  # [N, M]
        if self.data.triples is None:
            return u, i, candidates
        user, positive, negative = self.data.triples.T
        again = np.repeat(negative[:, None], self.settings.negatives, axis=1)
        return np.concatenate([u, user]), np.concatenate([i, positive]), np.concatenate([candidates, again])

    def loss(self, u, i, candidates):
        e = self.recommender.e  # E^0
        at = hops(self.recommender.adjacency, e)  # [U + I, H, D] at H = L + 1 hops
        first, n_hops = self.data.n_users, at.shape[1]
        flat, hop = at.flatten(0, 1), torch.arange(n_hops)  # [(U + I) H, D], [H]
        e_u = F.embedding(u, at.mean(dim=1))  # [B, D]
        e_i = F.embedding((i + first).unsqueeze(-1) * n_hops + hop, flat)  # [B, H, D]
        rows = (candidates + first).unsqueeze(-1) * n_hops + hop  # [B, M, H], places in flat
        best = hardest(e_u, F.embedding(rows, flat.detach())).unsqueeze(1)  # [B, 1, H]
        e_j = F.embedding(rows.gather(1, best).squeeze(1), flat)  # [B, H, D]
        mixed = mix_positive(e_i, e_j, torch.rand(len(u), n_hops, 1)).mean(dim=1)  # [B, D]
        nodes = torch.stack([u, i + first, candidates[:, 0] + first])  # [3, B]
        size = F.embedding(nodes, e).square().sum(dim=(0, 2))  # [B]
        return (
            bpr_loss((e_u * e_i.mean(dim=1)).sum(dim=1), (e_u * mixed).sum(dim=1)) + self.settings.l2 / 2 * size.mean()
        )

    def scores(self, users, histories=None):
        return self.recommender.scores(users)  # [B, I]

    def user_embeddings(self, histories=None):
        return self.recommender.user_embeddings()  # [U, D]


BACKBONES["MixGCF"] = Backbone("direct", MixGCF, MixGCFSettings)
