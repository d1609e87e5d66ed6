"""Adaptive aggregation: equations 4 to 7 of the Llama4Rec paper as pure functions on arrays.

    s(u)    = argmax over v != u of e_u . e_v / (|e_u| |e_v|)                      (4)
    l_u     = log(N(u) + 1)                                                        (5)
    U       = alpha_u * U_LLM + (1 - alpha_u) * U_Rec                              (6)
    alpha_u = max((l_max - l_u) / (l_max - l_min), alpha_2) * alpha_1              (7)

A user with few interactions leans on the LLM, a user with many on the conventional model (the backbone).

Shapes: U users, N cases (lists to rank, or ratings to predict), C candidates per list, D embedding.
A candidate list always stands in the backbone's order, best first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ALPHA_1 = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # the paper's grid, and 0: the backbone alone
ALPHA_2 = (0.1, 0.3, 0.5, 0.7, 0.9)
UTILITIES = ("positions", "standardised")
_EQUAL = 1e-12  # two sums this close, relative to the largest, differ by rounding alone


# --- equation 4: the most similar user -------------------------------------------------------------


def most_similar_user(embeddings, users=None, allowed=None) -> np.ndarray:
    """Eq. 4: the other user with the largest cosine similarity; int64, one for each of `users`.

    `embeddings` is [U, D]; `users` are the ids to answer for (all when None); `allowed` is a boolean mask [U] of
    those who may be chosen (everyone when None). Nobody is similar to themselves. An embedding of length zero has
    cosine 0 with everyone. Ties go to the lowest id. Works in blocks of users: no U x U matrix is held.
    Raises ValueError where a user has nobody to choose from, for an unknown id, and for a value that is not finite.
    """
    embeddings = _finite("embeddings", embeddings, ndim=2)
    n_users = len(embeddings)
    users = np.arange(n_users) if users is None else np.asarray(users, dtype=np.int64)
    allowed = np.ones(n_users, dtype=bool) if allowed is None else np.asarray(allowed)
    if allowed.shape != (n_users,) or allowed.dtype != bool:
        raise ValueError(f"allowed must be a boolean mask of {n_users} users, got {allowed.dtype} {allowed.shape}")
    if len(users) and not (0 <= users.min() and users.max() < n_users):
        raise ValueError(f"users must lie in 0..{n_users - 1}, got {users.min()}..{users.max()}")
    lonely = users[allowed.sum() - allowed[users] == 0]
    if len(lonely):
        raise ValueError(f"user {lonely[0]} has no other allowed user to be similar to")

    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(length > 0, length, 1)
    similar = np.empty(len(users), dtype=np.int64)
    block = max(1, 4_000_000 // n_users)
    for start in range(0, len(users), block):
        ours = users[start : start + block]
        cosine = unit[ours] @ unit.T  # (4) [block, U]
        cosine[:, ~allowed] = -np.inf
        cosine[np.arange(len(ours)), ours] = -np.inf
        best = cosine.max(axis=1, keepdims=True)
        similar[start : start + block] = np.argmax(cosine >= best - _EQUAL, axis=1)
    return similar


# --- equations 5 and 7: how much a user leans on the LLM -------------------------------------------


def long_tail_coefficient(n) -> np.ndarray:
    """Eq. 5: l_u = log(N(u) + 1), where `n` [U] counts the user's real training interactions.

    Raises ValueError for a negative count.
    """
    n = _finite("the number of interactions", n)
    if (n < 0).any():
        raise ValueError(f"the number of interactions must not be negative, got {n.min():g}")
    return np.log(n + 1)  # (5)


def adaptive_weight(l, alpha_1: float, alpha_2: float, l_min: float, l_max: float) -> np.ndarray:  # noqa: E741
    """Eq. 7: alpha_u = max((l_max - l_u) / (l_max - l_min), alpha_2) * alpha_1, from the coefficients l_u `l` [U].

    alpha_1 scales: it is the weight of the user with the shortest history. alpha_2 cuts off: nobody falls below
    alpha_1 * alpha_2, and alpha_2 = 1 gives every user alpha_1 ("w/o AA"). l_min and l_max are over all users; where
    they are equal the quotient counts as 0. The paper's first version gives the direction and the two roles in words;
    readers of the journal version implement this closed form. Raises ValueError where alpha_1 or alpha_2 leaves 0..1
    or a coefficient leaves l_min..l_max.
    """
    l_u = _finite("the long-tail coefficient", l)
    _check_alphas(alpha_1, alpha_2)
    if not l_min <= l_max:
        raise ValueError(f"l_min must not exceed l_max, got {l_min} and {l_max}")
    if l_u.size and (l_u.min() < l_min - _EQUAL or l_u.max() > l_max + _EQUAL):
        raise ValueError(
            f"long-tail coefficients {l_u.min():g}..{l_u.max():g} leave [l_min, l_max] = [{l_min:g}, {l_max:g}]; "
            "take both over all users"
        )
    tail = (l_max - l_u) / (l_max - l_min) if l_max > l_min else np.zeros_like(l_u)
    return np.minimum(np.maximum(tail, alpha_2), 1) * alpha_1  # (7); above 1 is rounding


def user_weights(n, alpha_1: float, alpha_2: float) -> np.ndarray:
    """Eq. 5 and 7 for all users at once: `n` [U] counts training interactions, the answer [U] is alpha_u.

    Raises ValueError without users, for a negative count, and where alpha_1 or alpha_2 leaves 0..1.
    """
    l_u = long_tail_coefficient(n)
    if not l_u.size:
        raise ValueError("there is no user to weigh")
    return adaptive_weight(l_u, alpha_1, alpha_2, l_u.min(), l_u.max())


def _check_alphas(alpha_1: float, alpha_2: float) -> None:
    for name, value in (("alpha_1", alpha_1), ("alpha_2", alpha_2)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")


# --- U_LLM and U_Rec of a list ---------------------------------------------------------------------


def positional_utility(k: int) -> np.ndarray:
    """U_Rec of a list of k candidates: position s gets -s * C with C = 1, so -1, -2, ..., -k."""
    return -np.arange(1.0, k + 1)


def utility_of_scores(scores) -> np.ndarray:
    """Minus the position each candidate takes when its list is sorted by `scores` [N, C], highest first, stable."""
    order = np.argsort(-_finite("the scores", scores, ndim=2), axis=1, kind="stable")
    utility = np.empty(order.shape)
    np.put_along_axis(utility, order, np.broadcast_to(positional_utility(order.shape[1]), order.shape), axis=1)
    return utility


def standardise(x) -> np.ndarray:
    """Each list of `x` [N, C] to mean 0 and standard deviation 1; a list of equal scores becomes zeros."""
    x = _finite("the scores", x, ndim=2)
    if not x.size:
        return x.copy()
    centred = x - x.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    varied = spread > _EQUAL * np.abs(x).max(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=varied)


def utilities(llm_scores, rec_scores, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """U_LLM and U_Rec, both [N, C], of candidate lists in the backbone's order; the best candidate has the largest.

    kind "positions": each is minus the position, by the LLM's scores and by the backbone's order (section 4.4.2).
    kind "standardised": each is its own scores, standardised within the list. Raises ValueError on another kind, on
    shapes that differ, and where `rec_scores` rise within a list (then the list is not in the backbone's order).
    """
    llm, rec = _finite("llm_scores", llm_scores, ndim=2), _finite("rec_scores", rec_scores, ndim=2)
    if llm.shape != rec.shape:
        raise ValueError(f"llm_scores and rec_scores must have one shape [N, C], got {llm.shape} and {rec.shape}")
    rising = np.flatnonzero((np.diff(rec, axis=1) > 0).any(axis=1))
    if len(rising):
        raise ValueError(f"row {rising[0]}: rec_scores rise, but candidates must stand in the backbone's order")
    if kind == "positions":
        return utility_of_scores(llm), np.broadcast_to(positional_utility(rec.shape[1]), rec.shape)
    if kind == "standardised":
        return standardise(llm), standardise(rec)
    raise ValueError(f"the kind of utility must be one of {', '.join(UTILITIES)}, got {kind!r}")


# --- equation 6: the final utility -----------------------------------------------------------------


def blend(alpha, u_llm, u_rec) -> np.ndarray:
    """Eq. 6: U = alpha_u * U_LLM + (1 - alpha_u) * U_Rec, for lists [N, C] or ratings [N].

    `alpha` is one weight per case [N], or one number. Raises ValueError where shapes do not fit or a weight leaves
    0..1.
    """
    alpha, u_llm, u_rec = np.asarray(alpha, dtype=float), np.asarray(u_llm, float), np.asarray(u_rec, float)
    if u_llm.shape != u_rec.shape:
        raise ValueError(f"u_llm and u_rec must have one shape, got {u_llm.shape} and {u_rec.shape}")
    if alpha.ndim and alpha.shape != u_llm.shape[:1]:
        raise ValueError(f"alpha must be one number or one per case, got {alpha.shape} for {u_llm.shape}")
    if not ((alpha >= 0) & (alpha <= 1)).all():
        raise ValueError("every alpha must lie between 0 and 1")
    if alpha.ndim and u_llm.ndim == 2:
        alpha = alpha[:, None]  # [N, 1]
    return alpha * u_llm + (1 - alpha) * u_rec  # (6)


def blend_ratings(alpha, llm_ratings, rec_ratings, scale: tuple[float, float]) -> np.ndarray:
    """Section 4.4.1: eq. 6 on two predicted ratings [N], then clipped to the rating `scale` (lowest, highest).

    Raises ValueError where shapes differ, a rating is not finite or a weight leaves 0..1.
    """
    llm, rec = _finite("llm_ratings", llm_ratings, ndim=1), _finite("rec_ratings", rec_ratings, ndim=1)
    return np.clip(blend(alpha, llm, rec), *scale)


def rerank(items, utility) -> np.ndarray:
    """The candidates `items` [N, C] by falling `utility` [N, C]; equal utilities keep the backbone's order.

    Equal means equal up to rounding: 0.3 * -8 + 0.7 * -3 and 0.3 * -1 + 0.7 * -6 are both -4.5, and tie.
    Raises ValueError where shapes differ or a utility is not finite.
    """
    items, utility = np.asarray(items), _finite("the utility", utility, ndim=2)
    if items.shape != utility.shape:
        raise ValueError(f"items and utility must have one shape [N, C], got {items.shape} and {utility.shape}")
    if not items.size:
        return items.copy()
    order = np.argsort(-utility, axis=1)
    falling = np.take_along_axis(utility, order, axis=1)
    drop = falling[:, :-1] - falling[:, 1:] > _EQUAL * np.abs(utility).max(axis=1, keepdims=True)
    level = np.zeros(items.shape, dtype=np.int64)  # 0 for the best utility, one more after every real drop
    np.put_along_axis(level, order[:, 1:], drop.cumsum(axis=1), axis=1)
    return np.take_along_axis(items, np.argsort(level, axis=1, kind="stable"), axis=1)


def aggregate(items, llm_scores, rec_scores, alpha, kind: str = "positions") -> np.ndarray:
    """Section 4.4.2 in one step: candidates `items` [N, C] in the backbone's order -> the final order [N, C]."""
    return rerank(items, blend(alpha, *utilities(llm_scores, rec_scores, kind)))


# --- choosing alpha_1 and alpha_2 on validation ----------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The chosen pair, its validation metric, and the whole grid (columns alpha_1, alpha_2, value)."""

    alpha_1: float
    alpha_2: float
    value: float
    grid: pd.DataFrame


def choose_alphas(
    evaluate: Callable[[float, float], Sequence[float]],
    larger_is_better: bool = True,
    alpha_1: Sequence[float] = ALPHA_1,
    alpha_2: Sequence[float] = ALPHA_2,
) -> Choice:
    """The pair with the least LLM among those that validation cannot tell from the best: the one-standard-error rule.

    `evaluate(alpha_1, alpha_2)` gives each user's metric [U]; for RMSE, each user's mean squared error, with
    `larger_is_better=False`. The best of the grid is the largest of many noisy means and promises too much. So every
    pair is kept that falls short of it by at most one standard error of their paired difference, std(d) / sqrt(U). Of
    those the smallest alpha_1 is taken, then the smallest alpha_2 (Breiman et al., 1984, section 3.4.3). Raises
    ValueError where the grid or the metric is empty, a pair leaves 0..1, or a value is not finite.
    """
    pairs = [(float(first), float(second)) for first in sorted(alpha_1) for second in sorted(alpha_2)]
    if not pairs:
        raise ValueError("the grid of alpha_1 and alpha_2 is empty")
    for pair in pairs:
        _check_alphas(*pair)
    values = [_finite(f"the metric at alpha_1 = {a}, alpha_2 = {b}", evaluate(a, b), ndim=1) for a, b in pairs]
    metric = np.stack(values)  # [pairs, U]
    n_users = metric.shape[1]
    if not n_users:
        raise ValueError("there is no validation user to choose alpha_1 and alpha_2 on")
    gain = metric if larger_is_better else -metric
    mean = gain.mean(axis=1)
    short = gain[mean.argmax()] - gain  # [pairs, U], how far each falls short of the best
    error = short.std(axis=1, ddof=min(1, n_users - 1)) / np.sqrt(n_users)
    chosen = int(np.argmax(short.mean(axis=1) <= error + _EQUAL * abs(mean.max())))  # the first uses least LLM
    value = mean if larger_is_better else -mean
    grid = pd.DataFrame(pairs, columns=["alpha_1", "alpha_2"]).assign(value=value)
    return Choice(*pairs[chosen], float(value[chosen]), grid)


def _finite(name: str, values, ndim: int | None = None) -> np.ndarray:
    """`values` as float64, or ValueError where the number of axes is wrong or an entry is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if ndim is not None and values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {values.shape}")
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{name} must be finite, got {values[where]} at {where}")
    return values
