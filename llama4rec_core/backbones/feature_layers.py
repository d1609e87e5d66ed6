"""The feature models' layers in few large operations, with deepctr-torch's own weights.

Each function takes the layer that it stands for. Shapes: B rows, F features, D entries an embedding. Matrices of F by F
or F by D are too small to be multiplied one at a time: attention and compressed interactions put B last and multiply
the entries of all rows at once.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def pair_attention(layer: nn.Module, given: list[torch.Tensor]) -> torch.Tensor:
    """AFM: p . sum_f<g a_fg (v_f * v_g), a = softmax(h . relu(W (v_f * v_g) + b))."""
    v = given[0].permute(2, 1, 0).contiguous()  # [D, F, B]
    pairs = _Pairs.apply(v)  # [D, P, B]
    hidden = F.relu(torch.addmm(layer.attention_b[:, None], layer.attention_W.T, pairs.flatten(1)))  # [A, P B]
    a = (layer.projection_h.T @ hidden).view(pairs.shape[1:]).softmax(dim=0)  # [P, B]
    return layer.dropout((a * pairs).sum(dim=1)).T @ layer.projection_p  # [B, 1]


class _Pairs(torch.autograd.Function):
    """v_f * v_g of all f < g: [D, F, B] to [D, P, B]. The pairs of one f are neighbours, written in place."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        count = v.shape[1]
        out = v.new_empty(len(v), count * (count - 1) // 2, v.shape[2])
        for f, own in enumerate(out.split(list(range(count - 1, 0, -1)), dim=1)):
            torch.mul(v[:, f : f + 1], v[:, f + 1 :], out=own)
        return out

    @staticmethod
    def backward(ctx, gradient):
        (v,) = ctx.saved_tensors
        out = torch.zeros_like(v)
        for f, own in enumerate(gradient.split(list(range(v.shape[1] - 1, 0, -1)), dim=1)):
            out[:, f + 1 :].addcmul_(own, v[:, f : f + 1])
            out[:, f] += (own * v[:, f + 1 :]).sum(dim=1)
        return out


def crosses(layer: nn.Module, x_0: torch.Tensor) -> torch.Tensor:
    """DCN: x_(l+1) = x_0 (x_l . w_l) + b_l + x_l, [B, F D]."""
    x = x_0
    for w, b in zip(layer.kernels, layer.bias, strict=True):  # [F D, 1] each
        x = torch.addcmul(x + b.T, x_0, x @ w)
    return x


def compressed_interactions(layer: nn.Module, v: torch.Tensor) -> torch.Tensor:
    """xDeepFM: x^k_h = relu(sum_(i,j) W^k_(h,i,j) x^(k-1)_i * v_j), x^0_i = v_i.

    Half of each layer's maps feed the next layer. The other half, and all of the last layer's, are summed over D.
    """
    v = v.permute(1, 2, 0).contiguous()  # [F, D, B]
    x, read = v, []
    for n, conv in enumerate(layer.conv1ds, start=1):  # weights [H_k, H_(k-1) F, 1]
        products = (x.unsqueeze(1) * v).view(len(x) * len(v), -1)  # [H_(k-1) F, D B]
        x = F.relu(conv.weight.squeeze(2) @ products + conv.bias[:, None]).view(-1, *v.shape[1:])  # [H_k, D, B]
        x, out = x.chunk(2) if n < len(layer.conv1ds) else (None, x)
        read.append(out.sum(dim=1))
    return torch.cat(read).T  # [B, maps read out]


def self_attention(layer: nn.Module, v: torch.Tensor) -> torch.Tensor:
    """AutoInt: a_f = relu(W_r v_f + sum_g softmax_g(<W_q v_f, W_k v_g>) W_v v_g), its H heads side by side."""
    weights = torch.cat([layer.W_Query, layer.W_key, layer.W_Value, layer.W_Res], dim=1)  # [D, 4 D]
    v = v.permute(2, 1, 0)  # [D, F, B]
    q, k, value, own = (weights.T @ v.flatten(1)).view(4, *v.shape)
    q, k, value = (x.unflatten(0, (layer.head_num, -1)) for x in (q, k, value))  # [H, D / H, F, B]
    a = (q.unsqueeze(3) * k.unsqueeze(2)).sum(dim=1).softmax(dim=2)  # [H, F, F, B]
    attended = (a.unsqueeze(1) * value.unsqueeze(2)).sum(dim=3)  # [H, D / H, F, B]
    return F.relu(attended.flatten(0, 1) + own).permute(2, 1, 0)  # [B, F, D]


def byte_dropout(layer: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
    """Dropout with p rounded to a 256th, 255 of them at most: random bytes, eight in one draw of the CPU."""
    below = min(round(256 * layer.p), 255)
    if not layer.training or not below:
        return x
    drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    kept = (drawn[: x.numel()].view(x.shape) >= below).float()
    return x * kept.mul_(256 / (256 - below))


OURS = {
    "AFMLayer": pair_attention,
    "CrossNet": crosses,
    "CIN": compressed_interactions,
    "InteractingLayer": self_attention,
    "Dropout": byte_dropout,
}


def with_our_layers(model: nn.Module) -> nn.Module:
    """`model`, changed in place: the layers named in OURS compute by ours."""
    for layer in model.modules():
        if type(layer).__name__ in OURS:
            layer.forward = partial(OURS[type(layer).__name__], layer)
    return model
