"""InfoNCE, which SGL and CL4SRec share."""

import torch
import torch.nn.functional as F


def info_nce(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """-mean_n log softmax_m(cos(z'_n, z''_m) / temperature)[n], for two views [N, D] of the same N things.

    A thing's two views are to be alike, and unlike the second views of the other N - 1 (van den Oord et al., 2018).
    """
    similar = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature  # [N, N]
    return F.cross_entropy(similar, torch.arange(len(first)))
