"""Two yardsticks without training: popularity, and user and item biases."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .fit import BACKBONES, Backbone, TrainingData


@dataclass(frozen=True)
class PopularitySettings:
    """None to set."""


class Popularity(nn.Module):
    """y_ui = number of training interactions of i, for every user."""

    def __init__(self, data: TrainingData, settings: PopularitySettings):
        super().__init__()
        self.register_buffer("counts", torch.from_numpy(np.bincount(data.items, minlength=data.n_items)).float())

    def scores(self, users: torch.Tensor, histories=None) -> torch.Tensor:
        return self.counts.expand(len(users), -1)  # [B, I]


@dataclass(frozen=True)
class BiasSettings:
    user_ridge: float = 5.0  # ridge on b_u: so many imagined ratings at the item's mean
    item_ridge: float = 2.0  # ridge on b_i
    sweeps: int = 10  # alternations between b_i and b_u


class Bias(nn.Module):
    """r_ui = mu + b_u + b_i with ridge, solved in turns (Koren, "Factor in the Neighbors", 2010, section 2.1).

    b_i = sum_u (r_ui - mu - b_u) / (n_i + item_ridge), and b_u likewise.
    """

    def __init__(self, data: TrainingData, settings: BiasSettings):
        super().__init__()
        mean = data.ratings.mean(dtype=np.float64)
        b_u, b_i = np.zeros(data.n_users), np.zeros(data.n_items)
        n_u, n_i = data.counts, np.bincount(data.items, minlength=data.n_items)
        for _ in range(settings.sweeps):
            b_i = np.bincount(data.items, data.ratings - mean - b_u[data.users], data.n_items)
            b_i /= np.maximum(n_i + settings.item_ridge, 1e-9)
            b_u = np.bincount(data.users, data.ratings - mean - b_i[data.items], data.n_users)
            b_u /= np.maximum(n_u + settings.user_ridge, 1e-9)
        self.register_buffer("mean", torch.tensor(mean).float())
        self.register_buffer("user_bias", torch.from_numpy(b_u).float())
        self.register_buffer("item_bias", torch.from_numpy(b_i).float())

    def rate(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self.mean + self.user_bias[users] + self.item_bias[items]  # [B]


BACKBONES["Popularity"] = Backbone("direct", Popularity, PopularitySettings)
BACKBONES["Bias"] = Backbone("rating", Bias, BiasSettings)
YARDSTICKS = ("Popularity", "Bias")  # what every backbone must beat
