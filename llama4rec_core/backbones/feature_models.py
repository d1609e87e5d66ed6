"""Rating prediction: six feature models of deepctr-torch, trained by our own loop."""

import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

from .feature_layers import with_our_layers
from .features import Field, fields_of, pool
from .fit import TrainingData
from .graph import product

DEEP = {"dnn_hidden_units": "hidden", "dnn_dropout": "dropout"}  # deepctr-torch's arguments: our settings


def deepctr(module: str):
    """Import `deepctr_torch.<module>` without the package's __init__, which looks for newer versions on the network.

    Raises ModuleNotFoundError where deepctr-torch is not installed.
    """
    if "deepctr_torch" not in sys.modules:
        spec = importlib.util.find_spec("deepctr_torch")
        if spec is None:
            raise ModuleNotFoundError("the rating backbones need deepctr-torch: pip install deepctr-torch==0.3.0")
        package = sys.modules["deepctr_torch"] = ModuleType("deepctr_torch")
        package.__path__ = list(spec.submodule_search_locations)
    return importlib.import_module(f"deepctr_torch.{module}")


def columns_of(fields: list[Field], dim: int) -> list:
    """deepctr-torch's description of the fields; the embeddings of several values are averaged."""
    inputs, columns = deepctr("inputs"), []
    for field in fields:
        column = inputs.SparseFeat(field.name, field.size, embedding_dim=dim)
        several = field.codes.shape[1]
        columns.append(inputs.VarLenSparseFeat(column, maxlen=several, combiner="mean") if several > 1 else column)
    return columns


@dataclass(frozen=True)
class FeatureSettings:
    """What the six have in common. Each one's settings carry its name, its equation and deepctr-torch's `arguments`."""

    dim: int = 16  # D, of every feature's embedding
    dropout: float = 0.2  # in the deep part; AFM: on the pooled products
    l2_linear: float = 1e-5  # on the first-order weights, all of them at each step
    l2_embedding: float = 3e-5  # on the embeddings, all of them at each step
    lr: float = 0.002  # of Adam
    batch_size: int = 1024  # ratings
    epochs: int = 60  # at most; patience ends the training
    patience: int = 3  # epochs without a better validation RMSE


@dataclass(frozen=True)
class DeepFMSettings(FeatureSettings):
    """DeepFM (Guo et al., IJCAI 2017): y = w . x + sum_f<g <v_f, v_g> + MLP(v_1, ..., v_F)."""

    arguments = DEEP
    hidden: tuple = (64, 32)  # widths of the deep part


@dataclass(frozen=True)
class NFMSettings(FeatureSettings):
    """NFM (He & Chua, SIGIR 2017): y = w . x + MLP(sum_f<g v_f * v_g), the product taken entry by entry."""

    arguments = DEEP | {"bi_dropout": "dropout_pooling"}
    hidden: tuple = (64, 32)
    dropout_pooling: float = 0.2  # on the pooled products
    l2_linear: float = 2e-4


@dataclass(frozen=True)
class DCNSettings(FeatureSettings):
    """DCN (Wang et al., ADKDD 2017): y = w . x + w_o . [x_L, MLP(x_0)], x_(l+1) = x_0 (x_l . w_l) + b_l + x_l.

    x_0 = [v_1, ..., v_F].
    """

    arguments = DEEP | {"cross_num": "crosses", "l2_reg_cross": "l2_cross", "l2_reg_linear": "l2_linear"}  # on w_o too
    hidden: tuple = (64, 32)
    crosses: int = 2  # cross layers
    l2_linear: float = 2e-4
    l2_embedding: float = 1e-4
    l2_cross: float = 1e-5


@dataclass(frozen=True)
class AFMSettings(FeatureSettings):
    """AFM (Xiao et al., IJCAI 2017): y = w . x + p . sum_f<g a_fg (v_f * v_g), a = softmax(h . relu(W (v_f * v_g)))."""

    arguments = {"attention_factor": "attention", "afm_dropout": "dropout", "l2_reg_att": "l2_attention"}
    attention: int = 8  # width of the attention net
    l2_linear: float = 2e-4
    l2_embedding: float = 1e-4
    l2_attention: float = 1e-5


@dataclass(frozen=True)
class xDeepFMSettings(FeatureSettings):
    """xDeepFM (Lian et al., KDD 2018): y = w . x + CIN(v_1, ..., v_F) + MLP(v_1, ..., v_F).

    Layer k of the compressed interaction network, with products entry by entry:
    x^k_h = relu(sum_(i,j) W^k_(h,i,j) x^(k-1)_i * v_j), x^0_i = v_i. Each map's sum over D is read out.
    """

    arguments = DEEP | {"cin_layer_size": "compressed"}
    hidden: tuple = (64, 32)
    compressed: tuple = (32, 32)  # feature maps of the layers of the compressed interaction network
    l2_embedding: float = 1e-5
    patience: int = 5


@dataclass(frozen=True)
class AutoIntSettings(FeatureSettings):
    """AutoInt (Song et al., CIKM 2019): y = w . x + w_o . [a_1, ..., a_F, MLP(v_1, ..., v_F)].

    a_f = relu(W_r v_f + sum_g softmax_g(<W_q v_f, W_k v_g>) W_v v_g), the heads side by side, in stacked layers.
    """

    arguments = DEEP | {"att_layer_num": "layers", "att_head_num": "heads"}
    hidden: tuple = (64, 32)
    layers: int = 2  # of self-attention between the features
    heads: int = 2  # attention heads; must divide dim
    l2_embedding: float = 3e-4
    patience: int = 5


class FeatureModel(nn.Module):
    """r_ui = mu + y(x_ui), mu the mean training rating and y a deepctr-torch model of user u's and item i's features.

    x_ui holds the two ids and every feature column; a column with "|" in it has several values, their embeddings
    averaged. loss = mean (r_ui - y)^2 + l2_embedding |V|^2 + l2_linear |w|^2 + the model's own L2 terms.

    deepctr-torch has two tables for each of the F features and looks into all of them for each rating. Here V and w are
    the columns of one table. One sparse product a step puts together what belongs to each user and each item, and a
    rating takes one row of each.
    """

    def __init__(self, data: TrainingData, settings: FeatureSettings):
        super().__init__()
        users = fields_of("user", data.n_users, data.user_features)
        items = fields_of("item", data.n_items, data.item_features)
        self.data, self.settings = data, settings
        self.model = with_our_layers(self.network(columns_of(users + items, settings.dim), settings))
        del self.model.embedding_dict, self.model.linear_model  # its tables; their L2 is in our loss:
        self.model.regularization_weight = self.model.regularization_weight[2:]
        self.model.embedding_dict, self.model.linear_model = None, lambda x: x[1].sum(dim=1)  # w . x, [B, 1]
        # it concatenates a list of F embeddings [B, 1, D] (or hands it to pair_attention), and finds one of [B, F, D]
        self.model.input_from_feature_columns = lambda x, *_, **__: ([x[0].contiguous()], [])
        size = sum(field.size for field in users + items)
        v, w = 0.01 * torch.randn(size, settings.dim), 1e-4 * torch.randn(size, 1)
        self.table = nn.Parameter(torch.cat([v, w], dim=1))  # [all features' values, D + 1]
        self.l2 = torch.tensor([settings.l2_embedding] * settings.dim + [settings.l2_linear])  # [D + 1]
        self.user_pool, self.item_pool = pool(users, 0, size), pool(items, sum(field.size for field in users), size)
        self.mean = torch.tensor(data.ratings.mean(dtype=float)).float()

    @staticmethod
    def network(columns: list, settings: FeatureSettings) -> nn.Module:
        """deepctr-torch's model that the settings are named after, for regression."""
        name = type(settings).__name__.removesuffix("Settings")
        make = getattr(deepctr(f"models.{name.lower()}"), name)
        more = {theirs: getattr(settings, ours) for theirs, ours in settings.arguments.items()}
        return make(columns, columns, task="regression", init_std=0.01, seed=torch.initial_seed(), **more)

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


DeepFM = NFM = DCN = AFM = xDeepFM = AutoInt = FeatureModel  # told apart by their settings
