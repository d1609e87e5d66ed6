"""Metrics per case, means per user, and how sure we are: intervals, paired tests, Holm's correction.

Every user weighs the same. A metric is computed per case, averaged over the user's cases (one under leave-one-out, ten
under rolling), then over users. RMSE is the root of the mean over users of their mean squared errors. Intervals
resample users, never cases. All of them use the same draws, so two methods are always compared in pairs.

Shapes: N cases, C candidates, U users, S seeds, K cut-off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import stdtr

ERRORS = ("RMSE", "MAE")  # the metrics of which less is better
DRAWS = 2_000  # bootstrap draws
FLIPS = 10_000  # sign patterns of the permutation test
DETECTABLE = 2.8  # standard errors: such a difference is found in four of five experiments, at the 5% level


def target_rank(items, target) -> np.ndarray:
    """1-based position of `target` [N] in the ranked lists `items` [N, C]; 0 where it is missing. int64 [N].

    Raises ValueError where the shapes do not fit.
    """
    items, target = np.asarray(items), np.asarray(target)
    if items.ndim != 2 or target.shape != items.shape[:1]:
        raise ValueError(f"items must be [N, C] and target [N], got {items.shape} and {target.shape}")
    found = items == target[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1, 0)


def hit(rank, k: int) -> np.ndarray:
    """HR@k of each case [N]: 1 where 1 <= rank <= k, else 0; a rank of 0 means that the target is missing.

    Raises ValueError for k < 1 and for a negative rank.
    """
    rank = _ranks(rank, k)
    return ((rank >= 1) & (rank <= k)).astype(float)


def ndcg(rank, k: int) -> np.ndarray:
    """NDCG@k of each case [N] with one relevant item: 1 / log2(rank + 1) where 1 <= rank <= k, else 0.

    Raises ValueError for k < 1 and for a negative rank.
    """
    rank = _ranks(rank, k)
    return np.where((rank >= 1) & (rank <= k), 1 / np.log2(np.maximum(rank, 1) + 1), 0.0)


def rating_error(predicted, actual) -> np.ndarray:
    """predicted - actual of each case [N], in rating points. Raises ValueError where shapes differ."""
    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    if predicted.shape != actual.shape:
        raise ValueError(f"predicted and actual must have one shape, got {predicted.shape} and {actual.shape}")
    return predicted - actual


def random_order_ndcg(n_candidates: int, k: int) -> float:
    """The mean NDCG@k over all orders of C candidates that hold the target: (1/C) sum_{r=1..min(k,C)} 1/log2(r+1).

    Raises ValueError for C < 1 and for k < 1.
    """
    if n_candidates < 1 or k < 1:
        raise ValueError(f"a list needs a candidate and a cut-off of 1 or more, got C = {n_candidates}, k = {k}")
    return float((1 / np.log2(np.arange(1, min(k, n_candidates) + 1) + 1)).sum() / n_candidates)


def per_user(values, users) -> pd.Series:
    """Mean over each user's cases of `values` [N]: a float series [U] with sorted index `user`.

    Raises ValueError where `values` and `users` are not both [N].
    """
    values, users = np.asarray(values, dtype=float), np.asarray(users)
    if values.shape != users.shape or values.ndim != 1:
        raise ValueError(f"values and users must both be [N], got {values.shape} and {users.shape}")
    return pd.Series(values).groupby(pd.Index(users, name="user"), sort=True).mean()


def ranking_metrics(rank, users) -> pd.DataFrame:
    """Per user HR@K and NDCG@K of the target ranks [N]: columns user, HR@3, NDCG@3, HR@5, NDCG@5."""
    columns = {}
    for k in (3, 5):
        columns |= {f"HR@{k}": per_user(hit(rank, k), users), f"NDCG@{k}": per_user(ndcg(rank, k), users)}
    return pd.DataFrame(columns).reset_index()


def rating_metrics(predicted, actual, users) -> pd.DataFrame:
    """Per user mean squared and mean absolute error of ratings [N]: columns user, MSE, MAE.

    MSE stays squared (rating points squared): the root comes after the mean over users, in `estimate`.
    """
    error = rating_error(predicted, actual)
    return pd.DataFrame({"MSE": per_user(error**2, users), "MAE": per_user(np.abs(error), users)}).reset_index()


@dataclass(frozen=True)
class Estimate:
    """A metric over users with its 95% bootstrap interval."""

    value: float
    ci_low: float
    ci_high: float
    users: int


def resampled_means(values, draws: int = DRAWS) -> np.ndarray:
    """Means of `values` [..., U] over `draws` resamples of the users with replacement: [..., draws].

    The same number of users gives the same resamples, so the difference of two calls is a paired bootstrap.
    """
    values = np.asarray(values, dtype=float)
    n_users = values.shape[-1]
    counts = _resample_counts(n_users, draws)
    means = np.empty((*values.shape[:-1], draws))
    for start in range(0, draws, 250):
        means[..., start : start + 250] = values @ counts[start : start + 250].T.astype(float) / n_users
    return means


def interval(resampled) -> tuple[float, float]:
    """The 95% percentile interval of resampled statistics [draws]."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def by_seed(values: np.ndarray, root: bool) -> np.ndarray:
    """The metric of each seed, from per-user values [S, U]: their mean, or with `root` its root. [S]."""
    means = values.mean(axis=1)
    return np.sqrt(means) if root else means


def estimate(values, root: bool = False, draws: int = DRAWS) -> Estimate:
    """The mean over users (and seeds) of a per-user metric [U] or [S, U], with a 95% interval over users.

    With `root` the values are squared errors: each seed's root mean square is averaged over seeds, in every resample
    as in the value itself. Raises ValueError without users or where a value is not finite.
    """
    values = _seeds_by_users(values)
    value = by_seed(values, root).mean()
    return Estimate(float(value), *interval(_resampled(values, root, draws)), values.shape[1])


def by_group(values, groups, root: bool = False, draws: int = DRAWS) -> pd.DataFrame:
    """`estimate` of a metric [U] or [S, U] within each group of users: columns group, value, ci_low, ci_high, users.

    `groups` [U] names each user's group. Raises ValueError where it has another length.
    """
    values, groups = _seeds_by_users(values), np.asarray(groups)
    if groups.shape != values.shape[1:]:
        raise ValueError(f"groups must name one group per user, got {groups.shape} for {values.shape[1]} users")
    found = {group: vars(estimate(values[:, groups == group], root, draws)) for group in np.unique(groups)}
    return pd.DataFrame([{"group": group} | each for group, each in found.items()])


def slope(values, x, draws: int = DRAWS) -> tuple[float, float, float]:
    """The least-squares slope of per-user `values` [U] on `x` [U], with its 95% interval over users."""
    x, y = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    moments = np.stack([x, y, x * y, x * x])

    def of(m: np.ndarray) -> np.ndarray:
        return (m[2] - m[0] * m[1]) / (m[3] - m[0] ** 2)

    return float(of(moments.mean(axis=1))), *interval(of(resampled_means(moments, draws)))


def history_group(n_interactions) -> np.ndarray:
    """Each user's group by N(u), the number of training interactions [U]: "long" above the median, else "tail".

    Users at the median are tail, so where all histories are equally long all users are. str [U].
    """
    n = np.asarray(n_interactions)
    return np.where(n > np.median(n), "long", "tail")


@dataclass(frozen=True)
class Comparison:
    """A method minus another on the same users: difference, its 95% bootstrap interval, two p-values, and the minimal
    detectable effect: how large a difference would have had to be to be seen."""

    diff: float
    ci_low: float
    ci_high: float
    p_seeds: float
    p_users: float
    mde: float  # 2.8 bootstrap standard errors of the difference


def compare(ours, theirs, root: bool = False, draws: int = DRAWS) -> Comparison:
    """`ours` minus `theirs`, per-user metrics [U] or [S, U] of the same users in the same order.

    The test over users takes each user's difference averaged over seeds (with `root`, of squared errors). `p_seeds`
    needs row s of both to be the same seed; it is NaN where they have different numbers of seeds. Raises ValueError
    where the numbers of users differ or a value is not finite.
    """
    ours, theirs = _seeds_by_users(ours), _seeds_by_users(theirs)
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"a paired comparison needs the same users, got {ours.shape[1]} and {theirs.shape[1]}")
    ours_by_seed, theirs_by_seed = by_seed(ours, root), by_seed(theirs, root)  # [S]
    resampled = _resampled(ours, root, draws) - _resampled(theirs, root, draws)  # [draws]
    return Comparison(
        float(ours_by_seed.mean() - theirs_by_seed.mean()),
        *interval(resampled),
        paired_t(ours_by_seed, theirs_by_seed) if len(ours) == len(theirs) else np.nan,
        sign_flip_test(ours.mean(axis=0) - theirs.mean(axis=0)),
        float(DETECTABLE * resampled.std()),
    )


def mean_gain(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], root: bool = False, draws: int = DRAWS
) -> tuple[float, float, float]:
    """The relative gain of a row over another, averaged over backbones, with its 95% interval over users.

    ours, theirs: for each backbone the two rows' metric [S, U], of the same users in the same order. A resample draws
    the same users for every backbone. NaN where the other row is 0; no interval where it is so in a resample. Raises
    ValueError where the numbers of users differ.
    """
    pairs = [tuple(map(_seeds_by_users, pair)) for pair in zip(ours, theirs, strict=True)]
    if len(users := {values.shape[1] for pair in pairs for values in pair}) > 1:
        raise ValueError(f"a paired comparison needs the same users, got {' and '.join(map(str, sorted(users)))}")
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.mean([by_seed(a, root).mean() / by_seed(b, root).mean() - 1 for a, b in pairs])
        resampled = np.mean([_resampled(a, root, draws) / _resampled(b, root, draws) - 1 for a, b in pairs], axis=0)
    gain, resampled = (np.where(np.isfinite(values), values, np.nan) for values in (gain, resampled))
    return float(gain), *interval(resampled)


def sign_flip_test(differences, flips: int = FLIPS) -> float:
    """Two-sided p-value of a paired sign-flip permutation test on per-user differences [U].

    Why not Wilcoxon: its ranks test another quantity than the mean that the table reports, and a difference in HR is
    -1, 0 or 1, nearly all ties and zeros. Here the statistic is the mean itself; a user without a difference has no
    say. All sign patterns are listed where there are no more than `flips` of them, otherwise `flips` random ones are
    drawn and p = (1 + as extreme) / (1 + flips). Differences that are all zero give p = 1. Raises ValueError where a
    difference is not finite.
    """
    d = np.asarray(differences, dtype=float)
    if not np.isfinite(d).all():
        raise ValueError("differences must be finite")
    threshold = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # as extreme, up to rounding
    if 2 ** min(np.count_nonzero(d), 60) <= flips:
        d = d[d != 0]
        patterns = np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1  # every pattern of signs, [2^n, n]
        return float(np.mean(np.abs((1 - 2 * patterns) @ d) >= threshold))
    signs, extreme = _signs(flips, len(d)), 0
    for start in range(0, flips, 500):
        extreme += int((np.abs(signs[start : start + 500] @ d) >= threshold).sum())
    return (1 + extreme) / (1 + flips)


def paired_t(ours, theirs) -> float:
    """Two-sided p-value of the paired t-test over seeds, on each seed's metric [S].

    NaN (no answer) for fewer than two seeds and where the difference is the same non-zero number for every seed: then
    nothing was redrawn and t is undefined. Differences that are all zero give 1.
    """
    d = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    if len(d) < 2:
        return np.nan
    if not d.any():
        return 1.0
    spread = d.std(ddof=1)
    if spread <= 1e-12 * np.abs(d).max():
        return np.nan
    t = d.mean() / (spread / np.sqrt(len(d)))
    return float(2 * stdtr(len(d) - 1, -abs(t)))


def holm(p) -> np.ndarray:
    """Holm's step-down adjusted p-values [M]; NaN marks a test that was not made, does not count and stays NaN.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_j). Raises ValueError outside 0..1.
    """
    p = np.asarray(p, dtype=float)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must lie between 0 and 1")
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made])]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _ranks(rank, k: int) -> np.ndarray:
    rank = np.asarray(rank)
    if k < 1:
        raise ValueError(f"the cut-off k must be 1 or more, got {k}")
    if rank.size and rank.min() < 0:
        raise ValueError(f"a rank is 1 or more, or 0 for a missing target, got {rank.min()}")
    return rank


def _seeds_by_users(values) -> np.ndarray:
    """[U] or [S, U] as [S, U] float64, or ValueError."""
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a metric needs at least one user, as [U] or [S, U], got shape {values.shape}")
    if not np.isfinite(values).all():
        seed, user = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"a metric must be finite, got {values[seed, user]} for seed row {seed}, user column {user}")
    return values


def _resampled(values, root: bool, draws: int) -> np.ndarray:
    """The metric averaged over seeds, in each resample of the users of [S, U]. [draws]."""
    means = resampled_means(values, draws)  # [S, draws]
    return (np.sqrt(means) if root else means).mean(axis=0)


@lru_cache(maxsize=2)
def _signs(flips: int, n_users: int) -> np.ndarray:
    """Random signs, int8 [flips, U]: the same for every comparison of as many users."""
    signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (flips, n_users), dtype=np.int8)
    signs.flags.writeable = False
    return signs


@lru_cache(maxsize=2)
def _resample_counts(n_users: int, draws: int) -> np.ndarray:
    """How often each user is drawn in each resample: int16 [draws, U]."""
    rng = np.random.default_rng(0)
    counts = np.empty((draws, n_users), dtype=np.int16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, n_users, n_users), minlength=n_users)
    counts.flags.writeable = False
    return counts
