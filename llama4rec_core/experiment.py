"""The experiment: how the weights of a row are chosen, and what is measured. `variants.py` says which rows there are.

A row's cases are `Lists` (top-k) or `Ratings`: what a backbone predicts, and the opinion of an LLM or a baseline about
it. Both answer the same questions for any weights alpha of the opinion: what the chosen metric is for each case, what
all metrics are for each user, and how likely the blend finds what the user really chose.
Shapes: n cases, m of them asked about, C candidates, U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from llama4rec_core import aggregation, evaluation
from llama4rec_core.aggregation import ALPHA_1, ALPHA_2, ONE_WEIGHT, Choice
from llama4rec_core.backbones.predict import Predictions, key_of
from llama4rec_core.tasks import Task
from llama4rec_core.variants import VARIANTS, Variant

# -- cases -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """n top-k cases: a backbone's lists, and the utilities that an LLM or a baseline gave to those it was asked about.

    Those are the lists that hold a target: no order of the others can change HR or NDCG. A list that was not asked
    about counts as one without its target. The untuned LLM was asked about some users only, so of its cases `alone` is
    right, which takes no other list, and `metric` and `per_user` are too low.
    """

    predictions: Predictions
    opinion: np.ndarray  # [m, C], the utilities of the candidates
    asked: np.ndarray  # bool [n]
    utilities: str  # "standardised" or "positions"

    @classmethod
    def of(cls, predictions: Predictions, scores: pd.DataFrame, utilities: str) -> Lists:
        """scores: what the LLM or baseline gave, columns key, item, utility. Raises ValueError where a list that was
        asked about lacks one of its candidates."""
        known = pd.Index(scores["key"].unique())
        code = known.get_indexer(key_of(predictions.cases))  # [n], -1 where nobody was asked
        asked, candidates = code >= 0, predictions.items.shape[1]
        given = pd.MultiIndex.from_arrays([known.get_indexer(scores["key"]), scores["item"]])
        wanted = [code[asked].repeat(candidates), predictions.items[asked].ravel()]
        at = given.get_indexer(pd.MultiIndex.from_arrays(wanted))
        if (at < 0).any():
            key, item = known[wanted[0][at.argmin()]], wanted[1][at.argmin()]
            raise ValueError(f"the scores lack item {item}, a candidate of list {key}")
        opinion = scores["utility"].to_numpy(np.float64)[at].reshape(-1, candidates)
        return cls(predictions, opinion, asked, utilities)

    @property
    def users(self) -> np.ndarray:
        return self.predictions.cases["user"].to_numpy()

    @property
    def parts(self) -> np.ndarray:
        return self.predictions.cases["part"].to_numpy()

    @property
    def targets(self) -> np.ndarray:
        return self.predictions.cases["item"].to_numpy()

    def only(self, keep: np.ndarray) -> Lists:
        """Those of the cases where `keep`, bool [n], is true."""
        return Lists(self.predictions.only(keep), self.opinion[keep[self.asked]], self.asked[keep], self.utilities)

    @cached_property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """U_LLM and U_Rec of every candidate that was asked about, both [m, C]."""
        return aggregation.utilities(self.opinion, self.predictions.scores[self.asked], self.utilities)

    def utility(self, alpha: np.ndarray | float) -> np.ndarray:
        """Equation 6: the utility of every candidate that was asked about, [m, C]. alpha: each user's [U], or one
        number."""
        weight = alpha if np.isscalar(alpha) else alpha[self.users[self.asked]]
        return aggregation.blend(weight, *self.both)

    def order(self, alpha: np.ndarray | float) -> np.ndarray:
        """The final order of the lists that were asked about, [m, C]."""
        return aggregation.rerank(self.predictions.items[self.asked], self.utility(alpha))

    def rank(self, alpha: np.ndarray | float) -> np.ndarray:
        """The target's final rank in every case, [n]; 0 where the list does not hold it."""
        rank = np.zeros(len(self.users), dtype=np.int64)
        rank[self.asked] = evaluation.target_rank(self.order(alpha), self.targets[self.asked])
        return rank

    def metric(self, alpha: np.ndarray | float) -> np.ndarray:
        """NDCG@5 of each case, [n]."""
        return evaluation.ndcg(self.rank(alpha), 5)

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Which of the lists that were asked about hold their case's target, bool [m], and in which column these do."""
        found = self.predictions.items[self.asked] == self.targets[self.asked, None]  # [m, C]
        held = found.any(axis=1)  # of two targets with one history, the list may hold one only
        return held, found[held].argmax(axis=1)

    def log_likelihood(self, alpha: np.ndarray | float) -> np.ndarray:
        """Of the target, among the candidates: one number for each case whose list holds it."""
        held, column = self.found()
        return aggregation.list_log_likelihood(self.utility(alpha)[held], column)

    def per_user(self, alpha: np.ndarray | float) -> pd.DataFrame:
        return evaluation.ranking_metrics(self.rank(alpha), self.users)

    def alone(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Users and NDCG@5 of the lists that hold their target, by the opinion alone (alpha 1) or the backbone (0)."""
        rank = self.rank(alpha)
        return self.users[rank > 0], evaluation.ndcg(rank[rank > 0], 5)


@dataclass(frozen=True)
class Ratings:
    """n rating cases: the backbone's prediction and an LLM's or a baseline's."""

    users: np.ndarray  # int64 [n]
    parts: np.ndarray  # str [n], "valid" or "test"
    actual: np.ndarray  # [n]
    opinion: np.ndarray  # [n]
    backbone: np.ndarray  # [n]
    scale: tuple[float, float]

    @classmethod
    def of(cls, scores: pd.DataFrame, column: str, scale: tuple[float, float]) -> Ratings:
        """scores: columns user, part, rating, backbone and `column`, the opinion ("expected" or "likeliest")."""
        return cls(*(scores[name].to_numpy() for name in ("user", "part", "rating", column, "backbone")), scale)

    def only(self, keep: np.ndarray) -> Ratings:
        """Those of the cases where `keep`, bool [n], is true."""
        arrays = (self.users, self.parts, self.actual, self.opinion, self.backbone)
        return Ratings(*(array[keep] for array in arrays), self.scale)

    def predicted(self, alpha: np.ndarray | float) -> np.ndarray:
        """Equation 6 of the two ratings, clipped to the scale, [n]. alpha: each user's [U], or one number."""
        weight = alpha if np.isscalar(alpha) else alpha[self.users]
        return aggregation.blend_ratings(weight, self.opinion, self.backbone, self.scale)

    def metric(self, alpha: np.ndarray | float) -> np.ndarray:
        """The squared error of each case, [n]."""
        return evaluation.rating_error(self.predicted(alpha), self.actual) ** 2

    def log_likelihood(self, alpha: np.ndarray | float) -> np.ndarray:
        """Of each case's error, [n]."""
        return aggregation.rating_log_likelihood(self.predicted(alpha) - self.actual)

    def per_user(self, alpha: np.ndarray | float) -> pd.DataFrame:
        return evaluation.rating_metrics(self.predicted(alpha), self.actual, self.users)

    def alone(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Users and squared errors of the opinion alone (alpha 1) or the backbone (0)."""
        return self.users, self.metric(alpha)


def top_changed(base: Lists, full: Lists, alpha: np.ndarray) -> pd.Series:
    """By user, 1.0 where the final top 5 of a list that was asked about differs from the unaugmented backbone's."""
    changed = (full.order(alpha)[:, :5] != base.predictions.items[full.asked][:, :5]).any(axis=1)
    return pd.Series(changed, index=full.users[full.asked], dtype=float).groupby(level=0).max()


def choose_weights(variant: Variant, cases: Lists | Ratings, n_train: np.ndarray) -> Choice:
    """alpha_1 and alpha_2 of a blended row, by the likelihood of its validation cases. n_train [U]: N(u) of all users.

    Where all users get one weight ("w/o AA"), alpha_2 is 1, and alpha_1 any product of the two grids: those are the
    weights that equation 7 gives to users with long histories. Raises ValueError for cases of another part.
    """
    if not (cases.parts == "valid").all():
        raise ValueError("weights are chosen on validation alone: hand in cases of the part 'valid'")

    def log_likelihood(alpha_1: float, alpha_2: float) -> np.ndarray:
        return cases.log_likelihood(aggregation.user_weights(n_train, alpha_1, alpha_2))

    grids = (ONE_WEIGHT, (1.0,)) if variant.weight == "one" else (ALPHA_1, ALPHA_2)
    return aggregation.choose_alphas(log_likelihood, *grids)


def weights_of(variant: Variant, choice: Choice | None, n_train: np.ndarray) -> np.ndarray | float:
    """The weight of the opinion in a row: each user's by equation 7 where both are blended, else 0 or 1.

    choice: the row's own; None where nothing is blended.
    """
    if variant.blended:
        return aggregation.user_weights(n_train, choice.alpha_1, choice.alpha_2)
    return 1.0 if variant.weight == "opinion" else 0.0


def cross_fitted(variant: Variant, cases: Lists | Ratings, n_train: np.ndarray) -> np.ndarray:
    """The validation metric of each case, [n], by weights that were chosen on other users."""
    return aggregation.cross_fitted(
        lambda mask: choose_weights(variant, cases.only(mask), n_train),
        lambda choice: cases.metric(weights_of(variant, choice, n_train)),
        cases.users,
    )


def validated(task: Task, cases: Mapping[str, Lists | Ratings], choices: Mapping[str, Choice], n_train) -> dict:
    """What validation says of each row: metric (cross-fitted where weights were chosen), and for a blended row alpha_1,
    alpha_2 and gain (in nats). cases: of part "valid"."""
    out = {}
    for name, each in cases.items():
        variant = VARIANTS[name]
        if variant.blended:
            out[name] = {key: getattr(choices[name], key) for key in ("alpha_1", "alpha_2", "gain")}
            values = cross_fitted(variant, each, n_train)
        else:
            out[name], values = {}, each.metric(weights_of(variant, None, n_train))
        out[name]["validation"] = over_users(task, each.users, values)
    return out


def fit_stack(cases: Sequence[Lists] | Sequence[Ratings]) -> np.ndarray:
    """The weights of a backbone and several opinions together: `aggregation.stack_lists` or `stack_ratings`.

    cases: the same validation cases, with another opinion each. Raises ValueError for cases of another part.
    """
    first = cases[0]
    if not (first.parts == "valid").all():
        raise ValueError("a stack is fitted on validation alone: hand in cases of the part 'valid'")
    if isinstance(first, Ratings):
        return aggregation.stack_ratings(_judged(cases), first.actual)
    held, column = first.found()
    return aggregation.stack_lists(_judged(cases)[held], column)


def stacked(cases: Sequence[Lists] | Sequence[Ratings], weights: np.ndarray) -> Lists | Ratings:
    """The cases with the stack as the opinion; alone, with weight 1, it is the final order or rating."""
    if isinstance(cases[0], Ratings):
        return replace(cases[0], opinion=weights[0] + _judged(cases) @ weights[1:])
    return replace(cases[0], opinion=_judged(cases) @ weights, utilities="standardised")


def validated_stack(task: Task, cases: Sequence[Lists] | Sequence[Ratings]) -> dict:
    """What validation says of a stack: metric, by weights that were fitted on other users. cases: of part "valid"."""
    users = cases[0].users
    values = aggregation.cross_fitted(
        lambda mask: fit_stack([each.only(mask) for each in cases]),
        lambda weights: stacked(cases, weights).metric(1.0),
        users,
    )
    return {"validation": over_users(task, users, values)}


def _judged(cases: Sequence[Lists] | Sequence[Ratings]) -> np.ndarray:
    """What the backbone and each opinion say: ratings [n, K], or scores standardised within the list [m, C, K]."""
    first = cases[0]
    if isinstance(first, Ratings):
        return np.stack([first.backbone, *(each.opinion for each in cases)], axis=-1)
    if any((each.asked != first.asked).any() for each in cases):
        raise ValueError("the opinions of a stack must be about the same lists")
    scores = [first.predictions.scores[first.asked], *(each.opinion for each in cases)]
    return np.stack([aggregation.standardise(each) for each in scores], axis=-1)


def measure(
    task: Task, cases: Mapping[str, Lists | Ratings], choices: Mapping[str, Choice], n_train: np.ndarray
) -> pd.DataFrame:
    """Every row's metrics for each user. cases: of each row, Base among them. choices: of each blended row.

    Columns: row, user, cases (how many), the metrics, and for a blended row alpha_1, alpha_2, mode (how utilities were
    made) and changed (see `top_changed`; NaN for users whose lists were not asked about).
    """
    frames = []
    for name, each in cases.items():
        variant, choice = VARIANTS[name], choices.get(name)
        alpha = weights_of(variant, choice, n_train)
        frame = of_row(name, each, alpha)
        if variant.blended:
            frame = frame.assign(alpha_1=choice.alpha_1, alpha_2=choice.alpha_2)
            frame["mode"] = "rating" if task.root else each.utilities
            if not task.root:
                frame["changed"] = frame["user"].map(top_changed(cases["Base"], each, alpha))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def of_row(name: str, cases: Lists | Ratings, alpha: np.ndarray | float) -> pd.DataFrame:
    """One row's metrics for each user, with the columns of `measure`, those of blended rows empty."""
    frame = cases.per_user(alpha).assign(row=name, mode=None, alpha_1=np.nan, alpha_2=np.nan, changed=np.nan)
    return frame.assign(cases=frame["user"].map(pd.Series(cases.users).value_counts()))


def over_users(task: Task, users: np.ndarray, values: np.ndarray) -> float:
    """The task's metric, NDCG@5 or RMSE, from each case's value [n]: every user weighs the same."""
    return evaluation.estimate(evaluation.per_user(values, users).to_numpy(), root=task.root, draws=1).value


def alone(task: Task, name: str, users: np.ndarray, values: np.ndarray, draws: int) -> dict:
    """One judge alone (an LLM, the backbone): name, value, ci_low, ci_high, lists. values [n]: its cases' metrics."""
    row = {"name": name, "value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "lists": len(users)}
    if len(users):
        found = evaluation.estimate(evaluation.per_user(values, users).to_numpy(), root=task.root, draws=draws)
        row |= {"value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high}
    return row


def random_order(candidates: int) -> dict:
    """The row of `alone` that any judge of lists must beat: a random order's NDCG@5, known exactly."""
    value = evaluation.random_order_ndcg(candidates, 5)
    return {"name": "random", "value": value, "ci_low": np.nan, "ci_high": np.nan, "lists": np.nan}
