"""Baselines without gradient steps: popularity, item neighbours, a linear item model, and user and item biases.

X, float32 [U, I], is 1 where a user has an item in training. Those that read a history score it as X has rows: from its
distinct items.
"""

from collections.abc import Sequence
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


def held(histories: Sequence[np.ndarray], n_items: int) -> torch.Tensor:
    """float32 [B, I]: 1 where an item is in the history, however often it is there."""
    rows = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    x = torch.zeros(len(histories), n_items)
    x[rows, np.concatenate([np.asarray(items, dtype=np.int64) for items in histories])] = 1
    return x


def rows_of(x: torch.Tensor, users: torch.Tensor, histories: Sequence[np.ndarray] | None) -> torch.Tensor:
    """[B, I]: what the histories hold, or, where none are handed in, the users' rows of X."""
    return x[users] if histories is None else held(histories, x.shape[1])


def cosines(x: torch.Tensor) -> torch.Tensor:
    """[I, I]: the cosine of two items' columns of X, shared users / sqrt(n_i n_j); 0 for an item with itself, and where
    nobody has one of the two."""
    together = x.T @ x
    size = together.diagonal().clamp(min=1).sqrt()
    return (together / size[:, None] / size).fill_diagonal_(0)


@dataclass(frozen=True)
class ItemKNNSettings:
    """There is nothing to set: all items are neighbours."""


class ItemKNN(nn.Module):
    """y_ui = sum over the items j of the history of cos(i, j), here without a cut at the k nearest (Sarwar et al.,
    WWW 2001; Deshpande & Karypis, TOIS 2004).

    The history is the one handed in; without one, the user's training items.
    """

    def __init__(self, data: TrainingData, settings: ItemKNNSettings):
        super().__init__()
        self.x = held(data.histories, data.n_items)  # [U, I]
        self.weights = cosines(self.x)  # [I, I]

    def scores(self, users, histories=None):
        return rows_of(self.x, users, histories) @ self.weights  # [B, I]


@dataclass(frozen=True)
class EASESettings:
    ridge: float = 200.0  # on the weights, in interactions of an item


class EASE(nn.Module):
    """EASE (Steck, WWW 2019): y_u = x_u B, where B minimises |X - X B|^2 + ridge |B|^2 with a zero diagonal.

    In closed form, with P = (X^T X + ridge I)^-1: b_ij = -p_ij / p_jj off the diagonal. The history x_u is the one
    handed in; without one, the user's training items.
    """

    def __init__(self, data: TrainingData, settings: EASESettings):
        super().__init__()
        self.x = held(data.histories, data.n_items)  # [U, I]
        gram = (self.x.T @ self.x).double()
        p = torch.linalg.inv(gram + settings.ridge * torch.eye(data.n_items, dtype=torch.float64))
        self.weights = (-p / p.diagonal()).float().fill_diagonal_(0)  # B, [I, I]

    def scores(self, users, histories=None):
        return rows_of(self.x, users, histories) @ self.weights  # [B, I]


@dataclass(frozen=True)
class RecentItemKNNSettings:
    recent: int = 5  # items of the history that are read, the last


class RecentItemKNN(nn.Module):
    """y_i = sum over the last few items j of the history of cos(i, j): the item neighbours of a session (Ludewig &
    Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018)."""

    def __init__(self, data: TrainingData, settings: RecentItemKNNSettings):
        super().__init__()
        self.recent, self.weights = settings.recent, cosines(held(data.histories, data.n_items))

    def scores(self, users, histories):
        if histories is None:
            raise ValueError("RecentItemKNN reads histories: pass one array of items, oldest first, for each user")
        return held([items[-self.recent :] for items in histories], len(self.weights)) @ self.weights  # [B, I]


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
