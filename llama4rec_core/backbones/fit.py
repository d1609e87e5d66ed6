"""What all backbones share: the training data, the negative sampler, the losses, one training loop, the fitted model.

A backbone is an `nn.Module` made from (TrainingData, settings) with

    examples(rng) -> tuple of arrays [N, ...]   one epoch's training examples, fresh negatives included
    loss(*minibatch) -> scalar                  the same arrays, B of the N rows of each
    scores(users [B], histories) -> [B, I]      direct, sequential (`histories`: B arrays of items, oldest first)
    rate(users [B], items [B]) -> [B]           rating
    user_embeddings(histories) -> [U, D]        equation 4; a baseline has none

Its settings hold at least lr, batch_size, epochs and patience. A module without parameters (a baseline) is ready when
made: it needs `scores` or `rate` only.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from . import backbone_of, task_of
from .predict import without


def _within(what: str, ids: np.ndarray, count: int) -> None:
    if len(bad := np.flatnonzero((ids < 0) | (ids >= count))):
        raise ValueError(f"{what}, row {bad[0]}: {ids[bad[0]]} is no id, ids run from 0 to {count - 1}")


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a backbone may see: N training interactions sorted by user, in history order, and what an LLM added.

    Raises ValueError for unequal lengths, ids out of range, unsorted users, or an insertion outside its sequence.
    """

    n_users: int
    n_items: int
    users: np.ndarray  # int64 [N], non-decreasing
    items: np.ndarray  # int64 [N]
    ratings: np.ndarray  # float32 [N]
    scale: tuple[float, float] = (1, 5)
    user_features: pd.DataFrame | None = None  # [U] rows of str; a value may be several, joined by "|"
    item_features: pd.DataFrame | None = None  # [I] rows of the same; P3 attributes are further columns
    triples: np.ndarray | None = None  # int64 [M, 3], P1: (u, i+, i-)
    insertions: np.ndarray | None = None  # int64 [M, 3], P2: (u, item, position in u's training sequence)

    def __post_init__(self):
        for name, dtype in (("users", np.int64), ("items", np.int64), ("ratings", np.float32)):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=dtype))  # a copy, writable for torch
        if not len(self.users):
            raise ValueError("the training data has no interactions: at least one is needed")
        if not len(self.users) == len(self.items) == len(self.ratings):
            lengths = f"{len(self.users)}, {len(self.items)} and {len(self.ratings)}"
            raise ValueError(f"users, items and ratings have {lengths} rows: they must be equally long")
        _within("users", self.users, self.n_users)
        _within("items", self.items, self.n_items)
        if (back := np.diff(self.users) < 0).any():
            row = int(back.argmax()) + 1
            raise ValueError(f"row {row} of the training data goes back to user {self.users[row]}: sort by user first")
        for name, count in (("user_features", self.n_users), ("item_features", self.n_items)):
            if (frame := getattr(self, name)) is not None and len(frame) != count:
                raise ValueError(f"{name} has {len(frame)} rows: it needs one for each of the {count}")
        for name in ("triples", "insertions"):
            if (rows := getattr(self, name)) is None:
                continue
            rows = np.array(rows, dtype=np.int64)
            if rows.ndim != 2 or rows.shape[1] != 3:
                raise ValueError(f"{name} has shape {rows.shape}: it must be [M, 3]")
            object.__setattr__(self, name, rows)
            _within(f"{name}, column 0 (user)", rows[:, 0], self.n_users)
            _within(f"{name}, column 1 (item)", rows[:, 1], self.n_items)
        if self.triples is not None:
            _within("triples, column 2 (item)", self.triples[:, 2], self.n_items)
        if self.insertions is not None:
            user, _, position = self.insertions.T
            n = self.counts[user]
            if len(bad := np.flatnonzero((position < 0) | (position > n))):
                row = bad[0]
                where = f"outside user {user[row]}'s sequence of {n[row]} items: 0 to {n[row]} are possible"
                raise ValueError(f"insertions, row {row}: position {position[row]} lies {where}")

    @property
    def counts(self) -> np.ndarray:
        """N(u), int64 [U]: real training interactions only, without the inserted ones."""
        return np.bincount(self.users, minlength=self.n_users)

    @property
    def histories(self) -> list[np.ndarray]:
        """Each user's training items, oldest first (U arrays)."""
        return np.split(self.items, np.cumsum(self.counts)[:-1])

    @cached_property
    def sampler(self) -> "NegativeSampler":
        return NegativeSampler(self)


def training_data(dataset, train: pd.DataFrame, task: str) -> TrainingData:
    """Training rows (user, item, rating, in history order) of a `Dataset`; rating backbones see those with a rating,
    and its features."""
    features = (dataset.users, dataset.items) if task == "rating" else ()
    train = train.dropna(subset="rating") if task == "rating" else train
    rows = (train[column] for column in ("user", "item", "rating"))
    return TrainingData(dataset.n_users, dataset.n_items, *rows, dataset.scale, *features)


class NegativeSampler:
    """Uniform negatives from outside a user's *training* items; validation and test items are drawn like any other.

    With a user's n distinct training items sorted, t_0 < t_1 < ..., the r-th item *not* among them is r plus the number
    of j with t_j - j <= r. So one uniform draw r from the I - n others and one binary search give an exact sample,
    without rejection. All users share one sorted array of keys u * (I + 1) + t_j - j. A user who has every item in
    training is a ValueError.
    """

    def __init__(self, data: TrainingData):
        user, item = np.divmod(np.unique(data.users * data.n_items + data.items), data.n_items)
        count = np.bincount(user, minlength=data.n_users)  # [U]
        self.first = np.cumsum(count) - count  # [U]
        self.stride = data.n_items + 1
        self.keys = user * self.stride + item - (np.arange(len(user)) - self.first[user])
        self.others = data.n_items - count  # [U]

    def draw(self, users: np.ndarray, rng: np.random.Generator, each: int = 0) -> np.ndarray:
        """One negative for each entry of `users` (int64, any shape), in the same shape; or `each` of them, [B, M]."""
        if each:
            users = np.repeat(users[:, None], each, axis=1)
        others = self.others[users]
        if (others == 0).any():
            user = np.asarray(users)[others == 0].flat[0]
            raise ValueError(f"user {user} has every item in training: there is no negative to draw")
        r = rng.integers(0, others)
        return r + np.searchsorted(self.keys, users * self.stride + r, side="right") - self.first[users]


def bpr_examples(data: TrainingData, rng: np.random.Generator, each: int = 0) -> tuple:
    """One epoch over D' = D + {(u, i+, i-)} (equation 3): users and positives [N + M], and negatives of that shape.

    Each of the N interactions gets a fresh negative; the M augmented triples stay as they are. With `each`, negatives
    are [N + M, each], a triple's all the same.
    """
    u, i, j = data.users, data.items, data.sampler.draw(data.users, rng, each)
    if data.triples is not None:
        user, positive, negative = data.triples.T
        if each:
            negative = np.repeat(negative[:, None], each, axis=1)
        u, i, j = np.append(u, user), np.append(i, positive), np.concatenate([j, negative])
    return u, i, j


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """-mean log sigmoid(y_ui+ - y_ui-) over B pairs (Rendle et al., UAI 2009): equation 3 divided by B."""
    return -F.logsigmoid(positive - negative).mean()


def info_nce(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE: -mean_n log softmax_m(cos(z'_n, z''_m) / temperature)[n], for two views [N, D] of the same N things.

    It draws a thing's two views together and away from the other N - 1 second views (van den Oord et al., 2018).
    """
    similar = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature  # [N, N]
    return F.cross_entropy(similar, torch.arange(len(first)))


def settings_of(name: str, overrides: dict | None = None):
    """The backbone's settings with a preset's overrides. Raises ValueError for a name, type or size that is wrong."""
    cls = backbone_of(name)[1]
    if isinstance(overrides, cls):
        return overrides
    defaults = {f.name: f.default for f in fields(cls)}
    values = dict(overrides or {})
    for key, value in values.items():
        if key not in defaults:
            raise ValueError(f"{name} has no setting {key!r}: the known ones are {', '.join(defaults)}")
        kind = type(defaults[key])
        if kind is float and type(value) is int or kind is tuple and type(value) is list:
            values[key] = value = kind(value)
        if type(value) is not kind:
            raise ValueError(f"{name}'s setting {key} is {value!r}: it must be of type {kind.__name__}")
        if kind in (int, float) and not value >= (1 if kind is int and defaults[key] else 0):
            raise ValueError(f"{name}'s setting {key} is {value}: it is too small")
    return cls(**values)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained backbone.

    `log` has one row an epoch: epoch, loss, the validation metric ("ndcg@10" or "rmse"), seconds of training
    (validation is not timed) and gradient steps so far. Asking for what the task does not have, such as the ratings of
    MF, is a ValueError.
    """

    name: str
    module: nn.Module = field(repr=False)
    log: pd.DataFrame = field(repr=False)

    @property
    def task(self) -> str:
        return task_of(self.name)

    def scores(self, users: Sequence[int], histories: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """float32 [B, I], higher is better. histories: B item arrays, oldest first; direct backbones that are trained
        ignore them."""
        return self._ask("scores", _ids(users), histories)

    def rate(self, users: Sequence[int], items: Sequence[int]) -> np.ndarray:
        """Predicted ratings, float32 [B], not clipped to the scale."""
        return self._ask("rate", _ids(users), _ids(items))

    def user_embeddings(self, histories: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """e_u of equation 4, float32 [U, D]; sequential: the state after each of the given histories."""
        return self._ask("user_embeddings", histories)

    def _ask(self, what: str, *arguments) -> np.ndarray:
        if not hasattr(self.module, what):
            raise ValueError(f"{self.name} is a {self.task} backbone and has no {what}")
        return _eval(getattr(self.module, what), *arguments).detach().float().contiguous().numpy()


def _ids(values) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def fit(name: str, data: TrainingData, valid: pd.DataFrame | None, seed: int, settings: dict | None = None) -> Fitted:
    """Train backbone `name` on `data`. The same arguments, on as many torch threads, give the same result.

    valid: columns user, item, rating, in history order. Early stopping keeps the weights that do best on it (NDCG@10
    over all items outside the history, or RMSE after clipping). None: all epochs are run and the last weights stay.
    Raises ValueError for an empty `valid`, a loss that is no longer finite, and where `settings_of` does.
    """
    make, settings = backbone_of(name)[0], settings_of(name, settings)
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    with torch.random.fork_rng(devices=[]):  # the caller's torch generator stays as it was
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        module = make(data, settings)
        log = _train(name, module, data, valid, settings, np.random.default_rng(sequence))
    return Fitted(name, module.eval(), log)


def _train(name, module, data, valid, settings, rng) -> pd.DataFrame:
    metric, sign = ("rmse", -1) if task_of(name) == "rating" else ("ndcg@10", 1)
    measure = _validation(module, task_of(name), data, valid)
    parameters = list(module.parameters())
    if not parameters:
        return pd.DataFrame([{"epoch": 0, "loss": np.nan, metric: measure(), "seconds": 0.0}])
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, fused=True)
    seconds, steps, log, best = 0.0, 0, [], None
    for epoch in range(1, settings.epochs + 1):
        start = time.perf_counter()
        module.train()
        examples = module.examples(rng)
        order = torch.from_numpy(rng.permutation(len(examples[0])))
        examples = [torch.from_numpy(x)[order].split(settings.batch_size) for x in examples]
        total = 0.0
        for batch in zip(*examples, strict=True):
            loss = module.loss(*batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            total += loss.item() * len(batch[0])
        if not np.isfinite(total):
            raise ValueError(f"{name}'s loss is not finite in epoch {epoch}: a lower lr than {settings.lr} may help")
        seconds += time.perf_counter() - start
        made = {"epoch": epoch, "loss": total / len(order), metric: measure(), "seconds": seconds, "steps": steps}
        log.append(made)
        if valid is None:
            continue
        value = sign * log[-1][metric]
        if best is None or value > best[0]:
            best = value, epoch, {key: tensor.clone() for key, tensor in module.state_dict().items()}
        elif epoch - best[1] >= settings.patience:
            break
    if best is not None:
        module.load_state_dict(best[2])
    return pd.DataFrame(log)


def _validation(module, task: str, data: TrainingData, valid: pd.DataFrame | None) -> Callable[[], float]:
    """A function that measures the module, as it is when called, on `valid`: NDCG@10 or RMSE."""
    if valid is None:
        return lambda: np.nan
    valid = valid.dropna(subset="rating") if task == "rating" else valid
    if not len(valid):
        raise ValueError("the validation part has no rows to measure: pass None to train without early stopping")
    users, items = _ids(valid["user"]), _ids(valid["item"])
    if task == "rating":
        ratings = torch.tensor(valid["rating"].to_numpy(np.float32))
        return lambda: float((_eval(module.rate, users, items).clamp(*data.scale) - ratings).square().mean().sqrt())
    users, items, seen, prefix = users.numpy(), items.numpy(), data.histories, []
    for user, item in zip(users, items, strict=True):
        prefix.append(seen[user])  # training items and the validation items before
        seen[user] = np.append(seen[user], item)
    return lambda: ndcg_at_10(lambda *batch: _eval(module.scores, *batch), users, items, prefix)


def _eval(method: Callable, *arguments) -> torch.Tensor:
    """What a module's method answers in evaluation mode, without gradients."""
    method.__self__.eval()
    with torch.no_grad():
        return method(*arguments)


def ndcg_at_10(scores: Callable, users: np.ndarray, items: np.ndarray, histories: list, batch_size=1024) -> float:
    """Mean NDCG@10 of one target each, ranked among all items outside its history; equal scores: lower id first."""
    gains = []
    for start in range(0, len(users), batch_size):
        batch = slice(start, start + batch_size)
        target = torch.tensor(items[batch]).unsqueeze(1)  # [B, 1]
        score = scores(torch.tensor(users[batch]), histories[batch])  # [B, I]
        own = score.gather(1, target)  # [B, 1]
        score = without(score, histories[batch])
        before = torch.arange(score.shape[1]) < target  # [B, I]
        rank = 1 + ((score > own) | (score == own) & before).sum(dim=1)  # [B]
        gains.append(torch.where(rank <= 10, 1 / torch.log2(rank + 1), 0.0))
    return float(torch.cat(gains).mean())
