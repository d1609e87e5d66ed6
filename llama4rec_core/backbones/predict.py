"""What a fitted backbone leaves: the top k or a rating for each case, and the user embeddings of equation 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from llama4rec_core.files import read_frame, read_tensors, write_frame, write_tensors

if TYPE_CHECKING:
    from .fit import Fitted


def without(scores: torch.Tensor, exclude: Sequence[np.ndarray]) -> torch.Tensor:
    """A copy of `scores` [B, I] with minus infinity at the items of each row's array in `exclude` (B arrays)."""
    rows = np.repeat(np.arange(len(exclude)), [len(items) for items in exclude])
    scores = scores.clone()
    scores[rows, np.concatenate([np.asarray(items, dtype=np.int64) for items in exclude])] = -torch.inf
    return scores


def top_k(fitted: Fitted, users, histories: Sequence | None, exclude: Sequence, k: int, batch_size: int = 512):
    """The k best items of each case, best first: items int32 [B, k], scores float32 [B, k]. Ties: lower item id first.

    users [B]; histories: B item arrays, oldest first, or None for direct backbones; exclude: B item arrays, never
    listed. Holds at most `batch_size` rows of scores at a time. Raises ValueError where a case has fewer than k items
    left, or where the B differ.
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
        ordered, order = without(score, exclude[batch]).sort(dim=1, descending=True, stable=True)  # [B, I]
        if len(short := np.flatnonzero(ordered[:, k - 1] == -torch.inf)):
            raise ValueError(f"user {users[batch][short[0]]} has fewer than k = {k} items left after the exclusions")
        items[batch], scores[batch] = order[:, :k], ordered[:, :k]
    return items, scores


def key_of(cases: pd.DataFrame) -> pd.Series:
    """What tells lists apart: part, user and how many items of the user's sequence came before. Cases share a list
    where they share its key."""
    return cases["part"] + "-" + cases["user"].astype(str) + "-" + cases["prefix"].astype(str)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a fitted backbone predicts for n cases (a list of k items or a rating each), and its user embeddings."""

    cases: pd.DataFrame  # case, part, user, item, rating, prefix
    items: np.ndarray | None  # int64 [n, k], best first; None for a rating backbone
    scores: np.ndarray | None  # float32 [n, k]; None for a rating backbone
    ratings: np.ndarray | None  # float32 [n]; None for a top-k backbone
    embeddings: np.ndarray  # float32 [U, D], e_u of equation 4; D = 0 for a backbone that has none

    def part(self, *parts: str) -> Predictions:
        """Those of the cases whose part is among `parts` ("window", "valid", "test")."""
        return self.only(self.cases["part"].isin(parts).to_numpy())

    def only(self, keep: np.ndarray) -> Predictions:
        """Those of the cases where `keep`, bool [n], is true."""
        names = ("items", "scores") if self.ratings is None else ("ratings",)
        arrays = {name: getattr(self, name)[keep] for name in names}
        return replace(self, cases=self.cases[keep].reset_index(drop=True), **arrays)

    def write(self, folder: Path) -> None:
        """Write user_embeddings.safetensors and predictions.parquet; where the second is there, both are complete."""
        if self.items is None:
            frame = self.cases.assign(predicted=self.ratings)
        else:
            frame = self.cases.assign(items=list(self.items.astype(np.int32)), scores=list(self.scores))
        write_tensors(folder / "user_embeddings.safetensors", {"e": torch.from_numpy(self.embeddings)})
        write_frame(folder / "predictions.parquet", frame)


def read_predictions(folder: Path) -> Predictions:
    """What `Predictions.write` left in `folder`."""
    frame = read_frame(folder / "predictions.parquet")
    embeddings = read_tensors(folder / "user_embeddings.safetensors")["e"].numpy()
    if "predicted" in frame:
        return Predictions(frame.drop(columns="predicted"), None, None, frame["predicted"].to_numpy(), embeddings)
    items, scores = np.stack(frame["items"]).astype(np.int64), np.stack(frame["scores"])
    return Predictions(frame.drop(columns=["items", "scores"]), items, scores, None, embeddings)


def predict_cases(
    fitted: Fitted, cases: pd.DataFrame, histories, valid_counts: np.ndarray, k: int, train_items: list[np.ndarray]
) -> Predictions:
    """A predicted rating (rating backbones) or a list of k items (all others) for each case of `data.split.cases`.

    histories: `history(user, prefix, length)` gives the last `length` of the first `prefix` items of a user's sequence
    (training, then validation, then test items), and `n_train` [U] counts the training items. valid_counts [U] counts
    the validation items. train_items: U arrays of what the backbone was fitted on, oldest first; a sequential
    backbone's user embedding is its state after them.

    A list is ranked given the first `prefix` items of the sequence and never holds one of them. At test it holds no
    validation item either, even where the backbone did not read it: the user has had it by then.
    """
    users, embeddings = cases["user"].to_numpy(), np.zeros((len(train_items), 0), dtype=np.float32)
    if hasattr(fitted.module, "user_embeddings"):
        embeddings = fitted.user_embeddings(train_items)
    if fitted.task == "rating":
        return Predictions(cases, None, None, fitted.rate(users, cases["item"].to_numpy()), embeddings)
    prefix = cases["prefix"].to_numpy()
    before_test = np.maximum(prefix, histories.n_train[users] + valid_counts[users])
    seen = np.where(cases["part"] == "test", before_test, prefix)
    read, exclude = (_first(histories, users, ends) for ends in (prefix, seen))
    items, scores = top_k(fitted, users, read, exclude, k)
    return Predictions(cases, items.astype(np.int64), scores, None, embeddings)


def candidate_scores(fitted: Fitted, predictions: Predictions, histories, batch_size: int = 512) -> np.ndarray:
    """Another backbone's scores of every case's own candidates, float32 [n, C]: a second opinion.

    It reads what the case's prefix says, the first `prefix` items of the user's sequence, whatever its task. histories:
    as for `predict_cases`. Raises ValueError for a rating backbone.
    """
    users, prefix = (predictions.cases[name].to_numpy() for name in ("user", "prefix"))
    out = np.empty(predictions.items.shape, dtype=np.float32)
    for start in range(0, len(users), batch_size):
        batch = slice(start, start + batch_size)
        scores = fitted.scores(users[batch], _first(histories, users[batch], prefix[batch]))  # [B, I]
        out[batch] = np.take_along_axis(scores, predictions.items[batch], axis=1)
    return out


def _first(histories, users: np.ndarray, prefix: np.ndarray) -> list[np.ndarray]:
    """The first `prefix` items of each user's sequence."""
    return [histories.history(user, n, n) for user, n in zip(users, prefix, strict=True)]
