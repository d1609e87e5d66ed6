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
from scipy.special import logsumexp, softmax

ALPHA_1 = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # the paper's grid, and 0: the backbone alone
ALPHA_2 = (0.1, 0.3, 0.5, 0.7, 0.9)
ONE_WEIGHT = tuple(sorted({round(first * second, 2) for first in ALPHA_1 for second in (*ALPHA_2, 1.0)}))
UTILITIES = ("positions", "standardised")
_EQUAL = 1e-12  # two sums this close, relative to the largest, differ by rounding alone
_SAME_NATS = 1e-6  # and so do two log-likelihoods, whose tau is found by search
_SHARP = 1e-10  # how well tau is found, relative to it
_SHARPEST = 1e3  # tau times the largest distance of a candidate from its target


def most_similar_user(embeddings) -> np.ndarray:
    """Eq. 4: of each user the other one with the largest cosine similarity; `embeddings` [U, D], the answer int64 [U].

    Nobody is similar to themselves. An embedding of length zero has cosine 0 with everyone. Ties go to the lowest id.
    Works in blocks of users: no U x U matrix is held. Raises ValueError where there is only one user, and for a value
    that is not finite.
    """
    embeddings = _finite("embeddings", embeddings, ndim=2)
    n_users = len(embeddings)
    if n_users == 1:
        raise ValueError("a single user has nobody to be similar to")
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(length > 0, length, 1)
    similar = np.empty(n_users, dtype=np.int64)
    block = max(1, 4_000_000 // max(1, n_users))
    for start in range(0, n_users, block):
        cosine = unit[start : start + block] @ unit.T  # (4) [block, U]
        ours = np.arange(len(cosine))
        cosine[ours, start + ours] = -np.inf
        best = cosine.max(axis=1, keepdims=True)
        similar[start : start + block] = np.argmax(cosine >= best - _EQUAL, axis=1)
    return similar


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


def sharpness(utility, target) -> float:
    """tau >= 0, by which `utility` [m, C] explains the `target` columns [m] best, as softmax(tau * utility).

    0 where the targets do not stand above the mean of their lists; bounded where they are the best of every list, since
    any larger tau would be better still. Raises ValueError where shapes do not fit or a utility is not finite.
    """
    above = _above_target(utility, target)
    spread = np.abs(above).max(initial=0.0)

    def slopes(tau: float) -> tuple[float, float]:  # of the summed log-likelihood: it falls with tau; and of that
        likely = np.exp(tau * above - (tau * above).max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        mean = (likely * above).sum(axis=1)
        return -float(mean.sum()), float((mean**2).sum() - (likely * above**2).sum())

    if spread == 0 or slopes(0.0)[0] <= 0:
        return 0.0
    low, high, tau = 0.0, _SHARPEST / spread, 1 / above.std()
    if slopes(high)[0] >= 0:
        return high
    while high - low > _SHARP * high:  # Newton's method, or halving where it would leave the bracket
        first, second = slopes(tau)
        low, high = (tau, high) if first > 0 else (low, tau)
        step = tau - first / second if second else np.inf
        if abs(step - tau) <= _SHARP * tau:
            return float(step)
        tau = step if low < step < high else (low + high) / 2
    return float(tau)


def list_log_likelihood(utility, target) -> np.ndarray:
    """log softmax(tau * utility) of each list's target, [m]; tau is the one `sharpness` of all the lists.

    utility [m, C]; target int [m], the target's column. A list of equal utilities gives -log C. Every position counts,
    not only the first ones. Raises ValueError where shapes do not fit or a utility is not finite.
    """
    return -logsumexp(sharpness(utility, target) * _above_target(utility, target), axis=1)


def rating_log_likelihood(error) -> np.ndarray:
    """The Gaussian log-likelihood of each prediction's `error` [n], [n]; the variance is their mean square.

    Raises ValueError where an error is not finite.
    """
    squared = _finite("the error", error, ndim=1) ** 2
    variance = max(squared.mean(), _EQUAL) if squared.size else 1.0  # no error at all stays finite
    return -(np.log(2 * np.pi * variance) + squared / variance) / 2


def _above_target(utility, target) -> np.ndarray:
    """`utility` [m, C], less that of each list's target."""
    utility, target = _finite("the utility", utility, ndim=2), np.asarray(target)
    if target.shape != utility.shape[:1]:
        raise ValueError(f"target must be one column for each list, got {target.shape} for {utility.shape}")
    return utility - np.take_along_axis(utility, target[:, None].astype(np.int64), axis=1)


@dataclass(frozen=True)
class Choice:
    """The chosen pair, and what it and every pair of the grid gain over the backbone alone."""

    alpha_1: float
    alpha_2: float
    gain: float  # nats of summed log-likelihood on validation, more than at alpha_1 = 0
    grid: pd.DataFrame  # columns alpha_1, alpha_2, value (the gain)


def choose_alphas(
    log_likelihood: Callable[[float, float], Sequence[float]],
    alpha_1: Sequence[float] = ALPHA_1,
    alpha_2: Sequence[float] = ALPHA_2,
    margin: float = 1.0,
) -> Choice:
    """The pair that makes the validation targets likeliest, or alpha_1 = 0 if that gains no more than `margin` nats.

    `log_likelihood(alpha_1, alpha_2)` gives that of each validation case [n]. It is asked once at alpha_1 = 0, where
    alpha_2 has no say. Of equally good pairs the one with the smallest alpha_1 is taken, then the smallest alpha_2.
    Without a case alpha_1 stays 0. Raises ValueError where there is no alpha_2, a pair leaves 0..1 or a value is not
    finite.
    """
    pairs = [(float(first), float(second)) for first in sorted({0.0, *alpha_1}) for second in sorted(alpha_2)]
    if not pairs:
        raise ValueError("the grid of alpha_1 and alpha_2 is empty: give at least one alpha_2")
    for pair in pairs:
        _check_alphas(*pair)

    def total(first: float, second: float) -> float:
        name = f"the log-likelihood at alpha_1 = {first}, alpha_2 = {second}"
        return float(_finite(name, log_likelihood(first, second), ndim=1).sum())

    alone = total(*pairs[0])
    gains = np.array([total(*pair) - alone if pair[0] else 0.0 for pair in pairs])
    best = int(np.argmax(gains >= gains.max() - _SAME_NATS))  # the first of the best uses the least LLM
    chosen = best if gains[best] > margin else 0
    grid = pd.DataFrame(pairs, columns=["alpha_1", "alpha_2"]).assign(value=gains)
    return Choice(*pairs[chosen], float(gains[chosen]), grid)


def cross_fitted(
    choose: Callable[[np.ndarray], Choice],
    apply: Callable[[Choice], Sequence[float]],
    users,
    folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Each case's value [n] by weights that were chosen without its user: the gain they promise is not too good.

    The users are dealt into `folds` at random. `choose` gets a mask [n] of the other folds' cases; `apply` gives the
    values [n] of all cases by that choice, of which the fold's own are kept. `users` [n] says whose each case is.
    Raises ValueError for fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"cross-fitting needs two folds or more, got {folds}")
    known, user = np.unique(np.asarray(users), return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(known)) % folds)[user]
    values = np.empty(len(fold))
    for each in np.unique(fold):
        values[fold == each] = np.asarray(apply(choose(fold != each)))[fold == each]
    return values


def stack_lists(features, target, ridge: float = 1.0) -> np.ndarray:
    """Weights w [K] of a stack: sum over lists of log softmax(features w) at the target, less ridge |w|^2 / 2, at its
    largest (McFadden's conditional logit, 1974).

    features [m, C, K]: each candidate by K judges; target [m]: the target's column. Newton's method; concave, so there
    is one answer. Raises ValueError where shapes differ.
    """
    x, target = _finite("the features", features, ndim=3), np.asarray(target)
    if target.shape != x.shape[:1]:
        raise ValueError(f"target must be [m] for features [m, C, K], got {target.shape} and {x.shape}")
    w, right = np.zeros(x.shape[2]), x[np.arange(len(x)), target]  # [K], [m, K]
    for _ in range(100):
        p = softmax(x @ w, axis=1)[..., None]  # [m, C, 1]
        mean = (p * x).sum(axis=1)  # [m, K]
        gradient = (right - mean).sum(axis=0) - ridge * w
        spread = np.einsum("mck,mcl->kl", p * x, x) - mean.T @ mean + ridge * np.eye(len(w))
        step = np.linalg.solve(spread, gradient)
        w = w + step / max(1.0, np.abs(step).max())  # at most 1, so that it cannot overshoot far
        if np.abs(step).max() < 1e-10:
            break
    return w


def stack_ratings(features, actual, ridge: float = 1.0) -> np.ndarray:
    """[K + 1], an intercept and weights: ridge regression of ratings `actual` [n] on K judges' `features` [n, K].

    Raises ValueError where shapes differ.
    """
    x, y = _finite("the features", features, ndim=2), _finite("the ratings", actual, ndim=1)
    if len(x) != len(y):
        raise ValueError(f"actual must be [n] for features [n, K], got {y.shape} and {x.shape}")
    centre, mean = x.mean(axis=0), y.mean()
    w = np.linalg.solve((x - centre).T @ (x - centre) + ridge * np.eye(x.shape[1]), (x - centre).T @ (y - mean))
    return np.concatenate([[mean - centre @ w], w])


def _finite(name: str, values, ndim: int | None = None) -> np.ndarray:
    """`values` as float64, or ValueError where the number of axes is wrong or an entry is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if ndim is not None and values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {values.shape}")
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{name} must be finite, got {values[where]} at {where}")
    return values
