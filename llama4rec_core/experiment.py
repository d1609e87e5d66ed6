"""The experiment: which recommender and which LLM each row of the tables puts together, how the weights are chosen, and
what is measured.

    row          recommender               LLM                                  final order
    Base         M_c                       none                                 M_c's
    IFT          M_c's top k'              LLM', tuned without hints            the LLM's alone
    Llama4Rec    M_c', on augmented data   LLM'', the same examples with hints  equation 6 of both

A row's cases are `Lists` (top-k) or `Ratings`. Both answer the same three questions for any weights alpha: whose cases
they are, what the chosen metric is for each case, and what all metrics are for each user.
Shapes: n cases, m of them asked about, C candidates, U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llama4rec_core import aggregation, evaluation
from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.tasks import Task


@dataclass(frozen=True)
class Variant:
    """One row of the tables."""

    fit: str  # of the backbone: "base" (M_c) or "augmented" (M_c')
    llm: str | None  # "without_hints" (LLM'), "with_hints" (LLM'')
    blended: bool  # equation 6, or one of both alone


VARIANTS = {
    "Base": Variant("base", None, False),
    "IFT": Variant("base", "without_hints", False),
    "Llama4Rec": Variant("augmented", "with_hints", True),
}


def asked_cases(
    predictions: Predictions,
    windows: Predictions,
    held_out: np.ndarray,
    llm: str,
    choosing_users: int | None,
    rating_users: Sequence[int] | None,
) -> list[tuple[str, Predictions]]:
    """What an LLM is asked about: the cases of a backbone's fit and, for a blended row, windows to choose weights on.

    The untuned LLM is only compared on validation. windows: the out-of-fold backbone's; held_out: bool [U], the users
    whose windows nobody was tuned on; rating_users: only these users' ratings (None: everyone's).
    Returns (fit or "out_of_fold", predictions) pairs.
    """
    known = predictions.part("valid") if llm == "untuned" else predictions
    if rating_users is not None:
        known = known.only(known.cases["user"].isin(rating_users).to_numpy())
    if not any(each.blended and each.llm == llm for each in VARIANTS.values()):
        return [("deployed", known)]
    return [("deployed", known), ("out_of_fold", choosing_windows(windows, held_out, choosing_users))]


def choosing_windows(windows: Predictions, held_out: np.ndarray, count: int | None) -> Predictions:
    """The window cases that weights are chosen on: those of the first `count` held-out users (None: all of them)."""
    choosing = np.flatnonzero(held_out)[:count]
    return windows.only(windows.cases["user"].isin(choosing).to_numpy())


# -- cases -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """n top-k cases: a backbone's lists, and the LLM's utilities of those that it was asked about.

    Lists without their target are not asked about: no order of theirs can change HR or NDCG.
    """

    predictions: Predictions
    llm: np.ndarray  # [m, C], the LLM's utilities of the candidates
    asked: np.ndarray  # bool [n]
    utilities: str  # "standardised" or "positions"

    @classmethod
    def of(cls, predictions: Predictions, scores: pd.DataFrame, utilities: str) -> Lists:
        """scores: what the LLM gave, columns key, item, utility."""
        by_key = {key: dict(zip(rows["item"], rows["utility"], strict=True)) for key, rows in scores.groupby("key")}
        keys = [f"{row.part}-{row.user}-{row.prefix}" for row in predictions.cases.itertuples(index=False)]
        asked = np.array([key in by_key for key in keys], dtype=bool)
        each = zip(keys, predictions.items, asked, strict=True)
        found = [[by_key[key][item] for item in items] for key, items, there in each if there]
        llm = np.array(found, dtype=np.float64).reshape(-1, predictions.items.shape[1])
        return cls(predictions, llm, asked, utilities)

    @property
    def users(self) -> np.ndarray:
        return self.predictions.cases["user"].to_numpy()

    @property
    def parts(self) -> np.ndarray:
        return self.predictions.cases["part"].to_numpy()

    def order(self, alpha: np.ndarray | float, utilities: str = "") -> np.ndarray:
        """Equation 6: the final order of the lists that were asked about, [m, C]. alpha: each user's [U], or one
        number."""
        weight = alpha if np.isscalar(alpha) else alpha[self.users[self.asked]]
        items, scores = self.predictions.items[self.asked], self.predictions.scores[self.asked]
        return aggregation.aggregate(items, self.llm, scores, weight, utilities or self.utilities)

    def rank(self, alpha: np.ndarray | float, utilities: str = "") -> np.ndarray:
        """The target's final rank in every case, [n]; 0 where the list does not hold it."""
        rank = np.zeros(len(self.users), dtype=np.int64)
        if self.asked.any():
            targets = self.predictions.cases["item"].to_numpy()[self.asked]
            rank[self.asked] = evaluation.target_rank(self.order(alpha, utilities), targets)
        return rank

    def metric(self, alpha: np.ndarray | float) -> np.ndarray:
        """NDCG@5 of each case, [n]."""
        return evaluation.ndcg(self.rank(alpha), 5)

    def per_user(self, alpha: np.ndarray | float) -> pd.DataFrame:
        return evaluation.ranking_metrics(self.rank(alpha), self.users)

    def llm_alone(self) -> tuple[np.ndarray, np.ndarray]:
        """Users and NDCG@5 of the lists that hold their target, by the LLM alone."""
        rank = self.rank(1.0, "standardised")
        return self.users[rank > 0], evaluation.ndcg(rank[rank > 0], 5)

    def backbone_alone(self) -> tuple[np.ndarray, np.ndarray]:
        """The same by the backbone."""
        rank = evaluation.target_rank(self.predictions.items, self.predictions.cases["item"].to_numpy())
        return self.users[rank > 0], evaluation.ndcg(rank[rank > 0], 5)


@dataclass(frozen=True)
class Ratings:
    """n rating cases: the backbone's prediction and the LLM's."""

    users: np.ndarray  # int64 [n]
    parts: np.ndarray  # str [n], "window", "valid" or "test"
    actual: np.ndarray  # [n]
    llm: np.ndarray  # [n]
    backbone: np.ndarray  # [n]
    scale: tuple[float, float]

    @classmethod
    def of(cls, scores: pd.DataFrame, column: str, scale: tuple[float, float]) -> Ratings:
        """scores: columns user, part, rating, backbone and `column`, the LLM's rating ("expected" or "likeliest")."""
        return cls(*(scores[name].to_numpy() for name in ("user", "part", "rating", column, "backbone")), scale)

    def predicted(self, alpha: np.ndarray | float) -> np.ndarray:
        """Equation 6 of the two ratings, clipped to the scale, [n]. alpha: each user's [U], or one number."""
        weight = alpha if np.isscalar(alpha) else alpha[self.users]
        return aggregation.blend_ratings(weight, self.llm, self.backbone, self.scale)

    def metric(self, alpha: np.ndarray | float) -> np.ndarray:
        """The squared error of each case, [n]."""
        return evaluation.squared_error(self.predicted(alpha), self.actual)

    def per_user(self, alpha: np.ndarray | float) -> pd.DataFrame:
        return evaluation.rating_metrics(self.predicted(alpha), self.actual, self.users)

    def llm_alone(self) -> tuple[np.ndarray, np.ndarray]:
        """Users and squared errors of the LLM alone."""
        return self.users, evaluation.squared_error(self.llm, self.actual)

    def backbone_alone(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of the backbone."""
        return self.users, evaluation.squared_error(self.backbone, self.actual)


def top_changed(base: Lists, full: Lists, alpha: np.ndarray, k: int = 5) -> pd.Series:
    """By user, 1.0 where the final top k of a list that was asked about differs from the unaugmented backbone's."""
    changed = (full.order(alpha)[:, :k] != base.predictions.items[full.asked][:, :k]).any(axis=1)
    return pd.Series(changed, index=full.users[full.asked], dtype=float).groupby(level=0).max()


# -- choosing and measuring --------------------------------------------------------------------------------------------


def choose_weights(task: Task, cases: Sequence[Lists | Ratings], n_train: np.ndarray) -> aggregation.Choice:
    """alpha_1 and alpha_2 by the cases handed in. n_train [U]: N(u) of all users. Raises ValueError for test cases."""
    if any((each.parts == "test").any() for each in cases):
        raise ValueError("weights are never chosen on test: hand in validation or window cases")
    users = np.concatenate([each.users for each in cases])

    def evaluate(alpha_1: float, alpha_2: float) -> np.ndarray:
        alpha = aggregation.user_weights(n_train, alpha_1, alpha_2)
        return evaluation.per_user(np.concatenate([each.metric(alpha) for each in cases]), users).to_numpy()

    return aggregation.choose_alphas(evaluate, larger_is_better=task.sign > 0)


def weights_of(variant: Variant, choice: aggregation.Choice, n_train: np.ndarray) -> np.ndarray | float:
    """The weight of the LLM in a row: each user's by equation 7 where it is blended, else 0 (Base) or 1 (IFT)."""
    if variant.blended:
        return aggregation.user_weights(n_train, choice.alpha_1, choice.alpha_2)
    return 0.0 if variant.llm is None else 1.0


def measure(
    task: Task, cases: Mapping[str, Lists | Ratings], choice: aggregation.Choice, n_train: np.ndarray
) -> pd.DataFrame:
    """Every row's metrics for each user. cases: of each of VARIANTS.

    Columns: method, user, the metrics, and for a blended row alpha_1, alpha_2, mode (how utilities were made) and
    changed (see `top_changed`; NaN for users whose lists were not asked about).
    """
    frames = []
    for name, each in cases.items():
        alpha = weights_of(VARIANTS[name], choice, n_train)
        frame = each.per_user(alpha).assign(method=name, mode=None, alpha_1=np.nan, alpha_2=np.nan, changed=np.nan)
        if VARIANTS[name].blended:
            frame = frame.assign(alpha_1=choice.alpha_1, alpha_2=choice.alpha_2)
            frame["mode"] = "rating" if task.root else each.utilities
            if not task.root:
                frame["changed"] = frame["user"].map(top_changed(cases["Base"], each, alpha))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def mean_metric(task: Task, cases: Lists | Ratings, alpha: np.ndarray | float) -> float:
    """The task's metric over users: NDCG@5, or RMSE."""
    values = evaluation.per_user(cases.metric(alpha), cases.users)
    return evaluation.estimate(values.to_numpy(), root=task.root, draws=1).value


def best_baseline(task: Task, validation: Mapping[str, float]) -> str:
    """Base or IFT, whichever is better on validation: what Llama4Rec is compared with."""
    return max(("Base", "IFT"), key=lambda name: task.sign * validation[name])


def alone(task: Task, name: str, users: np.ndarray, values: np.ndarray, draws: int) -> dict:
    """One judge alone (an LLM, the backbone): name, value, ci_low, ci_high, lists. values [n]: its cases' metrics."""
    if not len(users):
        return {"name": name, "value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "lists": 0}
    found = evaluation.estimate(evaluation.per_user(values, users).to_numpy(), root=task.root, draws=draws)
    return {
        "name": name, "value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "lists": len(users),
    }  # fmt: skip


def random_order(candidates: int) -> dict:
    """The row of `alone` that any judge of lists must beat: a random order's NDCG@5, known exactly."""
    value = evaluation.random_order_ndcg(candidates, 5)
    return {"name": "random", "value": value, "ci_low": np.nan, "ci_high": np.nan, "lists": np.nan}
