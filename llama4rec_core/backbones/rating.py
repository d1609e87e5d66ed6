"""Rating prediction: six feature models of deepctr-torch, in our own training loop."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import pandas as pd
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import nn

from .fit import BACKBONES, Backbone, TrainingData
from .interactions import with_our_layers
from .sparse import Sparse, product, sparse

NO_FEATURES = ("user_id", "item_id", "title")  # columns that name a row; the row number is the feature already


def deepctr(module: str):
    """Import `deepctr_torch.<module>` without the package's __init__, which looks for newer versions on the network."""
    if "deepctr_torch" not in sys.modules:
        spec = importlib.util.find_spec("deepctr_torch")
        if spec is None:
            raise ModuleNotFoundError("the rating backbones need deepctr-torch: pip install deepctr-torch==0.3.0")
        package = ModuleType("deepctr_torch")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["deepctr_torch"] = package
    return importlib.import_module(f"deepctr_torch.{module}")


@dataclass(frozen=True)
class Field:
    """One feature of every row: `codes` int64 [R, M], `size` values; M > 1: several at once, code 0 fills up."""

    name: str
    codes: np.ndarray
    size: int


def encode(name: str, column: pd.Series) -> Field:
    """Number a column's values from 1 in sorted order. Values are split at "|"; nothing at all is code 0, "unknown"."""
    texts = ["" if pd.isna(value) else str(value) for value in column]
    parts = [sorted({part.strip() for part in text.split("|")} - {""}) for text in texts]
    code = {value: n for n, value in enumerate(sorted({p for row in parts for p in row}), start=1)}
    codes = np.zeros((len(parts), max(map(len, parts), default=0) or 1), dtype=np.int64)
    for row, values in zip(codes, parts, strict=True):
        row[: len(values)] = [code[value] for value in values]
    return Field(name, codes, len(code) + 1)


def fields_of(side: str, count: int, features: pd.DataFrame | None) -> list[Field]:
    """The id of each row ("user" or "item") and one Field for each feature column, in the column's order."""
    columns = [] if features is None else [c for c in features.columns if c not in NO_FEATURES]
    own = Field(side, np.arange(count)[:, None], count)
    return [own] + [encode(f"{side}_{c}".replace(".", "_"), features[c]) for c in columns]  # torch: no dots


@dataclass(frozen=True)
class DeepFMSettings:
    dim: int = 16  # D, of every feature's embedding
    hidden: tuple = (64, 32)  # widths of the deep part
    dropout: float = 0.2  # in the deep part
    l2_linear: float = 1e-5  # on the first-order weights, all of them at each step
    l2_embedding: float = 3e-5  # on the embeddings, all of them at each step
    lr: float = 0.002  # of Adam
    batch_size: int = 1024  # ratings
    epochs: int = 20  # at most
    patience: int = 3  # epochs without a better validation RMSE


@dataclass(frozen=True)
class NFMSettings:
    dim: int = 16
    hidden: tuple = (64, 32)
    dropout: float = 0.2  # in the deep part
    dropout_pooling: float = 0.2  # on the pooled products
    l2_linear: float = 2e-4
    l2_embedding: float = 3e-5
    lr: float = 0.002
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 3


@dataclass(frozen=True)
class DCNSettings:
    dim: int = 16
    crosses: int = 2  # cross layers
    hidden: tuple = (64, 32)
    dropout: float = 0.2
    l2_linear: float = 2e-4
    l2_embedding: float = 1e-4
    l2_cross: float = 1e-5
    lr: float = 0.002
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 3


@dataclass(frozen=True)
class AFMSettings:
    dim: int = 16
    attention: int = 8  # width of the attention net
    dropout: float = 0.2  # on the pooled products
    l2_linear: float = 2e-4
    l2_embedding: float = 1e-4
    l2_attention: float = 1e-5
    lr: float = 0.002
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 3


@dataclass(frozen=True)
class XDeepFMSettings:
    dim: int = 16
    hidden: tuple = (64, 32)
    compressed: tuple = (32, 32)  # feature maps of the layers of the compressed interaction network
    dropout: float = 0.2
    l2_linear: float = 1e-5
    l2_embedding: float = 1e-5
    lr: float = 0.002
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 5


@dataclass(frozen=True)
class AutoIntSettings:
    dim: int = 16
    layers: int = 2  # of self-attention between the features
    heads: int = 2  # attention heads; must divide dim
    hidden: tuple = (64, 32)
    dropout: float = 0.2
    l2_linear: float = 1e-5
    l2_embedding: float = 3e-4
    lr: float = 0.002
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 5


def made(module: str, name: str, columns: list, settings, **more) -> nn.Module:
    """A deepctr-torch model for regression, with what all six share."""
    return getattr(deepctr(f"models.{module}"), name)(
        columns, columns, task="regression", init_std=0.01, seed=torch.initial_seed(),
        l2_reg_embedding=settings.l2_embedding, **more,
    )  # fmt: skip


def deepfm(columns: list, s: DeepFMSettings) -> nn.Module:
    """DeepFM (Guo et al., IJCAI 2017): y = w . x + sum_f<g <v_f, v_g> + MLP(v_1, ..., v_F)."""
    return made("deepfm", "DeepFM", columns, s, dnn_hidden_units=s.hidden, dnn_dropout=s.dropout,
                l2_reg_linear=s.l2_linear)  # fmt: skip


def nfm(columns: list, s: NFMSettings) -> nn.Module:
    """NFM (He & Chua, SIGIR 2017): y = w . x + MLP(sum_f<g v_f * v_g), the product taken entry by entry."""
    return made("nfm", "NFM", columns, s, dnn_hidden_units=s.hidden, dnn_dropout=s.dropout,
                bi_dropout=s.dropout_pooling, l2_reg_linear=s.l2_linear)  # fmt: skip


def dcn(columns: list, s: DCNSettings) -> nn.Module:
    """DCN (Wang et al., ADKDD 2017): y = w . x + w_o . [x_L, MLP(x_0)], x_(l+1) = x_0 (x_l . w_l) + b_l + x_l, where
    x_0 = [v_1, ..., v_F]."""
    return made("dcn", "DCN", columns, s, dnn_hidden_units=s.hidden, dnn_dropout=s.dropout, cross_num=s.crosses,
                l2_reg_linear=s.l2_linear, l2_reg_cross=s.l2_cross)  # fmt: skip


def afm(columns: list, s: AFMSettings) -> nn.Module:
    """AFM (Xiao et al., IJCAI 2017): y = w . x + p . sum_f<g a_fg (v_f * v_g), a = softmax(h . relu(W (v_f * v_g)))."""
    return made("afm", "AFM", columns, s, attention_factor=s.attention, afm_dropout=s.dropout,
                l2_reg_linear=s.l2_linear, l2_reg_att=s.l2_attention)  # fmt: skip


def xdeepfm(columns: list, s: XDeepFMSettings) -> nn.Module:
    """xDeepFM (Lian et al., KDD 2018): y = w . x + CIN(v_1, ..., v_F) + MLP(v_1, ..., v_F). Layer k of the compressed
    interaction network: x^k_h = relu(sum_(i,j) W^k_(h,i,j) x^(k-1)_i * v_j), x^0_i = v_i, products entry by entry; what
    is read out is each map's sum over D."""
    return made("xdeepfm", "xDeepFM", columns, s, dnn_hidden_units=s.hidden, dnn_dropout=s.dropout,
                cin_layer_size=s.compressed, l2_reg_linear=s.l2_linear)  # fmt: skip


def autoint(columns: list, s: AutoIntSettings) -> nn.Module:
    """AutoInt (Song et al., CIKM 2019): y = w . x + w_o . [a_1, ..., a_F, MLP(v_1, ..., v_F)], a_f = relu(W_r v_f +
    sum_g softmax_g(<W_q v_f, W_k v_g>) W_v v_g), the heads side by side and one such layer on the other."""
    return made("autoint", "AutoInt", columns, s, dnn_hidden_units=s.hidden, dnn_dropout=s.dropout,
                att_layer_num=s.layers, att_head_num=s.heads)  # fmt: skip


def columns_of(fields: list[Field], dim: int) -> list:
    """deepctr-torch's description of the fields, multi-valued ones averaged."""
    inputs, columns = deepctr("inputs"), []
    for field in fields:
        column = inputs.SparseFeat(field.name, field.size, embedding_dim=dim)
        several = field.codes.shape[1]
        columns.append(inputs.VarLenSparseFeat(column, maxlen=several, combiner="mean") if several > 1 else column)
    return columns


class FirstOrder(nn.Module):
    """w . x, from the features' embeddings [B, F, D] and first-order weights [B, F, 1]: [B, 1]."""

    def forward(self, x):
        return x[1].sum(dim=1)


class FeatureModel(nn.Module):
    """r_ui = mu + y(x_ui), mu the mean training rating and y a deepctr-torch model of user u's and item i's features.

    x_ui holds the two ids and every feature column; a column with "|" in it is multi-valued, its embeddings averaged.
    loss = mean (r_ui - y)^2 + l2_embedding |V|^2 + l2_linear |w|^2 + the model's own L2 terms.

    The model is deepctr-torch's, some of its layers put in larger operations; looking embeddings up is not. There each
    of the F features has two tables and is looked up for each rating. Here V and w are the columns of one table, what
    belongs to each user and each item is put together by a sparse product once a step, and a rating takes one row of
    each.
    """

    def __init__(self, data: TrainingData, settings, make: Callable[[list, object], nn.Module]):
        super().__init__()
        users = fields_of("user", data.n_users, data.user_features)
        items = fields_of("item", data.n_items, data.item_features)
        self.data, self.settings = data, settings
        self.model = with_our_layers(make(columns_of(users + items, settings.dim), settings))
        self.model.embedding_dict, self.model.linear_model = nn.ModuleDict(), FirstOrder()
        self.model.input_from_feature_columns = self._looked_up
        self.model.regularization_weight = self.model.regularization_weight[2:]  # of the two tables: the loss's own
        size = sum(field.size for field in users + items)
        v, w = 0.01 * torch.randn(size, settings.dim), 1e-4 * torch.randn(size, 1)
        self.table = nn.Parameter(torch.cat([v, w], dim=1))  # [all features' values, D + 1]
        self.l2 = torch.tensor([settings.l2_embedding] * settings.dim + [settings.l2_linear])  # [D + 1]
        self.user_pool = pool(users, 0, size)
        self.item_pool = pool(items, sum(field.size for field in users), size)
        self.register_buffer("mean", torch.tensor(data.ratings.mean(dtype=np.float64)).float())

    def _looked_up(self, x, *_, **__) -> tuple[list[torch.Tensor], list]:
        """What deepctr-torch's models ask for: a list of embeddings, and no dense features. They concatenate the F they
        expect, [B, 1, D] each (AFM hands them to PairAttention), and are given one tensor [B, F, D] instead."""
        return [x[0].contiguous()], []

    def examples(self, rng):
        return self.data.users, self.data.items, self.data.ratings

    def loss(self, users, items, ratings):
        tables = self.l2 @ self.table.square().sum(dim=0)
        return F.mse_loss(self.rate(users, items), ratings) + tables + self.model.get_regularization_loss().squeeze()

    def rate(self, users, items):
        u = product(*self.user_pool, self.table).view(self.data.n_users, -1)  # [U, F_u (D + 1)]
        i = product(*self.item_pool, self.table).view(self.data.n_items, -1)  # [I, F_i (D + 1)]
        x = torch.cat([F.embedding(users, u), F.embedding(items, i)], dim=1)  # [B, F (D + 1)]
        x = x.view(len(x), -1, self.table.shape[1])  # [B, F, D + 1]
        return self.mean + self.model(x.split([self.settings.dim, 1], dim=2)).squeeze(1)  # [B]

    def user_embeddings(self, histories=None):
        return self.table[: self.data.n_users, :-1]  # [U, D]


def pool(fields: list[Field], first: int, size: int) -> tuple[Sparse, Sparse]:
    """The mean over each field's values as a sparse matrix [R F, size], row r F + f for row r's field f, and its
    transpose. first: the table's row of the first field's code 0; in a field of several values code 0 fills up."""
    count = len(fields[0].codes)
    rows, columns, values = [], [], []
    for f, field in enumerate(fields):
        several = field.codes.shape[1] > 1
        there = field.codes > 0 if several else np.ones_like(field.codes, dtype=bool)
        row, place = np.nonzero(there)
        rows.append(row * len(fields) + f)
        columns.append(first + field.codes[row, place])
        values.append(1 / there.sum(axis=1)[row])
        first += field.size
    values, rows, columns = (np.concatenate(part) for part in (values, rows, columns))
    matrix = scipy.sparse.csr_array((values.astype(np.float32), (rows, columns)), shape=(count * len(fields), size))
    return sparse(matrix), sparse(matrix.T.tocsr())


for _name, _make, _settings in (
    ("DeepFM", deepfm, DeepFMSettings),
    ("NFM", nfm, NFMSettings),
    ("DCN", dcn, DCNSettings),
    ("AFM", afm, AFMSettings),
    ("xDeepFM", xdeepfm, XDeepFMSettings),
    ("AutoInt", autoint, AutoIntSettings),
):
    BACKBONES[_name] = Backbone("rating", partial(FeatureModel, make=_make), _settings)
