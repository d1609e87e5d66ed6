"""What all backbones share: the training data, the negative sampler, one training loop, the fitted model, the top k.

A backbone is an `nn.Module` made from `(TrainingData, Settings)` with

    examples(rng) -> tuple of arrays [N, ...]   one epoch's training examples, fresh negatives included
    loss(*minibatch) -> scalar                  the same arrays, B of the N rows of each
    scores(users [B], histories) -> [B, I]      direct, sequential (`histories`: B arrays of items, oldest first)
    rate(users [B], items [B]) -> [B]           rating
    user_embeddings(histories) -> [U, D]        optional

and `Settings` with at least lr, batch_size, epochs, patience. A module without parameters (popularity) is ready when
made: only `scores` or `rate` is needed.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

TASKS = ("direct", "sequential", "rating")


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a backbone may see: N training interactions sorted by user, in history order, and what an LLM added."""

    n_users: int
    n_items: int
    users: np.ndarray  # int64 [N], non-decreasing
    items: np.ndarray  # int64 [N]
    ratings: np.ndarray  # float32 [N]
    scale: tuple[float, float] = (1, 5)
    user_features: pd.DataFrame | None = None  # rating: str columns, row = user; a value may be several, joined by "|"
    item_features: pd.DataFrame | None = None  # the same, row = item; P3 attributes are further columns
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
        if (np.diff(self.users) < 0).any():
            row = int(np.argmax(np.diff(self.users) < 0)) + 1
            raise ValueError(f"row {row} of the training data goes back to user {self.users[row]}: sort by user first")
        for name, count in (("user_features", self.n_users), ("item_features", self.n_items)):
            if (frame := getattr(self, name)) is not None and len(frame) != count:
                raise ValueError(f"{name} has {len(frame)} rows: it needs one for each of the {count}")
        for name in ("triples", "insertions"):
            self._check_augmentation(name)

    def _check_augmentation(self, name: str) -> None:
        if (rows := getattr(self, name)) is None:
            return
        rows = np.array(rows, dtype=np.int64)
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise ValueError(f"{name} has shape {rows.shape}: it must be [M, 3]")
        _within(f"{name}, column 0 (user)", rows[:, 0], self.n_users)
        _within(f"{name}, column 1 (item)", rows[:, 1], self.n_items)
        if name == "triples":
            _within("triples, column 2 (item)", rows[:, 2], self.n_items)
        elif len(bad := np.flatnonzero((rows[:, 2] < 0) | (rows[:, 2] > self.counts[rows[:, 0]]))):
            user, _, position = rows[bad[0]]
            raise ValueError(
                f"insertions, row {bad[0]}: position {position} lies outside user {user}'s sequence of "
                f"{self.counts[user]} items: 0 to {self.counts[user]} are possible"
            )
        object.__setattr__(self, name, rows)

    @property
    def counts(self) -> np.ndarray:
        """N(u), int64 [U]: real training interactions only, whatever was inserted."""
        return np.bincount(self.users, minlength=self.n_users)

    @property
    def histories(self) -> list[np.ndarray]:
        """Each user's training items, oldest first (U arrays)."""
        return np.split(self.items, np.cumsum(self.counts)[:-1])


def _within(what: str, ids: np.ndarray, count: int) -> None:
    if len(bad := np.flatnonzero((ids < 0) | (ids >= count))):
        raise ValueError(f"{what}, row {bad[0]}: {ids[bad[0]]} is no id, ids run from 0 to {count - 1}")


class NegativeSampler:
    """Uniform negatives from outside a user's *training* items; validation and test items are drawn like any other.

    With a user's n distinct training items sorted, t_0 < t_1 < ..., the r-th item *not* among them is r plus the number
    of j with t_j - j <= r. So one uniform draw r from the I - n others and one binary search give an exact sample,
    without rejection. All users share one sorted array of keys u * (I + 1) + t_j - j.
    """

    def __init__(self, data: TrainingData):
        user, item = np.divmod(np.unique(data.users * data.n_items + data.items), data.n_items)
        count = np.bincount(user, minlength=data.n_users)  # [U]
        self.first = np.cumsum(count) - count  # [U]
        self.stride = data.n_items + 1
        self.keys = user * self.stride + item - (np.arange(len(user)) - self.first[user])
        self.others = data.n_items - count  # [U]

    def draw(self, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return one negative for each entry of `users` (int64, any shape), in the same shape."""
        others = self.others[users]
        if (others == 0).any():
            user = np.asarray(users)[others == 0].flat[0]
            raise ValueError(f"user {user} has every item in training: there is no negative to draw")
        r = rng.integers(0, others)
        return r + np.searchsorted(self.keys, users * self.stride + r, side="right") - self.first[users]


@dataclass(frozen=True)
class Backbone:
    """One entry of BACKBONES."""

    task: str  # one of TASKS
    module: Callable[[TrainingData, Any], nn.Module]
    settings: type


BACKBONES: dict[str, Backbone] = {}


def backbone_of(name: str) -> Backbone:
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: the known ones are {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name]


def settings_of(name: str, overrides: dict | None = None):
    """The backbone's settings with a preset's overrides; a key or a value that does not fit is a ValueError."""
    cls = backbone_of(name).settings
    if isinstance(overrides, cls):
        return overrides
    defaults = {f.name: f.default for f in fields(cls)}
    values = {}
    for key, value in (overrides or {}).items():
        if key not in defaults:
            raise ValueError(f"{name} has no setting {key!r}: the known ones are {', '.join(defaults)}")
        kind = type(defaults[key])
        if kind is float and type(value) is int or kind is tuple and type(value) is list:
            value = kind(value)
        if type(value) is not kind:
            raise ValueError(f"{name}'s setting {key} is {value!r}: it must be of type {kind.__name__}")
        if kind in (int, float) and not value >= (1 if kind is int and defaults[key] else 0):
            raise ValueError(f"{name}'s setting {key} is {value}: it is too small")
        values[key] = value
    return cls(**values)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained backbone. `log` has one row an epoch: epoch, loss, the validation metric, seconds of training so far
    (validation is not timed)."""

    name: str
    settings: Any
    seed: int
    module: nn.Module = field(repr=False)
    log: pd.DataFrame = field(repr=False)

    @property
    def task(self) -> str:
        return BACKBONES[self.name].task

    def scores(self, users: Sequence[int], histories: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """float32 [B, I], higher is better. Direct backbones ignore `histories` (B item arrays, oldest first)."""
        return self._ask("scores", torch.from_numpy(np.array(users, dtype=np.int64)), histories)

    def rate(self, users: Sequence[int], items: Sequence[int]) -> np.ndarray:
        """Predicted ratings, float32 [B], as the model gives them: not clipped to the scale."""
        pair = (torch.from_numpy(np.array(ids, dtype=np.int64)) for ids in (users, items))
        return self._ask("rate", *pair)

    def user_embeddings(self, histories: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """e_u of equation 4, float32 [U, D]; sequential: the state after each of the given histories."""
        return self._ask("user_embeddings", histories)

    def state(self) -> dict[str, torch.Tensor]:
        """All weights and buffers, ready for safetensors; `restore` takes them back."""
        return {key: value.detach().clone().contiguous() for key, value in self.module.state_dict().items()}

    def _ask(self, what: str, *arguments) -> np.ndarray:
        if not hasattr(self.module, what):
            raise ValueError(f"{self.name} is a {self.task} backbone and has no {what}")
        self.module.eval()
        with torch.no_grad():
            return getattr(self.module, what)(*arguments).float().contiguous().numpy()


def fit(name: str, data: TrainingData, valid: pd.DataFrame | None, seed: int, settings: dict | None = None) -> Fitted:
    """Train backbone `name` on `data`. The same arguments give the same result.

    valid: columns user, item, rating, in history order; early stopping keeps the weights that do best on it (NDCG@10
    over all items outside the history, or RMSE after clipping). Without it (None) all epochs are run and the last
    weights stay. Raises ValueError for an unknown backbone or setting and for a loss that is no longer finite.
    """
    settings = settings_of(name, settings)
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    with torch.random.fork_rng(devices=[]):  # the caller's torch generator stays as it was
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        module = BACKBONES[name].module(data, settings)
        log = _train(name, module, data, valid, settings, np.random.default_rng(sequence))
    return Fitted(name, settings, seed, module.eval(), log)


def restore(name: str, data: TrainingData, state: dict[str, torch.Tensor], settings: dict | None = None) -> Fitted:
    """A Fitted from what `Fitted.state()` gave. `data` and `settings` must be those of the fit; the log is empty."""
    settings = settings_of(name, settings)
    with torch.random.fork_rng(devices=[]):
        module = BACKBONES[name].module(data, settings)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit this {name}, its data and settings: {error}") from error
    return Fitted(name, settings, -1, module.eval(), pd.DataFrame(columns=["epoch", "loss", "valid", "seconds"]))


def _train(name, module, data, valid, settings, rng) -> pd.DataFrame:
    metric, sign = ("rmse", -1) if BACKBONES[name].task == "rating" else ("ndcg@10", 1)
    measure = _validation(module, BACKBONES[name].task, data, valid)
    seconds, log, best = 0.0, [], None
    parameters = list(module.parameters())
    if not parameters:
        return pd.DataFrame([{"epoch": 0, "loss": np.nan, metric: measure(), "seconds": seconds}])
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, fused=True)
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
            total += loss.item() * len(batch[0])
        if not np.isfinite(total):
            raise ValueError(f"{name}'s loss is not finite in epoch {epoch}: a lower lr than {settings.lr} may help")
        seconds += time.perf_counter() - start
        value = measure()
        log.append({"epoch": epoch, "loss": total / len(order), metric: value, "seconds": seconds})
        if valid is None:
            continue
        if best is None or sign * value > sign * best[0]:
            best = value, epoch, {key: tensor.clone() for key, tensor in module.state_dict().items()}
        elif epoch - best[1] >= settings.patience:
            break
    if best is not None:
        module.load_state_dict(best[2])
    return pd.DataFrame(log)


def _validation(module, task: str, data: TrainingData, valid: pd.DataFrame | None) -> Callable[[], float]:
    """A function without arguments that measures the module as it now is on `valid`: NDCG@10 or RMSE."""
    if valid is None:
        return lambda: np.nan
    if not len(valid):
        raise ValueError("the validation part has no rows: pass None to train without early stopping")
    users, items = (np.array(valid[column], dtype=np.int64) for column in ("user", "item"))
    if task == "rating":
        ratings = torch.tensor(valid["rating"].to_numpy(np.float32))
        users, items = torch.from_numpy(users), torch.from_numpy(items)
        return lambda: float((_eval(module.rate, users, items).clamp(*data.scale) - ratings).square().mean().sqrt())
    train = data.histories
    earlier = valid.groupby("user").cumcount().to_numpy()  # how many validation items the true prefix holds
    own = {user: rows["item"].to_numpy(np.int64) for user, rows in valid.groupby("user")}
    prefix = [np.concatenate([train[u], own[u][:n]]) for u, n in zip(users, earlier, strict=True)]
    return lambda: ndcg_at_10(lambda *batch: _eval(module.scores, *batch), users, items, prefix)


def _eval(function, *arguments):
    function.__self__.eval()
    with torch.no_grad():
        return function(*arguments)


def ndcg_at_10(scores: Callable, users: np.ndarray, items: np.ndarray, histories: list, batch_size=1024) -> float:
    """Mean NDCG@10 of one target each, ranked among all items outside its history; equal scores: lower id first."""
    gains = []
    for start in range(0, len(users), batch_size):
        batch = slice(start, start + batch_size)
        target = torch.tensor(items[batch]).unsqueeze(1)  # [B, 1]
        score = scores(torch.tensor(users[batch]), histories[batch])  # [B, I]
        own = score.gather(1, target)  # [B, 1]
        score = _without(score, histories[batch])
        before = torch.arange(score.shape[1]) < target  # [B, I]
        rank = 1 + ((score > own) | (score == own) & before).sum(dim=1)  # [B]
        gains.append(torch.where(rank <= 10, 1 / torch.log2(rank + 1), 0.0))
    return float(torch.cat(gains).mean())


def _without(scores: torch.Tensor, exclude: Sequence[np.ndarray]) -> torch.Tensor:
    """`scores` [B, I] with minus infinity at the items of each row's list (B arrays)."""
    rows = np.repeat(np.arange(len(exclude)), [len(items) for items in exclude])
    scores = scores.clone()
    scores[rows, np.concatenate([np.asarray(items, dtype=np.int64) for items in exclude])] = -torch.inf
    return scores


def top_k(
    fitted: Fitted,
    users: Sequence[int],
    histories: Sequence[np.ndarray] | None,
    exclude: Sequence[np.ndarray],
    k: int,
    batch_size: int = 512,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each case, best first; equal scores: lower item id first.

    users [B]; histories: B item arrays, or None for direct backbones; exclude: B item arrays, never listed.
    Returns items int32 [B, k] and scores float32 [B, k]; at most `batch_size` rows of scores are held at a time.
    Raises ValueError if a case has fewer than k items left.
    """
    users = np.asarray(users, dtype=np.int64)
    if len(exclude) != len(users) or histories is not None and len(histories) != len(users):
        raise ValueError(f"{len(users)} users need as many lists to exclude and as many histories")
    items, scores = np.empty((len(users), k), np.int32), np.empty((len(users), k), np.float32)
    for start in range(0, len(users), batch_size):
        batch = slice(start, start + batch_size)
        score = torch.from_numpy(fitted.scores(users[batch], None if histories is None else histories[batch]))
        if k > score.shape[1]:
            raise ValueError(f"k is {k}, but there are only {score.shape[1]} items")
        ordered, order = _without(score, exclude[batch]).sort(dim=1, descending=True, stable=True)  # [B, I]
        if len(short := np.flatnonzero(ordered[:, k - 1] == -torch.inf)):
            raise ValueError(f"user {users[batch][short[0]]} has fewer than k = {k} items left after the exclusions")
        items[batch], scores[batch] = order[:, :k], ordered[:, :k]
    return items, scores
