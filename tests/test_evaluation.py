"""Metrics by hand, parity with trec_eval, and what intervals and tests must obey."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llama4rec_core import evaluation as ev

shares = st.integers(0, 20).map(lambda n: n / 20)
ranks = st.lists(st.integers(0, 15), min_size=1, max_size=40)


# --- metrics ---------------------------------------------------------------------------------------


def test_target_rank_by_hand():
    items = np.array([[5, 6, 7], [5, 6, 7], [5, 6, 7], [-1, -1, -1]])
    assert ev.target_rank(items, [5, 7, 8, 4]).tolist() == [1, 3, 0, 0]
    assert ev.target_rank(np.empty((0, 3), int), []).tolist() == []
    assert ev.target_rank(items, [5, 7, 8, 4]).dtype == ev.target_rank(np.empty((0, 3), int), []).dtype == np.int64


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_the_cut_off_counts_and_a_missing_target_does_not(k):
    rank = [0, k - 1, k, k + 1]
    before = float(k > 1)  # rank 0 when k is 1
    assert ev.hit(rank, k).tolist() == [0, before, 1, 0]
    np.testing.assert_allclose(ev.ndcg(rank, k), [0, before / np.log2(max(k, 2)), 1 / np.log2(k + 1), 0])


def test_hit_and_ndcg_by_hand():
    rank = np.array([1, 2, 3, 4, 0])
    assert ev.hit(rank, 3).tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(ev.ndcg(rank, 3), [1, 1 / np.log2(3), 0.5, 0, 0])
    np.testing.assert_allclose(ev.ndcg(rank, 50), [1, 1 / np.log2(3), 0.5, 1 / np.log2(5), 0])  # K larger than a list
    assert ev.hit([], 3).shape == ev.ndcg([], 3).shape == (0,)


@given(ranks, st.integers(1, 14))
def test_ndcg_never_exceeds_hit_and_neither_falls_with_k(rank, k):
    assert (ev.ndcg(rank, k) <= ev.hit(rank, k)).all()
    assert (ev.ndcg(rank, k) >= ev.hit(rank, k) / np.log2(k + 1) - 1e-12).all()
    assert (ev.hit(rank, k) <= ev.hit(rank, k + 1)).all() and (ev.ndcg(rank, k) <= ev.ndcg(rank, k + 1)).all()


def test_parity_with_trec_eval():
    """From scores to HR and NDCG of every user, against NIST's own program; ties go to the lower id."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    from llama4rec_core.backbones.predict import top_k

    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (80, 30)).astype(np.float32)  # five items to a score
    items, _ = top_k(SimpleNamespace(scores=lambda users, _: scores[users]), range(80), None, [[]] * 80, 20)
    target = rng.integers(0, 30, 80)
    relevant = {f"u{u}": {f"i{t}": 1} for u, t in enumerate(target)}
    run = {f"u{u}": {f"i{i}": float(s) - i / 100 for i, s in enumerate(row)} for u, row in enumerate(scores)}
    cutoffs = (1, 3, 5, 10, 20)
    names = {f"{name}.{','.join(map(str, cutoffs))}" for name in ("success", "ndcg_cut")}
    theirs = pytrec_eval.RelevanceEvaluator(relevant, names).evaluate(run)
    rank = ev.target_rank(items, target)
    for k in cutoffs:
        assert ev.hit(rank, k).tolist() == [theirs[f"u{u}"][f"success_{k}"] for u in range(80)]
        np.testing.assert_allclose(ev.ndcg(rank, k), [theirs[f"u{u}"][f"ndcg_cut_{k}"] for u in range(80)])


def test_errors_by_hand():
    assert ev.rating_error([3, 5], [4, 2]).tolist() == [-1, 3]
    small = np.array([3, 5], dtype=np.uint8)  # 3 - 5 is 254 in this type
    assert ev.rating_error(small, small[::-1]).tolist() == [-2, 2]


@pytest.mark.parametrize(("c", "k"), [(1, 5), (4, 2), (5, 9), (10, 5)])
def test_random_order_is_the_mean_over_all_positions(c, k):
    assert ev.random_order_ndcg(c, k) == pytest.approx(ev.ndcg(np.arange(1, c + 1), k).mean())


def test_random_order_of_ten_is_the_known_figure():
    assert round(ev.random_order_ndcg(10, 5), 3) == 0.295
    assert ev.random_order_ndcg(10, 1) == 0.1


# --- per user --------------------------------------------------------------------------------------


def test_users_weigh_the_same_however_many_cases_they_have():
    means = ev.per_user([1, 0, 0, 0, 1], [7, 7, 7, 7, 3])
    assert means.index.tolist() == [3, 7] and means.tolist() == [1, 0.25] and means.index.name == "user"
    assert ev.per_user([], []).empty


def test_metric_frames_by_hand():
    frame = ev.ranking_metrics([1, 0, 4], [9, 9, 2])
    assert list(frame.columns) == ["user", "HR@3", "NDCG@3", "HR@5", "NDCG@5"]
    np.testing.assert_allclose(frame, [[2, 0, 0, 1, 1 / np.log2(5)], [9, 0.5, 0.5, 0.5, 0.5]])
    frame = ev.rating_metrics([3, 5, 1], [4, 2, 1], [0, 0, 1])
    assert frame.to_numpy().tolist() == [[0, 5, 2], [1, 0, 0]] and list(frame.columns) == ["user", "MSE", "MAE"]


def test_rmse_takes_the_root_after_averaging():
    """User 0: errors 0 and 4, mean square 8. User 1: error 1. RMSE = sqrt((8 + 1) / 2), over users, not cases; the mean
    of the users' roots would be 1.91."""
    frame = ev.rating_metrics([3, 5, 2], [3, 1, 1], [0, 0, 1])
    assert ev.estimate(frame["MSE"], root=True).value == pytest.approx(np.sqrt(4.5))
    assert ev.estimate(frame["MAE"]).value == 1.5
    by_seed = ev.estimate([[4.0, 0.0], [1.0, 1.0]], root=True)  # sqrt(2) and 1, averaged over seeds
    assert by_seed.value == pytest.approx((np.sqrt(2) + 1) / 2)


def test_rmse_is_the_usual_one_with_one_case_each():
    predicted, actual = np.array([3.0, 5, 1, 2]), np.array([4.0, 2, 1, 4])
    frame = ev.rating_metrics(predicted, actual, np.arange(4))
    assert ev.estimate(frame["MSE"], root=True).value == pytest.approx(np.sqrt(np.mean((predicted - actual) ** 2)))


@pytest.mark.filterwarnings("error")
def test_history_groups_by_hand():
    assert ev.history_group([1, 5, 2, 9]).tolist() == ["tail", "long", "tail", "long"]  # the median is 3.5
    assert ev.history_group([1, 5, 9]).tolist() == ["tail", "tail", "long"]  # the median user is tail
    assert ev.history_group([4, 4]).tolist() == ["tail", "tail"]


# --- intervals -------------------------------------------------------------------------------------


def test_interval_agrees_with_the_normal_one_on_many_users():
    values = np.random.default_rng(0).normal(2, 1, 2000)
    found = ev.estimate(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean()) and found.users == 2000
    assert found.ci_low == pytest.approx(found.value - half, abs=0.005)
    assert found.ci_high == pytest.approx(found.value + half, abs=0.005)


def test_users_are_resampled_not_cases():
    """Ten cases of the same user are one draw: repeating them makes no interval narrower."""
    values, users = np.random.default_rng(0).random(50), np.arange(50)
    once = ev.estimate(values)
    cases = ev.per_user(np.repeat(values, 10), np.repeat(users, 10))
    tenfold = ev.estimate(cases)
    assert (once.ci_low, once.ci_high) == pytest.approx((tenfold.ci_low, tenfold.ci_high)) and tenfold.users == 50
    assert once.ci_high - once.ci_low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(50), rel=0.1)


def test_users_are_resampled_not_cells():
    """Seeds that repeat the same users add no certainty; that is what separates users from cases."""
    values = np.random.default_rng(0).random(50)
    once, fivefold = ev.estimate(values), ev.estimate(np.tile(values, (5, 1)))
    assert (once.ci_low, once.ci_high) == pytest.approx((fivefold.ci_low, fivefold.ci_high))


def test_seed_averaged_interval_is_that_of_the_averaged_users():
    values = np.random.default_rng(0).random((3, 40))
    assert ev.estimate(values).ci_low == pytest.approx(ev.estimate(values.mean(axis=0)).ci_low)
    rooted = ev.estimate(values, root=True)
    assert rooted.value == pytest.approx(np.sqrt(values.mean(axis=1)).mean())


def test_the_root_of_an_interval_is_the_interval_of_the_root():
    values = np.random.default_rng(0).random(60)
    plain, rooted = ev.estimate(values), ev.estimate(values, root=True)
    assert (rooted.ci_low, rooted.ci_high) == pytest.approx((plain.ci_low**0.5, plain.ci_high**0.5), rel=1e-3)


@given(arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 25)), elements=shares))
@settings(max_examples=60)
def test_interval_holds_the_mean_and_stays_within_the_values(values):
    found = ev.estimate(values, draws=400)
    users = values.mean(axis=0)
    assert users.min() - 1e-9 <= found.ci_low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.ci_high <= users.max() + 1e-9


def test_one_user_or_equal_users_have_no_width():
    for values in ([0.3], [0.3] * 12):
        assert (ev.estimate(values).ci_low, ev.estimate(values).ci_high) == pytest.approx((0.3, 0.3))


def test_two_calls_draw_the_same_users():
    values = np.random.default_rng(0).random(30)
    assert ev.estimate(values) == ev.estimate(values)
    shifted = ev.resampled_means(values + 1) - ev.resampled_means(values)  # paired: the shift has no spread
    np.testing.assert_allclose(shifted, 1)


def test_the_draws_are_those_of_the_committed_tables():
    """Whoever changes the generator, its seed or how it is used changes every committed interval."""
    values = (np.arange(40) % 7 == 0) * 1.0
    assert ev.resampled_means(values, draws=3).tolist() == pytest.approx([0.175, 0.275, 0.15])
    assert ev.resampled_means(values).tolist() == ev.resampled_means(values, 2_000).tolist()
    assert ev.resampled_means([values, 2 * values], draws=3).shape == (2, 3)
    assert ev.estimate(values) == ev.estimate(values, False, 2_000)
    groups = np.arange(40) % 2
    assert ev.by_group(values, groups).equals(ev.by_group(values, groups, False, 2_000))
    differences = values - 0.2
    assert ev.sign_flip_test(differences) == ev.sign_flip_test(differences, 10_000) == pytest.approx(4395 / 10_001)
    assert ev.compare(values, 0 * values + 0.2) == ev.compare(values, 0 * values + 0.2, False, 2_000)
    assert ev.compare(values, 0 * values + 0.2).p_users == ev.sign_flip_test(differences)


def test_an_interval_cuts_off_two_and_a_half_percent_on_either_side():
    assert ev.interval(np.arange(1001)) == pytest.approx((25, 975))


def test_by_group_is_the_estimate_of_each_group():
    values, groups = np.array([0, 1, 1, 1.0]), np.array(["tail", "tail", "long", "long"])
    frame = ev.by_group(values, groups).set_index("group")
    assert frame["value"].to_dict() == {"long": 1.0, "tail": 0.5} and frame["users"].to_dict() == {"long": 2, "tail": 2}
    assert frame.loc["tail", ["ci_low", "ci_high"]].tolist() == [0, 1]
    squared = np.random.default_rng(0).random((2, 30))
    found = ev.by_group(squared, np.arange(30) % 2, root=True, draws=300).set_index("group")
    for group in (0, 1):
        expected = ev.estimate(squared[:, group::2], root=True, draws=300)
        assert found.loc[group].to_dict() == vars(expected)


# --- tests -----------------------------------------------------------------------------------------


def test_sign_flips_by_hand():
    # 3 equal differences: of 8 sign patterns, only +++ and --- are as extreme
    assert ev.sign_flip_test([1, 1, 1]) == 0.25
    # sums of +-3 +-1: 4, 2, -2, -4; all four are at least as extreme as 2
    assert ev.sign_flip_test([3, -1]) == 1.0
    assert ev.sign_flip_test([3, 1]) == 0.5
    assert ev.sign_flip_test([3, 1, 0, 0, 0]) == 0.5  # users without a difference have no say
    assert ev.sign_flip_test([1, 1, 1], flips=8) == 0.25  # as many patterns as flips: still all of them
    assert ev.sign_flip_test([1e-9, 1e-9, 1e-9]) == 0.25  # the scale has no say
    assert ev.sign_flip_test([-0.4, -0.4, -0.4, -0.3]) == 0.125  # the sum and the flipped sum round differently


def test_hits_gained_and_lost_give_the_exact_binomial():
    """For differences of -1, 0, 1 the sign-flip test is McNemar's exact test: 9 gained, 2 lost of 11."""
    from scipy.stats import binomtest

    p = ev.sign_flip_test([1] * 9 + [-1] * 2 + [0] * 50)
    assert p == pytest.approx(binomtest(9, 11).pvalue)


def test_drawn_patterns_come_near_the_exact_binomial():
    from scipy.stats import binomtest

    p = ev.sign_flip_test([1] * 40 + [-1] * 24)
    assert p == pytest.approx(binomtest(40, 64).pvalue, abs=0.01)
    assert ev.sign_flip_test([1] * 5000) == pytest.approx(1 / 10_001)  # never 0
    for flips in (1, 499, 500, 501, 750, 10_000):  # any pattern is as extreme as a sum of 0, so all are counted
        assert ev.sign_flip_test([1, -1] * 10, flips) == 1.0


def test_all_zero_differences_give_one_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ev.sign_flip_test(np.zeros(9)) == 1.0
        assert ev.sign_flip_test([]) == 1.0
        found = ev.compare(np.full(9, 0.2), np.full(9, 0.2))
    assert (found.diff, found.ci_low, found.ci_high, found.p_users) == (0, 0, 0, 1)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30))
@settings(max_examples=60)
def test_p_is_a_probability_and_knows_no_direction(d):
    p = ev.sign_flip_test(d, flips=500)
    assert 0 < p <= 1 and p == ev.sign_flip_test([-x for x in d], flips=500)


def test_false_alarms_stay_at_their_level():
    rng = np.random.default_rng(0)
    alarms = np.mean([ev.sign_flip_test(rng.normal(size=30), flips=300) <= 0.05 for _ in range(400)])
    assert 0.02 <= alarms <= 0.085


def test_paired_t_over_seeds():
    from scipy.stats import ttest_rel

    ours, theirs = [0.31, 0.35, 0.33, 0.30, 0.36], [0.30, 0.31, 0.32, 0.31, 0.33]
    assert ev.paired_t(ours, theirs) == pytest.approx(ttest_rel(ours, theirs).pvalue)
    tiny = 1e-13 * np.array([1, 2, 4])
    assert ev.paired_t(tiny, 0 * tiny) == pytest.approx(ttest_rel([1, 2, 4], [0, 0, 0]).pvalue)
    assert np.isnan(ev.paired_t([0.3], [0.2]))
    assert ev.paired_t([0.3, 0.3], [0.3, 0.3]) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(ev.paired_t([0.3, 0.4, 0.5], [0.2, 0.3, 0.4]))  # nothing was redrawn


def test_compare_by_hand():
    ours, theirs = np.array([[1, 1, 0, 1.0], [1, 1, 1, 1]]), np.array([[1, 0, 0, 0.0], [1, 0, 0, 0]])
    found = ev.compare(ours, theirs)
    assert found.diff == pytest.approx(0.875 - 0.25)
    assert found.p_users == 0.25  # differences 0, 1, 0.5, 1: the two extreme patterns of eight
    assert found.p_seeds == pytest.approx(ev.paired_t([0.75, 1], [0.25, 0.25]))
    assert np.isnan(ev.compare(ours[0], theirs[0]).p_seeds)
    assert np.isnan(ev.compare(ours, theirs[0]).p_seeds)
    only_user_0 = ev.compare([[1, 0, 0, 0.0]], [[0, 0, 0, 0.0]])
    assert only_user_0.p_users == 1.0  # the others have no difference, so they have no say


def test_compare_takes_the_root_of_each_side_and_seed():
    """Squared errors of two seeds, all users alike: RMSE 2 and 3 against 1 and 1, so 1.5 apart in every resample."""
    ours, theirs = np.array([[4.0] * 3, [9.0] * 3]), np.ones((2, 3))
    found = ev.compare(ours, theirs, root=True)
    assert (found.diff, found.ci_low, found.ci_high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.p_seeds == pytest.approx(ev.paired_t([2, 3], [1, 1]))
    other = ev.compare(theirs, ours, root=True)
    assert (other.diff, other.ci_low, other.ci_high) == pytest.approx((-1.5, -1.5, -1.5))


def test_the_minimal_detectable_effect_is_of_the_paired_difference():
    """2.8 standard errors, std(d) / sqrt(U); what users have in common does not count."""
    rng = np.random.default_rng(0)
    users, d = rng.normal(0, 5, 2000), rng.normal(0.1, 0.3, 2000)
    found = ev.compare(users + d, users)
    assert found.mde == pytest.approx(2.8 * d.std() / np.sqrt(2000), rel=0.05)
    assert found.mde == pytest.approx(2.8 * (found.ci_high - found.ci_low) / (2 * 1.96), rel=0.05)
    assert ev.compare(users, users).mde == 0
    root = ev.compare([[4.0] * 3, [9.0] * 3], np.ones((2, 3)), root=True)
    assert root.mde == pytest.approx(0)  # every user alike: nothing is unsure


def test_a_paired_interval_is_narrower_than_two_separate_ones():
    rng = np.random.default_rng(0)
    users = rng.normal(0, 1, 300)
    found = ev.compare(users + rng.normal(0.1, 0.1, 300), users)
    assert found.ci_low > 0 and found.ci_high - found.ci_low < 0.05


def test_the_mean_gain_by_hand():
    """.75 over .5 is +50%, .5 over .5 is 0: +25% on average. Where every user is alike, so is every resample."""
    base = [np.array([[0.75, 0.25, 0.75, 0.25]]), np.array([[0.5] * 4])]
    ours = [np.array([[1, 0.5, 0.75, 0.75]]), np.array([[0.5] * 4])]
    assert ev.mean_gain(ours, base)[0] == pytest.approx(0.25)
    alike = ev.mean_gain([np.full((2, 4), 4.0), np.full((2, 4), 9.0)], [np.ones((2, 4))] * 2, root=True)
    assert alike == pytest.approx((1.5, 1.5, 1.5))  # errors of 2 and 3 over 1
    assert ev.mean_gain(base, base) == (0, 0, 0)
    nothing, few = np.zeros((1, 4)), np.array([[0.0, 0, 0, 1]])  # 0; 0 in three of ten resamples
    assert np.isnan(ev.mean_gain([few], [nothing])).all()
    gain, *ends = ev.mean_gain([2 * few], [few])
    assert gain == 1 and np.isnan(ends).all()


def test_a_resample_of_the_mean_gain_draws_the_same_users_for_every_backbone():
    """One backbone gains what the other loses, user by user: their mean has no spread, though each one has."""
    d, base = np.random.default_rng(0).normal(0, 0.3, 200), np.ones(200)
    _, low, high = ev.mean_gain([base + d, base - d], [base, base])
    assert (low, high) == pytest.approx((0, 0), abs=1e-12)
    one = ev.mean_gain([base + d], [base])
    found = ev.compare(base + d, base)
    assert one == pytest.approx((found.diff, found.ci_low, found.ci_high))


def test_a_slope_by_hand_and_its_interval():
    x = np.arange(20.0)
    assert ev.slope(1 - 2 * x, x) == pytest.approx((-2, -2, -2))
    rng = np.random.default_rng(0)
    x, noise = rng.normal(0, 1, 2000), rng.normal(0, 0.5, 2000)
    found, low, high = ev.slope(0.3 * x + noise, x)
    assert found == pytest.approx(np.polyfit(x, 0.3 * x + noise, 1)[0])
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / np.sqrt(2000), rel=0.1)  # sigma / (sd(x) sqrt(U))


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made monotone: .04 .06 .06 .06
    np.testing.assert_allclose(ev.holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(ev.holm([0.5, 0.9]), [1, 1])
    np.testing.assert_allclose(ev.holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert ev.holm([]).size == 0 and np.isnan(ev.holm([np.nan])).all()


@given(st.lists(shares, min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p):
    p = np.array(p)
    adjusted = ev.holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_a_frame_of_groups_has_the_columns_that_figures_read():
    frame = ev.by_group([0.0, 1.0], ["long", "tail"])
    assert isinstance(frame, pd.DataFrame) and list(frame.columns) == ["group", "value", "ci_low", "ci_high", "users"]


# --- what is refused -------------------------------------------------------------------------------

REFUSED = {
    "targets of other cases": (
        lambda: ev.target_rank([[5, 6], [7, 8]], [5]),
        "items must be [N, C] and target [N], got (2, 2) and (1,)",
    ),
    "items of one case": (
        lambda: ev.target_rank([5, 6], [5]),
        "items must be [N, C] and target [N], got (2,) and (1,)",
    ),
    "HR at 0": (lambda: ev.hit([1], 0), "the cut-off k must be 1 or more, got 0"),
    "NDCG at 0": (lambda: ev.ndcg([1], 0), "the cut-off k must be 1 or more, got 0"),
    "HR of a negative rank": (lambda: ev.hit([1, -1], 3), "a rank is 1 or more, or 0 for a missing target, got -1"),
    "NDCG of a negative rank": (lambda: ev.ndcg([1, -1], 3), "a rank is 1 or more, or 0 for a missing target, got -1"),
    "other ratings": (
        lambda: ev.rating_error([3, 5], [4]),
        "predicted and actual must have one shape, got (2,) and (1,)",
    ),
    "no candidate": (
        lambda: ev.random_order_ndcg(0, 5),
        "a list needs a candidate and a cut-off of 1 or more, got C = 0, k = 5",
    ),
    "no cut-off": (
        lambda: ev.random_order_ndcg(5, 0),
        "a list needs a candidate and a cut-off of 1 or more, got C = 5, k = 0",
    ),
    "users of other cases": (lambda: ev.per_user([1, 2], [1]), "values and users must both be [N], got (2,) and (1,)"),
    "cases in two axes": (
        lambda: ev.per_user([[1, 2]], [[1, 2]]),
        "values and users must both be [N], got (1, 2) and (1, 2)",
    ),
    "no user": (lambda: ev.estimate([]), "a metric needs at least one user, as [U] or [S, U], got shape (1, 0)"),
    "three axes": (
        lambda: ev.estimate(np.ones((2, 2, 2))),
        "a metric needs at least one user, as [U] or [S, U], got shape (2, 2, 2)",
    ),
    "a metric of NaN": (
        lambda: ev.estimate([[0.1, 0.2], [0.1, np.nan]]),
        "a metric must be finite, got nan for seed row 1, user column 1",
    ),
    "groups of other users": (
        lambda: ev.by_group([1.0, 2], ["tail"]),
        "groups must name one group per user, got (1,) for 2 users",
    ),
    "other users": (
        lambda: ev.compare([1.0, 2, 3, 4], [1.0, 2, 3]),
        "a paired comparison needs the same users, got 4 and 3",
    ),
    "backbones of other users": (
        lambda: ev.mean_gain([[1.0, 2], [1.0, 2, 3]], [[1.0, 2], [1.0, 2, 3]]),
        "a paired comparison needs the same users, got 2 and 3",
    ),
    "a difference of NaN": (lambda: ev.sign_flip_test([1, np.nan]), "differences must be finite"),
    "p above 1": (lambda: ev.holm([0.1, 1.2]), "p-values must lie between 0 and 1"),
    "p below 0": (lambda: ev.holm([-0.1, 0.2]), "p-values must lie between 0 and 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_said(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
