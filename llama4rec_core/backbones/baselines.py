"""Baselines without training: popularity, and user and item biases."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .fit import TrainingData


@dataclass(frozen=True)
class PopularitySettings:
    """There is nothing to set."""


class Popularity(nn.Module):
    """y_ui = number of training interactions of i, for every user."""

    def __init__(self, data: TrainingData, settings: PopularitySettings):
        super().__init__()
        self.counts = torch.from_numpy(np.bincount(data.items, minlength=data.n_items)).float()  # [I]

    def scores(self, users, histories=None):
        return self.counts.expand(len(users), -1)  # [B, I]


@dataclass(frozen=True)
class BiasSettings:
    user_ridge: float = 5.0  # ridge on b_u: as many imagined ratings at mu + b_i
    item_ridge: float = 2.0  # ridge on b_i
    sweeps: int = 10  # alternations between b_i and b_u


class Bias(nn.Module):
    """r_ui = mu + b_u + b_i with ridge, solved in turns (Koren, "Factor in the Neighbors", 2010, section 2.1).

    b_i = sum_u (r_ui - mu - b_u) / (n_i + item_ridge), and b_u likewise.
    """

    def __init__(self, data: TrainingData, settings: BiasSettings):
        super().__init__()
        users, items, mean = data.users, data.items, data.ratings.mean(dtype=np.float64)
        weight_u = np.maximum(data.counts + settings.user_ridge, 1e-9)  # [U]
        weight_i = np.maximum(np.bincount(items, minlength=data.n_items) + settings.item_ridge, 1e-9)  # [I]
        b_u = np.zeros(data.n_users)
        for _ in range(settings.sweeps):
            b_i = np.bincount(items, data.ratings - mean - b_u[users], data.n_items) / weight_i
            b_u = np.bincount(users, data.ratings - mean - b_i[items], data.n_users) / weight_u
        self.mean, self.b_u, self.b_i = (torch.tensor(x).float() for x in (mean, b_u, b_i))

    def rate(self, users, items):
        return self.mean + self.b_u[users] + self.b_i[items]  # [B]
