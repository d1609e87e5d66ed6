"""The parts of the backbones, by hand: views and InfoNCE, mixed negatives, cloze, crop / mask / reorder, and the
feature models' interaction terms."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4rec_core.backbones import backbone_of
from llama4rec_core.backbones.bert4rec import BERT4Rec, BERT4RecSettings, cloze
from llama4rec_core.backbones.cl4srec import CL4SRec, CL4SRecSettings, crop, masked, reorder
from llama4rec_core.backbones.feature_layers import with_our_layers
from llama4rec_core.backbones.feature_models import columns_of
from llama4rec_core.backbones.features import fields_of
from llama4rec_core.backbones.fit import TrainingData, info_nce, settings_of
from llama4rec_core.backbones.graph import Sparse, hops, normalised_adjacency, product, propagate
from llama4rec_core.backbones.mixgcf import MixGCF, MixGCFSettings, hardest, mix_positive
from llama4rec_core.backbones.sgl import SGL, SGLSettings
from llama4rec_core.backbones.transformer import Block, item_loss

SEEDS = st.integers(0, 2**31)


def dense(matrix: Sparse) -> torch.Tensor:
    return matrix @ torch.eye(matrix.shape[1])


def graph_data(**more) -> TrainingData:
    return TrainingData(3, 4, [0, 0, 1, 1, 2], [0, 1, 1, 2, 3], np.ones(5), **more)


# --- InfoNCE ----------------------------------------------------------------------------------------------------


def test_info_nce_by_hand():
    """Cosines of (z'_0, z''_0), (z'_0, z''_1), (z'_1, z''_0), (z'_1, z''_1): 1, 0, 0.6, 0.8; lengths say nothing."""
    first, second = torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    by_hand = (math.log(1 + math.exp(-1 / 0.5)) + math.log(1 + math.exp((0.6 - 0.8) / 0.5))) / 2
    assert info_nce(first, second, 0.5).item() == pytest.approx(by_hand, rel=1e-6)


# --- SGL --------------------------------------------------------------------------------------------------------


class Drawn:
    """Stands for a random generator whose draws are known."""

    def __init__(self, *draws):
        self.draws = [np.array(draw) for draw in draws]

    def random(self, shape):
        return np.broadcast_to(self.draws.pop(0), shape)

    def integers(self, low, high):
        draw = self.draws.pop(0)
        assert (low <= draw).all() and (draw < high).all()
        return draw


def view_of(seed: int, **change) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The edges of a graph of 30 users and 20 items, bool [U + I, U + I], and SGL's two views of it."""
    users, items = np.divmod(np.flatnonzero(np.random.default_rng(0).random(30 * 20) < 0.5), 20)
    module = SGL(TrainingData(30, 20, users, items, np.ones(len(users))), SGLSettings(layers=3, dim=4, **change))
    module.examples(np.random.default_rng(seed))
    return dense(module.recommender.adjacency[0]) > 0, [dense(view) for view in module.views]


def test_a_view_keeps_edges_by_hand():
    """Draws of at least 0.5 stay: of the edges 0-0, 0-1, 1-1, 1-2, 2-3 the first and third, then the last."""
    module = SGL(graph_data(), SGLSettings(dim=4, drop=0.5))
    module.recommender.examples = lambda rng: None
    module.examples(Drawn([0.9, 0.1, 0.5, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0, 0.7]))
    first, second = (np.argwhere(dense(view)[:3, 3:].numpy() > 0).tolist() for view in module.views)
    assert first == [[0, 0], [1, 1]] and second == [[2, 3]]


def test_edge_dropout_keeps_the_share_it_is_told_to():
    whole, views = view_of(1, drop=0.0)
    assert all(torch.equal(view > 0, whole) for view in views)
    kept = [(view > 0).sum() / whole.sum() for seed in range(100) for view in view_of(seed, drop=0.3)[1]]
    assert float(sum(kept)) / len(kept) == pytest.approx(0.7, abs=0.01)


def test_a_view_is_a_normalised_thinner_graph():
    whole, views = view_of(1, drop=0.3)
    for adjacency in views:
        edges = adjacency > 0
        degree = edges.sum(dim=1)
        expected = torch.where(edges, 1 / (degree[:, None] * degree[None]).float().sqrt(), 0.0)
        torch.testing.assert_close(adjacency, expected)  # degrees are the view's own
        assert not (edges & ~whole).any() and edges.sum() < whole.sum()
    assert not torch.equal(*views)


def test_sgl_loss_is_bpr_plus_info_nce_of_users_and_items():
    data = graph_data()
    module = SGL(data, SGLSettings(dim=4, drop=0.0, contrast=0.7, l2=0.0, temperature=0.3))
    module.examples(np.random.default_rng(0))  # nothing dropped: both views are the graph
    u, i, j = torch.tensor([0, 0, 2]), torch.tensor([0, 1, 3]), torch.tensor([2, 3, 0])
    e = propagate(module.recommender.adjacency, module.recommender.e)
    users, items = e[:3], e[3:]
    bpr = -F.logsigmoid((users[u] * (items[i] - items[j])).sum(1)).mean()
    alike = info_nce(users[[0, 2]], users[[0, 2]], 0.3) + info_nce(items[[0, 1, 3]], items[[0, 1, 3]], 0.3)
    torch.testing.assert_close(module.loss(u, i, j), bpr + 0.7 * alike)


# --- MixGCF -----------------------------------------------------------------------------------------------------


def test_positive_mixing_by_hand():
    mixed = mix_positive(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.25, 0.5]))
    assert mixed.tolist() == [0.25 * 1 + 0.75 * 3, 0.5 * 0 + 0.5 * 4]


def test_hop_mixing_by_hand():
    """One user, two hops, two candidates: the first entry decides, 2 > 1 at hop 0 and 4 > 3 at hop 1."""
    query = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[[[1.0, 5.0], [4.0, 0.0]], [[2.0, -5.0], [3.0, 0.0]]]])
    assert hardest(query, negatives).tolist() == [[1, 0]]


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), SEEDS)
def test_hop_mixing_is_the_arg_max_over_the_mixtures(b, m, h, seed):
    rng = torch.Generator().manual_seed(seed)
    query, positive = torch.randn(b, 3, generator=rng), torch.randn(b, h, 3, generator=rng)
    negatives, share = torch.randn(b, m, h, 3, generator=rng), torch.rand(b, 1, h, 1, generator=rng)
    score = (query[:, None, None] * mix_positive(positive[:, None], negatives, share)).sum(-1)  # [B, M, H]
    chosen = score.gather(1, hardest(query, negatives)[:, None])[:, 0]
    torch.testing.assert_close(chosen, score.amax(dim=1), atol=1e-5, rtol=1e-4)


def test_mixgcf_loss_with_one_candidate_by_hand(monkeypatch):
    """With shares of 0 and one candidate the negative is the item itself: LightGCN's BPR."""
    data = graph_data()
    module = MixGCF(data, MixGCFSettings(dim=4, negatives=1, l2=0.0, layers=1))
    u, i, j = torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([3, 0])
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.zeros(*shape))
    e = propagate(module.recommender.adjacency, module.recommender.e)
    bpr = -F.logsigmoid((e[u] * (e[3 + i] - e[3 + j])).sum(1)).mean()
    torch.testing.assert_close(module.loss(u, i, j[:, None]), bpr)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.ones(*shape))  # all positive: nothing to tell apart
    assert module.loss(u, i, j[:, None]).item() == pytest.approx(math.log(2), rel=1e-6)


def test_a_triples_negative_is_mixgcfs_only_candidate():
    module = MixGCF(graph_data(triples=np.array([[2, 0, 1]])), MixGCFSettings(dim=4, negatives=3))
    u, i, candidates = module.examples(np.random.default_rng(0))
    assert (u[-1], i[-1], candidates[-1].tolist()) == (2, 0, [1, 1, 1]) and candidates.shape == (6, 3)


def test_hops_are_the_powers_of_the_adjacency():
    adjacency = normalised_adjacency(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, 2)
    e, a = torch.randn(4, 2), dense(adjacency)
    at = hops([adjacency] * 2, e)
    torch.testing.assert_close(at, torch.stack([e, a @ e, a @ a @ e], dim=1))
    torch.testing.assert_close(at.mean(dim=1), propagate([adjacency] * 2, e))


def test_propagation_is_torch_geometrics():
    reference = pytest.importorskip("torch_geometric.nn")
    rng = np.random.default_rng(0)
    users, items = np.divmod(np.flatnonzero(rng.random(12 * 9) < 0.4), 9)
    e = torch.randn(21, 5)
    peer = reference.LightGCN(21, 5, num_layers=3)
    with torch.no_grad():
        peer.embedding.weight.copy_(e)
    edges = torch.from_numpy(np.stack([np.append(users, items + 12), np.append(items + 12, users)]))
    ours = propagate([normalised_adjacency(users, items, 12, 9)] * 3, e)
    torch.testing.assert_close(ours, peer.get_embedding(edges).detach(), rtol=1e-5, atol=1e-6)


# --- the transformer block --------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
def test_the_block_is_torchs_own_with_the_same_weights(causal):
    block = Block(dim=12, heads=3, dropout=0.0)
    peer = torch.nn.TransformerEncoderLayer(12, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_weight": block.query_key_value.weight, "self_attn.in_proj_bias": block.query_key_value.bias,
        "self_attn.out_proj": block.project, "linear1": block.widen, "linear2": block.narrow,
        "norm1": block.norm_attention, "norm2": block.norm_forward,
    }  # fmt: skip
    state = {}
    for name, part in names.items():
        state |= (
            {name: part} if isinstance(part, torch.Tensor) else {f"{name}.{k}": v for k, v in part.named_parameters()}
        )
    peer.load_state_dict(state)
    x = torch.randn(2, 7, 12)
    visible = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    if causal:
        ours, theirs = block(x), peer(x, torch.nn.Transformer.generate_square_subsequent_mask(7))
    else:
        ours, theirs = block(x, visible[:, None, None]), peer(x, src_key_padding_mask=~visible)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_item_loss_by_hand_over_all_items_and_over_samples():
    torch.manual_seed(0)
    h, weight, bias = torch.randn(1, 2, 3), torch.randn(5, 3), torch.randn(4)  # 4 items and a pad
    target = torch.tensor([[2, 4]])
    y = weight[:4] @ h[0, 0] + bias
    torch.testing.assert_close(item_loss(h, target, weight, 4, bias=bias), -torch.log_softmax(y, 0)[2])
    among = torch.log_softmax(y[[2, 0, 3]], 0)
    torch.testing.assert_close(item_loss(h, target, weight, 4, torch.tensor([[0, 3]]), bias), -among[0])
    every_other = torch.tensor([[0, 1, 3]])
    torch.testing.assert_close(item_loss(h, target, weight, 4, every_other), item_loss(h, target, weight, 4))


# --- BERT4Rec ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.floats(0, 1), SEEDS)
def test_cloze_hides_some_items_and_never_none(lengths, share, seed):
    rows = np.array([[*range(n), *[99] * (8 - n)] for n in lengths])
    given_, wanted = cloze(rows, share, 99, 77, np.random.default_rng(seed))
    for n, row, shown, hidden in zip(lengths, rows, given_, wanted, strict=True):
        at = shown == 77
        assert at.any() and not at[n:].any()
        np.testing.assert_array_equal(hidden[at], row[at])
        assert (hidden[~at] == 99).all() and (shown[~at] == row[~at]).all()
        if share == 0:
            assert np.flatnonzero(at).tolist() == [n - 1]
        if share == 1:
            assert at[:n].all()


def test_cloze_by_hand():
    """Pad 9, mask 8: draws below 0.3 are hidden; where there is none, the last item is."""
    rows = np.array([[1, 2, 3, 9], [4, 5, 9, 9]])
    items, targets = cloze(rows, 0.3, 9, 8, Drawn([[0.1, 0.5, 0.2, 0.0], [0.9, 0.9, 0.0, 0.0]]))
    assert items.tolist() == [[8, 2, 8, 9], [4, 8, 9, 9]]
    assert targets.tolist() == [[1, 9, 3, 9], [9, 5, 9, 9]]


def test_cloze_hides_the_share_it_is_told_to():
    given_, _ = cloze(np.zeros((500, 40), int), 0.25, 99, 77, np.random.default_rng(0))
    assert (given_ == 77).mean() == pytest.approx(0.25, abs=0.01)


def bert(**change) -> BERT4Rec:
    data = TrainingData(2, 20, [0] * 5 + [1] * 3, [*range(5), 7, 8, 9], np.ones(8))
    return BERT4Rec(data, BERT4RecSettings(dim=8, length=6, **change)).eval()


def test_bert4rec_looks_both_ways_and_never_at_the_padding():
    module = bert()
    x = torch.tensor([[1, 2, 3, 4, module.pad, module.pad]])
    later = torch.tensor([[1, 2, 3, 9, module.pad, module.pad]])
    assert (module(x)[:, :3] - module(later)[:, :3]).abs().amax(dim=2).min() > 1e-4
    torch.testing.assert_close(module(x)[:, :4], module(x[:, :4]))


def test_bert4rec_learns_at_masked_places_only():
    module = bert()
    items = torch.tensor([[1, module.mask, 3, module.pad], [module.mask, 5, 6, module.mask]])
    targets = torch.full_like(items, module.pad)
    targets[0, 1], targets[1, 0], targets[1, 3] = 2, 4, 7
    log_p = torch.log_softmax(module.logits(module(items)), dim=-1)
    by_hand = -(log_p[0, 1, 2] + log_p[1, 0, 4] + log_p[1, 3, 7]) / 3
    torch.testing.assert_close(module.loss(items, targets), by_hand)


def test_bert4rec_reads_a_mask_after_the_end_of_the_history():
    module = bert()
    history = np.arange(9)
    with torch.no_grad():
        expected = module.logits(module(torch.tensor([[4, 5, 6, 7, 8, module.mask]]))[:, -1])
        torch.testing.assert_close(module.scores(None, [history]), expected)
        torch.testing.assert_close(module.scores(None, [history, history[:2]])[:1], expected)
        assert module.scores(None, [np.array([], dtype=int)]).isfinite().all()


def test_every_epoch_of_bert4rec_has_each_sequences_end_with_its_last_item_masked():
    module = bert()
    items, targets = module.examples(np.random.default_rng(0))
    ends = items[-2:]
    assert ends.tolist() == [[0, 1, 2, 3, 21, 20], [7, 8, 21, 20, 20, 20]]
    assert targets[-2:].max(axis=1).tolist() == [20, 20] and targets[-2, 4] == 4 and targets[-1, 2] == 9


# --- CL4SRec ----------------------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def rows_of(lengths: list[int], width: int = 9, pad: int = 99) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[*range(10, 10 + n), *[pad] * (width - n)] for n in lengths]), np.array(lengths)


def test_crop_mask_and_reorder_by_hand():
    rows, n = rows_of([5, 2], width=6)  # 10 11 12 13 14 | 10 11
    assert crop(rows, n, 0.6, 99, Drawn([1, 1])).tolist() == [[11, 12, 13, 99, 99, 99], [11, 99, 99, 99, 99, 99]]
    draws = [[0.5, 0.1, 0.9, 0.2, 0.7, 0.0], [0.3, 0.2, 0.0, 0.0, 0.0, 0.0]]  # the smallest are masked: floor(0.5 n)
    assert masked(rows, n, 0.5, 7, Drawn(draws)).tolist() == [[10, 7, 12, 7, 14, 99], [10, 7, 99, 99, 99, 99]]
    # floor(0.6 n) = 3 from place 1: 11 12 13 in the order of their draws; of user 1 one, which stays
    draws = [[0.0, 0.9, 0.1, 0.5, 0.0, 0.0]] * 2
    assert reorder(rows, n, 0.6, Drawn([1, 0], draws)).tolist() == [[10, 12, 13, 11, 14, 99], [10, 11, 99, 99, 99, 99]]


@settings(max_examples=60)
@given(LENGTHS, st.floats(0.05, 1), SEEDS)
def test_a_crop_is_a_run_of_the_sequence(lengths, share, seed):
    rows, n = rows_of(lengths)
    out = crop(rows, n, share, 99, np.random.default_rng(seed))
    for row, size in zip(out, n, strict=True):
        real = row[row != 99]
        assert len(real) == max(1, int(share * size)) and (row[len(real) :] == 99).all()
        np.testing.assert_array_equal(real, real[0] + np.arange(len(real)))
        assert 10 <= real[0] and real[-1] < 10 + size


@settings(max_examples=60)
@given(LENGTHS, st.floats(0, 1), SEEDS)
def test_masking_replaces_its_share_and_nothing_else(lengths, share, seed):
    rows, n = rows_of(lengths)
    out = masked(rows, n, share, 77, np.random.default_rng(seed))
    np.testing.assert_array_equal((out == 77).sum(axis=1), (share * n).astype(int))
    np.testing.assert_array_equal(out[out != 77], rows[out != 77])
    assert ((out == 77) <= (rows != 99)).all()


@settings(max_examples=60)
@given(LENGTHS, st.floats(0, 1), SEEDS)
def test_reordering_shuffles_one_run(lengths, share, seed):
    rows, n = rows_of(lengths)
    out = reorder(rows, n, share, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(out, axis=1), np.sort(rows, axis=1))
    for row, before, size in zip(out, rows, n, strict=True):
        moved = np.flatnonzero(row != before)
        assert not len(moved) or moved[-1] - moved[0] < int(share * size)


def test_every_order_of_a_run_comes_up():
    rows, n = rows_of([3] * 600, width=3)
    out = reorder(rows, n, 1.0, np.random.default_rng(0))
    orders, counts = np.unique(out, axis=0, return_counts=True)
    assert len(orders) == 6 and counts.min() > 60


def test_cl4srec_loss_is_sasrecs_plus_info_nce_of_the_last_states():
    data = TrainingData(2, 20, [0] * 5 + [1] * 3, [*range(5), 7, 8, 9], np.ones(8))
    module = CL4SRec(data, CL4SRecSettings(dim=8, length=4, contrast=0.7, temperature=0.3)).eval()
    window, first, second = map(torch.from_numpy, module.examples(np.random.default_rng(0)))
    ends = [
        torch.stack([module.recommender(row[row != module.pad][None])[0, -1] for row in view])
        for view in (first, second)
    ]
    expected = module.recommender.loss(window) + 0.7 * info_nce(*ends, 0.3)
    torch.testing.assert_close(module.loss(window, first, second), expected)
    assert not (torch.cat([first, second]) == 21).all() and {int(x) for x in first.unique()} <= {*range(22)}


# --- the feature models: each interaction term, from the embeddings themselves -----------------------------------


def feature_model(name: str, **change):
    """A rating model of three features (user, item, one genre), with its embeddings made large enough to matter."""
    items = pd.DataFrame({"genre": ["a", "b", "a", "b"]})
    data = TrainingData(3, 4, [0, 0, 1, 2], [0, 1, 2, 3], [5, 4, 3, 2], item_features=items)
    torch.manual_seed(0)
    module = backbone_of(name)[0](data, settings_of(name, {"dim": 4, **change})).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    users, rows = torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1])
    genres = torch.tensor([2, 1, 2])  # b, a, b; code 0 is "unknown"
    x = module.table[torch.stack([users, 3 + rows, 7 + genres], dim=1)]  # [B, F, D + 1]; 3 users, then 4 items
    v, linear = x[..., :-1], x[..., -1].sum(dim=1)
    given_ = module.rate(users, rows)
    return module.model, v.detach(), (given_ - module.mean - linear - module.model.out.bias).detach()


def pairs(v: torch.Tensor) -> torch.Tensor:
    """v_f * v_g for f < g: [B, P, D]."""
    f, g = torch.triu_indices(v.shape[1], v.shape[1], 1)
    return v[:, f] * v[:, g]


def test_deepfm_adds_all_inner_products_and_a_deep_part():
    model, v, rest = feature_model("DeepFM")
    deep = model.dnn_linear(model.dnn(v.flatten(1)))[:, 0]
    torch.testing.assert_close(rest, pairs(v).sum(dim=(1, 2)) + deep)


def test_nfm_feeds_the_sum_of_the_products_to_its_net():
    model, v, rest = feature_model("NFM")
    torch.testing.assert_close(rest, model.dnn_linear(model.dnn(pairs(v).sum(dim=1)))[:, 0])


def test_dcn_crosses_with_the_first_layer():
    model, v, rest = feature_model("DCN", crosses=2)
    x0 = x = v.flatten(1)  # [B, F D]
    for w, b in zip(model.crossnet.kernels, model.crossnet.bias, strict=True):
        x = x0 * (x @ w) + b.T + x
    torch.testing.assert_close(rest, model.dnn_linear(torch.cat([x, model.dnn(x0)], dim=1))[:, 0])


def test_afm_weighs_the_products_by_attention():
    model, v, rest = feature_model("AFM")
    p = pairs(v)  # [B, P, D]
    a = torch.softmax(torch.relu(p @ model.fm.attention_W + model.fm.attention_b) @ model.fm.projection_h, dim=1)
    torch.testing.assert_close(rest, ((a * p).sum(dim=1) @ model.fm.projection_p)[:, 0])


def test_xdeepfm_compresses_products_of_every_feature_with_every_map():
    model, v, rest = feature_model("xDeepFM", compressed=[4, 3])
    maps, kept = v, []
    for n, conv in enumerate(model.cin.conv1ds):
        products = torch.einsum("bfd,bgd->bfgd", maps, v).flatten(1, 2)  # [B, maps F, D]
        out = torch.relu(torch.einsum("bpd,op->bod", products, conv.weight[:, :, 0]) + conv.bias[:, None])
        maps, used = (out[:, :2], out[:, 2:]) if n == 0 else (out, out)  # all but the last layer hand on half
        kept.append(used)
    cin = model.cin_linear(torch.cat(kept, dim=1).sum(dim=-1))[:, 0]
    torch.testing.assert_close(rest, cin + model.dnn_linear(model.dnn(v.flatten(1)))[:, 0])


def test_autoint_lets_features_attend_to_each_other():
    model, v, rest = feature_model("AutoInt", layers=1, heads=2)
    layer = model.int_layers[0]
    q, k, value = (x @ w for x, w in ((v, layer.W_Query), (v, layer.W_key), (v, layer.W_Value)))
    heads = []
    for h in range(2):
        part = slice(2 * h, 2 * h + 2)
        scores = q[..., part] @ k[..., part].transpose(1, 2)
        heads.append(torch.softmax(scores, dim=-1) @ value[..., part])
    attended = torch.relu(torch.cat(heads, dim=-1) + v @ layer.W_Res)
    expected = model.dnn_linear(torch.cat([attended.flatten(1), model.dnn(v.flatten(1))], dim=1))[:, 0]
    torch.testing.assert_close(rest, expected)


@pytest.mark.parametrize("name", ["DeepFM", "NFM", "DCN", "AFM", "xDeepFM", "AutoInt"])
def test_one_table_is_deepctrs_own_tables(name):
    """The whole model against deepctr-torch's own with the weights copied; one column holds several values."""
    items = pd.DataFrame({"year": ["1990", "1991", "1990", ""], "genres": ["a|b", "", "c", "a|b|c"]})
    users = pd.DataFrame({"age": ["18", "25", "18"]})
    data = TrainingData(3, 4, [0, 0, 1, 2], [0, 1, 2, 3], [5, 4, 3, 2], user_features=users, item_features=items)
    small = settings_of(name, {"dim": 4})
    torch.manual_seed(0)
    module = backbone_of(name)[0](data, small).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    fields = fields_of("user", 3, users) + fields_of("item", 4, items)
    plain = backbone_of(name)[0].network(columns_of(fields, 4), small).eval()
    plain.load_state_dict(module.model.state_dict(), strict=False)
    table, first = module.table.detach(), 0
    with torch.no_grad():
        for field in fields:
            rows = table[first : first + field.size]
            plain.embedding_dict[field.name].weight.copy_(rows[:, :-1])
            plain.linear_model.embedding_dict[field.name].weight.copy_(rows[:, -1:])
            first += field.size
        asked, about = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 3])
        codes = [field.codes[asked if n < 2 else about] for n, field in enumerate(fields)]
        given = torch.from_numpy(np.concatenate(codes, axis=1)).float()
        order = list(plain.feature_index)
        assert order == [field.name for field in fields]
    ours, theirs, first = module.rate(asked, about) - module.mean, plain(given)[:, 0], 0
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for found in (ours, theirs):  # and what each embedding is taught
        (found * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
    for field in fields:
        rows = module.table.grad[first : first + field.size]
        several = int(field.codes.shape[1] > 1)  # code 0 fills up and is not taught
        torch.testing.assert_close(
            rows[several:, :-1], plain.embedding_dict[field.name].weight.grad[several:], atol=1e-5, rtol=1e-4
        )
        first += field.size


def test_byte_dropout_keeps_what_it_says_and_the_mean():
    torch.manual_seed(0)
    dropout, x = with_our_layers(torch.nn.Dropout(0.25)), torch.ones(1000, 77)
    found = dropout(x)
    assert found.unique().tolist() == pytest.approx([0, 256 / 192]) and abs(float(found.mean()) - 1) < 0.01
    assert abs(float((found == 0).float().mean(dim=0).std()) - (0.25 * 0.75 / 1000) ** 0.5) < 0.004
    assert (dropout.eval()(x) == x).all() and (with_our_layers(torch.nn.Dropout(0.0))(x) == x).all()
    assert with_our_layers(torch.nn.Dropout(0.999))(x).unique().tolist() == [0, 256]


@given(st.data())
@settings(max_examples=60)
def test_sparse_products_in_blocks_are_the_dense_ones(data):
    """Any shape, empty rows and columns, any number of columns a block; and A^T @ g backwards."""
    rows, columns, d = (data.draw(st.integers(1, 9)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    values = rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.3)
    made = [Sparse(scipy.sparse.csr_array(a), data.draw(st.integers(1, 10))) for a in (values, values.T)]
    a = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(dense(made[0]), a) and torch.equal(dense(made[1]), a.T)
    x, g = torch.randn(columns, d, requires_grad=True), torch.randn(rows, d)
    out = product(*made, x)
    out.backward(g)
    torch.testing.assert_close(out, a @ x)
    torch.testing.assert_close(x.grad, a.T @ g)


def test_a_sparse_matrix_says_what_it_cannot_be_multiplied_with():
    matrix = Sparse(scipy.sparse.csr_array(np.eye(3, 4)))
    with pytest.raises(ValueError, match="a matrix of 4 columns cannot be multiplied with one of 5 rows"):
        matrix @ torch.ones(5, 2)
