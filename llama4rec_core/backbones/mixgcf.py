"""Direct recommendation: MixGCF, LightGCN with hard negatives mixed from real items."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .fit import TrainingData, bpr_examples, bpr_loss
from .graph import hops
from .lightgcn import LightGCN, LightGCNSettings


@dataclass(frozen=True)
class MixGCFSettings(LightGCNSettings):
    negatives: int = 16  # M, candidates that a hard negative is mixed from
    epochs: int = 60
    patience: int = 8


def mix_positive(positive: torch.Tensor, negative: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Positive mixing: e' = share e_+ + (1 - share) e_-, entry by entry. MixGCF draws `share` uniformly from (0, 1)."""
    return share * positive + (1 - share) * negative


@torch.no_grad()
def hardest(query: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Hop mixing: which of M candidates has the largest inner product with the query at each of H hops, int64 [B, H].

    query [B, D], negatives [B, M, H, D]. Positive mixing adds the same share of the same positive to all M candidates,
    so their order is that of the unmixed ones.
    """
    return torch.einsum("bd,bmhd->bmh", query, negatives).argmax(dim=1)


class MixGCF(nn.Module):
    """MixGCF (Huang et al., KDD 2021) on LightGCN: BPR against a synthetic negative.

    loss = -log sigmoid(e_u . e_i+ - e_u . e_mixed) + L2, e_mixed the mean over hops. Each hop takes the `hardest` of M
    un-interacted items, mixed with the positive by `mix_positive`, a share for each hop. An augmented triple
    (u, i+, i-) has i- as its only candidate.
    """

    def __init__(self, data: TrainingData, settings: MixGCFSettings):
        super().__init__()
        self.data, self.settings, self.recommender = data, settings, LightGCN(data, settings)

    def examples(self, rng):
        """Users [N], positives [N], candidates [N, M]."""
        return bpr_examples(self.data, rng, self.settings.negatives)

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
        y_i, y_mixed = (e_u * e_i.mean(dim=1)).sum(dim=1), (e_u * mixed).sum(dim=1)  # [B]
        return bpr_loss(y_i, y_mixed) + self.settings.l2 / 2 * size.mean()

    def scores(self, users, histories=None):
        return self.recommender.scores(users)  # [B, I]

    def user_embeddings(self, histories=None):
        return self.recommender.user_embeddings()  # [U, D]
