"""Attention of a packed row of trees, computed where a tree can look and nowhere else.

A row of T tokens holds several prompts, and no prompt sees another, so of the T x T products most are masked. Here the
root attends to itself, and each prompt to the root and itself.
Registered with `transformers` under the name "tree"; without `trees` it is the library's own "sdpa".
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    trees: Sequence[tuple[int, int, int]] | None = None,
    root: int = 0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, T, D]; key, value [1, heads / groups, T, D]; attention_mask [1, 1, T, T] bool.

    trees: of every prompt in turn, where its own prefix begins, where that ends and its branches begin, where they end.
    root: how many tokens the row begins with that every prompt sees. Returns [1, T, heads, D].
    """
    if trees is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)

    out = []
    if root:
        q, k, v = (each[:, :, :root] for each in (query, key, value))
        out.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling))
    for begin, _, end in trees:
        q, k, v, mask = *(each[:, :, begin:end] for each in (query, key, value)), attention_mask[:, :, begin:end]
        seen = mask[..., begin:end]
        if root:
            k, v = (torch.cat([each[:, :, :root], own], dim=2) for each, own in ((key, k), (value, v)))
            seen = torch.cat([mask[..., :root], seen], dim=3)
        out.append(F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling))
    return torch.cat(out, dim=2).transpose(1, 2), None


AttentionInterface.register("tree", tree_attention)
AttentionMaskInterface.register("tree", sdpa_mask)
