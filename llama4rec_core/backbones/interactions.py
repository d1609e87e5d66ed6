"""What the rating models make of their features: deepctr-torch's layers with the same weights, in few large operations.

Each takes the layer it stands in for, with that layer's defaults. B rows, F features, D entries an embedding. Matrices
of F by F or F by D are too small for a product of their own: in attention and compressed interactions B therefore goes
last, and all rows' entries are multiplied at once.
"""

import torch
import torch.nn.functional as F
from torch import nn


class PairAttention(nn.Module):
    """AFM: p . sum_f<g a_fg (v_f * v_g), a = softmax(h . relu(W (v_f * v_g) + b))."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.attention_W, self.attention_b = layer.attention_W, layer.attention_b  # [D, A], [A]
        self.projection_h, self.projection_p = layer.projection_h, layer.projection_p  # [A, 1], [D, 1]
        self.dropout = layer.dropout

    def forward(self, given):
        v = given[0].permute(2, 1, 0).contiguous()  # [D, F, B]
        pairs = _Pairs.apply(v)  # [D, P, B]
        hidden = F.relu(torch.addmm(self.attention_b[:, None], self.attention_W.T, pairs.flatten(1)))  # [A, P B]
        a = (self.projection_h.T @ hidden).view(pairs.shape[1:]).softmax(dim=0)  # [P, B]
        return self.dropout((a * pairs).sum(dim=1)).T @ self.projection_p  # [B, 1]


class _Pairs(torch.autograd.Function):
    """v_f * v_g of all f < g: [D, F, B] to [D, P, B]. For each f its pairs stand together; both ways in place."""

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


class Crosses(nn.Module):
    """DCN: x_(l+1) = x_0 (x_l . w_l) + b_l + x_l."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.kernels, self.bias = layer.kernels, layer.bias  # [L, F D, 1] each

    def forward(self, x_0):
        x = x_0  # [B, F D]
        for w, b in zip(self.kernels, self.bias, strict=True):
            x = torch.addcmul(x + b.T, x_0, x @ w)
        return x


class CompressedInteractions(nn.Module):
    """xDeepFM: x^k_h = relu(sum_(i,j) W^k_(h,i,j) x^(k-1)_i * v_j), x^0_i = v_i. Half of each layer's maps go on to the
    next, the others, and all of the last layer's, are summed over D and read out."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.conv1ds = layer.conv1ds  # weights [H_k, H_(k-1) F, 1]

    def forward(self, v):
        v = v.permute(1, 2, 0).contiguous()  # [F, D, B]
        x, read = v, []
        for n, conv in enumerate(self.conv1ds, start=1):
            products = (x.unsqueeze(1) * v).view(len(x) * len(v), -1)  # [H_(k-1) F, D B]
            x = F.relu(conv.weight.squeeze(2) @ products + conv.bias[:, None]).view(-1, *v.shape[1:])  # [H_k, D, B]
            x, out = x.chunk(2) if n < len(self.conv1ds) else (None, x)
            read.append(out.sum(dim=1))
        return torch.cat(read).T  # [B, sum of what is read]


class SelfAttention(nn.Module):
    """AutoInt: a_f = relu(W_r v_f + sum_g softmax_g(<W_q v_f, W_k v_g>) W_v v_g), its H heads side by side."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.W_Query, self.W_key, self.W_Value, self.W_Res = layer.W_Query, layer.W_key, layer.W_Value, layer.W_Res
        self.heads = layer.head_num

    def forward(self, v):
        weights = torch.cat([self.W_Query, self.W_key, self.W_Value, self.W_Res], dim=1)  # [D, 4 D]
        v = v.permute(2, 1, 0)  # [D, F, B]
        q, k, value, own = (weights.T @ v.flatten(1)).view(4, *v.shape)
        q, k, value = (x.unflatten(0, (self.heads, -1)) for x in (q, k, value))  # [H, D / H, F, B]
        a = (q.unsqueeze(3) * k.unsqueeze(2)).sum(dim=1).softmax(dim=2)  # [H, F, F, B]
        attended = (a.unsqueeze(1) * value.unsqueeze(2)).sum(dim=3)  # [H, D / H, F, B]
        return F.relu(attended.flatten(0, 1) + own).permute(2, 1, 0)  # [B, F, D]


class ByteDropout(nn.Module):
    """Dropout with p rounded to a 256th, by random bytes of which a CPU draws eight at a time."""

    def __init__(self, layer: nn.Dropout):
        super().__init__()
        self.below = round(256 * layer.p)

    def forward(self, x):
        if not self.training or not self.below:
            return x
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
        kept = (drawn[: x.numel()].view(x.shape) >= self.below).float()
        return x * kept.mul_(256 / (256 - self.below))


OURS = {
    "AFMLayer": PairAttention,
    "CrossNet": Crosses,
    "CIN": CompressedInteractions,
    "InteractingLayer": SelfAttention,
    "Dropout": ByteDropout,
}


def with_our_layers(model: nn.Module) -> nn.Module:
    """`model` with each layer that OURS names replaced by ours."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in OURS:
                setattr(parent, name, with_our_layers(OURS[type(child).__name__](child)))
    return model
