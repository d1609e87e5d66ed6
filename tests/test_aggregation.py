"""Equations 4-7 by hand, and what must hold for any numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llama4rec_core import aggregation as agg
from llama4rec_core.evaluation import hit, ndcg, target_rank

unit = st.floats(0, 1)
scores = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.integers(-50, 50))


# --- equation 4 ------------------------------------------------------------------------------------


def test_most_similar_user_by_hand():
    embeddings = np.array([[1, 0], [0, 2], [3, 1], [-1, 0]])  # angles 0, 90, 18, 180 degrees
    assert agg.most_similar_user(embeddings).tolist() == [2, 2, 0, 1]


def test_similarity_ignores_length_and_excludes_oneself():
    assert agg.most_similar_user(np.array([[1.0, 0], [100, 100], [0.1, 0.01]])).tolist() == [2, 2, 0]


def test_ties_go_to_the_lowest_id_and_zero_embeddings_have_cosine_zero():
    same = np.tile([0.3, 0.1, 0.7], (40, 1))
    assert agg.most_similar_user(same).tolist() == [1] + [0] * 39
    embeddings = np.array([[0, 0], [1, 0], [-1, 0.0]])
    assert agg.most_similar_user(embeddings).tolist() == [1, 0, 0]  # 0 beats the cosine of -1


def test_blocks_give_what_the_whole_matrix_gives():
    embeddings = np.random.default_rng(0).normal(size=(3000, 6))  # more than one block
    unit_rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = unit_rows @ unit_rows.T
    np.fill_diagonal(cosine, -2)
    assert (agg.most_similar_user(embeddings) == cosine.argmax(axis=1)).all()


# --- equations 5 and 7 -----------------------------------------------------------------------------


def test_long_tail_coefficient_by_hand():
    np.testing.assert_allclose(agg.long_tail_coefficient([0, 1, np.e - 1, 99]), [0, np.log(2), 1, np.log(100)])


def test_adaptive_weight_by_hand():
    # l from 1 to 5: quotients 1, 0.75, 0.25, 0; cut off at 0.3; scaled by 0.5
    weight = agg.adaptive_weight([1, 2, 4, 5], alpha_1=0.5, alpha_2=0.3, l_min=1, l_max=5)
    np.testing.assert_allclose(weight, [0.5, 0.375, 0.15, 0.15])


def test_equal_extremes_leave_the_cut_off():
    np.testing.assert_allclose(agg.adaptive_weight([2, 2], 0.5, 0.4, 2, 2), [0.2, 0.2])
    np.testing.assert_allclose(agg.user_weights([7], 0.5, 0.4), [0.2])  # one user


def test_user_weights_by_hand():
    # N = 1, 3, 7: l = log 2, log 4, log 8, so the quotients are 1, 1/2, 0
    np.testing.assert_allclose(agg.user_weights([1, 3, 7], 0.9, 0.1), [0.9, 0.45, 0.09])


def test_the_tail_user_leans_on_the_llm_and_the_busy_user_on_the_backbone():
    """Two users, one list, opposite orders: equations 5 to 7 end to end."""
    alpha = agg.user_weights([2, 500], 0.9, 0.1)
    assert alpha.tolist() == [0.9, pytest.approx(0.09)]
    llm, rec = np.array([[0.0, 1, 2]] * 2), np.array([[2.0, 1, 0]] * 2)
    for kind in agg.UTILITIES:
        assert agg.aggregate([[5, 6, 7]] * 2, llm, rec, alpha, kind).tolist() == [[7, 6, 5], [5, 6, 7]]


def test_alpha_1_scales_and_alpha_2_cuts_off():
    n = [1, 3, 7]  # quotients 1, 1/2, 0
    np.testing.assert_allclose(agg.user_weights(n, 0.4, 0.1), [0.4, 0.2, 0.04])
    np.testing.assert_allclose(agg.user_weights(n, 0.4, 0.0), [0.4, 0.2, 0])
    np.testing.assert_allclose(agg.user_weights(n, 1.0, 0.6), [1, 0.6, 0.6])


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30), unit, unit)
def test_weights_stay_between_their_bounds_and_fall_with_activity(n, alpha_1, alpha_2):
    weight = agg.user_weights(n, alpha_1, alpha_2)
    assert (weight >= alpha_1 * alpha_2 - 1e-12).all() and (weight <= alpha_1 + 1e-12).all()
    assert (np.diff(weight[np.argsort(n)]) <= 1e-12).all()


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30), unit)
def test_cut_off_of_one_is_uniform(n, alpha_1):
    assert (agg.user_weights(n, alpha_1, 1) == alpha_1).all()


def test_rounding_at_the_extremes_leaves_no_weight_outside_its_bounds():
    weight = agg.adaptive_weight([1 - 5e-13, 2 + 5e-13], 1, 0, l_min=1, l_max=2)
    assert weight.tolist() == [1, 0]


# --- utilities -------------------------------------------------------------------------------------


def test_positional_utilities_by_hand():
    assert agg.positional_utility(3).tolist() == [-1, -2, -3]
    assert agg.utility_of_scores([[0.2, 0.9, 0.5]]).tolist() == [[-3, -1, -2]]
    assert agg.utility_of_scores([[4, 5, 4]]).tolist() == [[-2, -1, -3]]  # a tie keeps the backbone's order


def test_standardise_by_hand():
    np.testing.assert_allclose(
        agg.standardise([[1, 2, 3], [0.1, 0.1, 0.1]]), [[-np.sqrt(1.5), 0, np.sqrt(1.5)], [0, 0, 0]]
    )


@given(scores)
def test_standardised_lists_have_mean_zero_and_deviation_one_or_zero(x):
    z = agg.standardise(x)
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=1), x.std(axis=1) > 0, atol=1e-9)


def test_the_two_kinds_of_utility_by_hand():
    llm, rec = [[0.0, 1.0]], [[100.0, 0.0]]
    u_llm, u_rec = agg.utilities(llm, rec, "standardised")
    assert u_llm.tolist() == [[-1, 1]] and u_rec.tolist() == [[1, -1]]  # raw, 100 would drown the LLM's 1
    u_llm, u_rec = agg.utilities(llm, rec, "positions")
    assert u_llm.tolist() == [[-2, -1]] and u_rec.tolist() == [[-1, -2]]
    for kind in agg.UTILITIES:
        assert agg.aggregate([[7, 8]], llm, rec, 0.6, kind).tolist() == [[8, 7]]
        assert agg.aggregate([[7, 8]], llm, rec, 0.4, kind).tolist() == [[7, 8]]


@pytest.mark.parametrize("kind", agg.UTILITIES)
def test_the_best_candidate_has_the_largest_utility(kind):
    rng = np.random.default_rng(0)
    llm, rec = rng.normal(size=(50, 10)), -np.sort(rng.normal(size=(50, 10)), axis=1)
    u_llm, u_rec = agg.utilities(llm, rec, kind)
    assert (np.argsort(-u_llm, axis=1) == np.argsort(-llm, axis=1)).all()
    assert (np.diff(u_rec, axis=1) < 0).all()


def test_positions_are_the_default():
    llm, rec = [[0.0, 1, 2]], [[9.0, 0, 0]]
    assert agg.aggregate([[5, 6, 7]], llm, rec, 0.5).tolist() == [[5, 6, 7]]  # -2, -2, -2: all tie
    assert agg.aggregate([[5, 6, 7]], llm, rec, 0.5, "standardised").tolist() == [[7, 5, 6]]  # sums 0.2, -0.7, 0.5


# --- equation 6 ------------------------------------------------------------------------------------


def test_blend_by_hand():
    np.testing.assert_allclose(
        agg.blend([0.25, 1], [[-1, -2], [-1, -2]], [[-2, -1], [-2, -1]]), [[-1.75, -1.25], [-1, -2]]
    )
    np.testing.assert_allclose(agg.blend([0.25, 1], [4, 3], [2, 5]), [2.5, 3])
    np.testing.assert_allclose(agg.blend(0.5, [4, 3], [2, 5]), [3, 4])


def test_single_precision_scores_are_added_in_double():
    one = np.float32([0.1, 0.7])
    assert agg.blend(one, one, -one).tolist() == [2 * float(x) ** 2 - float(x) for x in one]
    assert agg.blend(0.5, one, one).dtype == agg.blend(one, one, one).dtype == np.float64
    assert agg.standardise(one[None]).dtype == agg.long_tail_coefficient(one).dtype == np.float64


@given(unit, st.floats(-9, 9), st.floats(-9, 9))
def test_a_blend_lies_between_its_parts(alpha, a, b):
    blended = agg.blend([alpha], [a], [b])[0]
    assert min(a, b) - 1e-12 <= blended <= max(a, b) + 1e-12


def test_ratings_are_clipped_to_the_scale():
    np.testing.assert_allclose(agg.blend_ratings([0.5, 0.5, 0], [9, 0, 4], [4, 1, 3.2], (1, 5)), [5, 1, 3.2])


def test_rerank_by_hand():
    assert agg.rerank([[5, 6, 7]], [[-2, -1, -3]]).tolist() == [[6, 5, 7]]
    assert agg.rerank([[5, 6, 7]], [[1, 2, 2]]).tolist() == [[6, 7, 5]]


def test_sums_that_are_equal_but_for_rounding_tie():
    a, b = agg.blend(0.3, [-8, -1], [-3, -6])  # both -4.5
    assert a != b  # in floating point
    assert agg.rerank([[5, 6]], [[a, b]]).tolist() == agg.rerank([[5, 6]], [[b, a]]).tolist() == [[5, 6]]


@pytest.mark.parametrize("tenths", [1, 3, 5, 7, 9])
def test_positions_equal_exact_arithmetic(tenths):
    """Random orders of ten candidates in whole tenths: integers cannot round, so this is what eq. 6 really says."""
    positions = np.random.default_rng(0).permuted(np.tile(np.arange(1, 11), (2000, 1)), axis=1)
    exact = tenths * positions + (10 - tenths) * np.arange(1, 11)
    items = np.broadcast_to(np.arange(10), positions.shape)
    rec = np.broadcast_to(agg.positional_utility(10), positions.shape)
    mixed = agg.aggregate(items, -positions, rec, tenths / 10, "positions")
    assert (mixed == np.argsort(exact, axis=1, kind="stable")).all()


@given(scores, unit, st.sampled_from(agg.UTILITIES), st.data())
@settings(max_examples=150)
def test_aggregation_permutes_and_obeys_the_extremes(llm, alpha, kind, data):
    n, c = llm.shape
    rec = -np.sort(-data.draw(arrays(np.float64, (n, c), elements=st.integers(-50, 50))), axis=1)
    items = np.tile(np.arange(100, 100 + c), (n, 1))
    mixed = agg.aggregate(items, llm, rec, np.full(n, alpha), kind)
    assert (np.sort(mixed, axis=1) == items).all()
    assert (agg.aggregate(items, llm, rec, 0, kind) == items).all()
    llm_order = np.take_along_axis(items, np.argsort(-llm, axis=1, kind="stable"), axis=1)
    assert (agg.aggregate(items, llm, rec, 1, kind) == llm_order).all()


def test_lists_of_other_magnitudes_do_not_decide_what_is_equal():
    """Rounding is judged within a list: scores of 1e-13 beside a list of 1e15 are still told apart."""
    x = [[1e-13, 3e-13], [1e15, 3e15], [0, 0]]
    np.testing.assert_allclose(agg.standardise(x), [[-1, 1], [-1, 1], [0, 0]])
    assert agg.rerank([[5, 6]] * 3, x).tolist() == [[6, 5], [6, 5], [5, 6]]


def test_no_case_at_all_is_fine():
    assert agg.aggregate(np.empty((0, 3), int), np.empty((0, 3)), np.empty((0, 3)), 0.5, "standardised").shape == (0, 3)


@pytest.mark.parametrize("kind", agg.UTILITIES)
def test_no_order_brings_in_a_missing_target(kind):
    """Why the LLM need not be asked about such lists: with random LLM scores or none, for every pair of the grid and
    every K, their metrics are 0 and no other list's metrics change."""
    rng = np.random.default_rng(1)
    n, c = 60, 10
    items = np.array([rng.choice(40, c, replace=False) for _ in range(n)])
    target = rng.integers(0, 40, n)
    rec, llm = -np.sort(rng.normal(size=(n, c)), axis=1), rng.normal(size=(n, c))
    missing = ~(items == target[:, None]).any(axis=1)
    assert 0 < missing.sum() < n
    without = np.where(missing[:, None], 0.0, llm)
    activity = rng.integers(1, 300, n)
    for alpha_1 in (*agg.ALPHA_1, 1.0):
        for alpha_2 in (*agg.ALPHA_2, 1.0):
            alpha = agg.user_weights(activity, alpha_1, alpha_2)
            rank_with = target_rank(agg.aggregate(items, llm, rec, alpha, kind), target)
            rank_without = target_rank(agg.aggregate(items, without, rec, alpha, kind), target)
            for k in range(1, c + 1):
                assert (hit(rank_with, k) == hit(rank_without, k)).all()
                assert (ndcg(rank_with, k) == ndcg(rank_without, k)).all()
                assert not hit(rank_with, k)[missing].any()


# --- choosing --------------------------------------------------------------------------------------


def test_the_sharpness_and_the_likelihood_of_three_lists_by_hand():
    """Two candidates, utilities 1 and 0; the better one is the target in two lists of three. Then softmax gives it
    e^tau / (e^tau + 1) = 2/3, so tau = log 2."""
    utility, target = [[1, 0], [1, 0], [0, 1]], [0, 0, 0]
    assert agg.sharpness(utility, target) == pytest.approx(np.log(2))
    np.testing.assert_allclose(agg.list_log_likelihood(utility, target), np.log([2 / 3, 2 / 3, 1 / 3]))
    tenfold = np.multiply(10, utility) - 7  # neither scale nor level matters
    assert agg.sharpness(tenfold, target) == pytest.approx(np.log(2) / 10)
    np.testing.assert_allclose(agg.list_log_likelihood(tenfold, target), np.log([2 / 3, 2 / 3, 1 / 3]))


def test_one_sharpness_is_that_of_all_lists_and_every_position_informs_it():
    utility, target = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [3, 2, 1]]), [0, 0, 1, 2]
    tau = agg.sharpness(utility, target)
    p = np.exp(tau * utility[0]) / np.exp(tau * utility[0]).sum()
    assert p @ utility[0] == pytest.approx(np.mean([3, 3, 2, 1]))  # where the slope is 0
    np.testing.assert_allclose(agg.list_log_likelihood(utility, target), np.log(p[target]))
    assert agg.list_log_likelihood(utility, [0, 0, 1, 1]).sum() > agg.list_log_likelihood(utility, [0, 0, 1, 2]).sum()


def test_utilities_that_do_not_inform_give_every_candidate_the_same_chance():
    for utility in ([[5, 5, 5]], [[1, 2, 3]], [[2, 1, 3]]):  # equal; the target worst; the target at the mean
        assert agg.sharpness(utility, [0]) == 0
        np.testing.assert_allclose(agg.list_log_likelihood(utility, [0]), -np.log(3))
    found = agg.list_log_likelihood([[5, 5, 5], [1, 0, 0], [0, 1, 0]], [0, 0, 0])  # a list of equal ones beside others
    assert found[0] == pytest.approx(-np.log(3)) and agg.list_log_likelihood(np.empty((0, 3)), []).shape == (0,)


def test_where_every_target_is_the_best_its_likelihood_is_nearly_one_and_finite():
    for scale in (1e-9, 1, 1e9):
        found = agg.list_log_likelihood(scale * np.array([[1.0, 0, 0], [0, 2, 1]]), [0, 1])
        assert np.isfinite(found).all() and (found > -1e-9).all()


@given(scores, st.data())
@settings(max_examples=60)
def test_no_other_sharpness_is_better(utility, data):
    n, c = utility.shape
    target = data.draw(arrays(np.int64, n, elements=st.integers(0, c - 1)))
    best = agg.list_log_likelihood(utility, target).sum()
    for tau in (0, 0.001, 0.01, 0.1, 0.5, 1, 3):
        other = (
            tau * utility - np.log(np.exp(tau * (utility - utility.max())).sum(axis=1))[:, None] - tau * utility.max()
        )
        assert best >= other[np.arange(n), target].sum() - 1e-6


def test_the_likelihood_of_rating_errors_by_hand():
    """Errors 1 and 3: the variance is 5, so -(log 2 pi 5) / 2 - e^2 / 10."""
    constant = np.log(2 * np.pi * 5) / 2
    np.testing.assert_allclose(agg.rating_log_likelihood([1, -3]), [-constant - 0.1, -constant - 0.9])
    half = agg.rating_log_likelihood([0.5, 1.5]).sum() - agg.rating_log_likelihood([1, -3]).sum()
    assert half == pytest.approx(2 * np.log(2))  # halved errors: n log 2
    assert np.isfinite(agg.rating_log_likelihood([0, 0])).all() and agg.rating_log_likelihood([]).shape == (0,)


def test_the_likeliest_pair_is_chosen_and_the_grid_holds_every_gain():
    choice = agg.choose_alphas(lambda a1, a2: [10 * a1 + a2 - 7, -3], alpha_1=(0.9, 0.3), alpha_2=(0.5, 0.1))
    assert (choice.alpha_1, choice.alpha_2) == (0.9, 0.5) and choice.gain == pytest.approx(9.4)
    expected = [[0, 0.1, 0], [0, 0.5, 0], [0.3, 0.1, 3], [0.3, 0.5, 3.4], [0.9, 0.1, 9], [0.9, 0.5, 9.4]]
    np.testing.assert_allclose(choice.grid[["alpha_1", "alpha_2", "value"]], expected, atol=1e-12)


def test_the_grid_is_the_paper_s_and_the_backbone_alone_is_asked_about_once():
    asked = []
    choice = agg.choose_alphas(lambda a1, a2: [asked.append((a1, a2)) or -((a1 - 0.5) ** 2) - (a2 - 0.7) ** 2] * 100)
    assert (choice.alpha_1, choice.alpha_2) == (0.5, 0.7)
    assert choice.grid["alpha_1"].unique().tolist() == [0, 0.1, 0.3, 0.5, 0.7, 0.9]
    assert choice.grid["alpha_2"].unique().tolist() == [0.1, 0.3, 0.5, 0.7, 0.9] and len(choice.grid) == 30
    assert len(asked) == len(set(asked)) == 26 and [a1 for a1, _ in asked].count(0) == 1


def test_a_gain_of_a_nat_or_less_keeps_the_backbone_alone():
    def of(gain, **more):
        return agg.choose_alphas(lambda a1, a2: [-50, -50 + gain * (a1 == 0.3)], **more)

    assert (of(1.0).alpha_1, of(1.0).alpha_2, of(1.0).gain) == (0.0, 0.1, 0.0) and of(1.0).grid["value"].max() == 1
    assert (of(1.01).alpha_1, of(1.01).gain) == (0.3, pytest.approx(1.01))
    assert of(1.01, margin=2).alpha_1 == 0 and of(-5.0).alpha_1 == 0


def test_a_sum_decides_not_how_many_cases_are_better():
    assert agg.choose_alphas(lambda a1, a2: [9 * a1, -3 * a1, -3 * a1]).alpha_1 == 0.9
    assert agg.choose_alphas(lambda a1, a2: [-9 * a1, 3 * a1, 3 * a1]).alpha_1 == 0


def test_of_equal_pairs_the_one_with_less_llm_is_taken_whatever_the_order_of_the_grid():
    choice = agg.choose_alphas(lambda a1, a2: [5 * (a1 >= 0.5) + 1e-9 * a1], agg.ALPHA_1[::-1], agg.ALPHA_2[::-1])
    assert (choice.alpha_1, choice.alpha_2, choice.gain) == (0.5, 0.1, pytest.approx(5))


def test_without_a_case_the_backbone_stays_alone():
    choice = agg.choose_alphas(lambda a1, a2: [])
    assert (choice.alpha_1, choice.gain) == (0, 0)


def test_no_user_s_value_comes_from_weights_that_the_user_helped_to_choose():
    """Each user has a decimal digit; the "choice" sums those of the cases it was made on, and is every case's value."""
    users = np.repeat([7, 3, 9, 4, 5, 6, 8], [1, 2, 3, 1, 1, 1, 1])
    digit, held_out = 10 ** (users - 3), []

    def choose(mask):
        held_out.append(~mask)
        return digit[mask].sum()

    values = agg.cross_fitted(choose, lambda total: np.full(len(users), total), users).astype(int)
    assert (values // digit % 10 == 0).all()
    assert (np.sum(held_out, axis=0) == 1).all() and len(held_out) == 5
    assert all(value == digit.sum() - digit[mask].sum() for mask in held_out for value in values[mask])


def test_folds_are_of_users_at_random_and_the_same_every_time():
    users = np.arange(100)

    def folds(**more):
        found = []
        agg.cross_fitted(lambda mask: found.append(np.flatnonzero(~mask).tolist()), lambda _: users, users, **more)
        return found

    assert folds() == folds() != folds(seed=1) and [len(fold) for fold in folds()] == [20] * 5
    assert [len(fold) for fold in folds(folds=2)] == [50, 50] and folds()[0] != list(range(0, 100, 5))


def test_a_value_is_of_the_case_it_stands_with():
    users, values = np.array([3, 1, 3, 2]), np.array([0.1, 0.2, 0.3, 0.4])
    assert agg.cross_fitted(lambda mask: None, lambda choice: values, users).tolist() == values.tolist()


# --- what is refused -------------------------------------------------------------------------------

NAN = np.nan
ONE = np.ones((1, 2))
REFUSED = {
    "a user alone": (lambda: agg.most_similar_user(ONE), "a single user has nobody to be similar to"),
    "an embedding of NaN": (
        lambda: agg.most_similar_user([[1.0, 2], [3, NAN]]),
        "embeddings must be finite, got nan at (1, 1)",
    ),
    "one embedding": (lambda: agg.most_similar_user([1.0, 2]), "embeddings must have 2 axes, got shape (2,)"),
    "negative counts": (
        lambda: agg.long_tail_coefficient([3, -1]),
        "the number of interactions must not be negative, got -1",
    ),
    "an infinite count": (
        lambda: agg.long_tail_coefficient([np.inf]),
        "the number of interactions must be finite, got inf at (0,)",
    ),
    "a coefficient of NaN": (
        lambda: agg.adaptive_weight([NAN], 0.5, 0.5, 1, 2),
        "the long-tail coefficient must be finite, got nan at (0,)",
    ),
    "alpha_1 below 0": (lambda: agg.user_weights([1], -0.1, 0.5), "alpha_1 must lie between 0 and 1, got -0.1"),
    "alpha_1 above 1": (lambda: agg.user_weights([1], 1.1, 0.5), "alpha_1 must lie between 0 and 1, got 1.1"),
    "alpha_1 of NaN": (lambda: agg.user_weights([1], NAN, 0.5), "alpha_1 must lie between 0 and 1, got nan"),
    "alpha_2 below 0": (lambda: agg.user_weights([1], 0.5, -0.1), "alpha_2 must lie between 0 and 1, got -0.1"),
    "alpha_2 above 1": (lambda: agg.user_weights([1], 0.5, 1.1), "alpha_2 must lie between 0 and 1, got 1.1"),
    "extremes in the wrong order": (
        lambda: agg.adaptive_weight([1.0], 0.5, 0.5, 2, 1),
        "l_min must not exceed l_max, got 2 and 1",
    ),
    "a coefficient below l_min": (
        lambda: agg.adaptive_weight([0.5, 2], 0.5, 0.5, 1, 2),
        "long-tail coefficients 0.5..2 leave [l_min, l_max] = [1, 2]; take both over all users",
    ),
    "a coefficient above l_max": (
        lambda: agg.adaptive_weight([1, 2.5], 0.5, 0.5, 1, 2),
        "long-tail coefficients 1..2.5 leave [l_min, l_max] = [1, 2]; take both over all users",
    ),
    "no user": (lambda: agg.user_weights([], 0.5, 0.5), "there is no user to weigh"),
    "scores of one list": (lambda: agg.utility_of_scores([1, 2]), "the scores must have 2 axes, got shape (2,)"),
    "scores of NaN": (lambda: agg.utility_of_scores([[NAN]]), "the scores must be finite, got nan at (0, 0)"),
    "one list to standardise": (lambda: agg.standardise([1, 2]), "the scores must have 2 axes, got shape (2,)"),
    "NaN to standardise": (lambda: agg.standardise([[1, NAN]]), "the scores must be finite, got nan at (0, 1)"),
    "LLM scores of NaN": (
        lambda: agg.utilities([[NAN]], [[1]], "positions"),
        "llm_scores must be finite, got nan at (0, 0)",
    ),
    "backbone scores of NaN": (
        lambda: agg.utilities([[1]], [[NAN]], "positions"),
        "rec_scores must be finite, got nan at (0, 0)",
    ),
    "LLM scores of one list": (
        lambda: agg.utilities([1], [[1]], "positions"),
        "llm_scores must have 2 axes, got shape (1,)",
    ),
    "backbone scores of one list": (
        lambda: agg.utilities([[1]], [1], "positions"),
        "rec_scores must have 2 axes, got shape (1,)",
    ),
    "scores of other lists": (
        lambda: agg.utilities([[1, 2]], [[2, 1, 0]], "positions"),
        "llm_scores and rec_scores must have one shape [N, C], got (1, 2) and (1, 3)",
    ),
    "candidates in another order": (
        lambda: agg.utilities([[1, 2], [1, 2]], [[2, 2], [1, 2]], "standardised"),
        "row 1: rec_scores rise, but candidates must stand in the backbone's order",
    ),
    "another kind": (
        lambda: agg.utilities([[1, 2]], [[2, 1]], "score"),
        "the kind of utility must be one of positions, standardised, got 'score'",
    ),
    "utilities of other lists": (
        lambda: agg.blend(0.5, [[1]], [[1, 2]]),
        "u_llm and u_rec must have one shape, got (1, 1) and (1, 2)",
    ),
    "alpha of other cases": (
        lambda: agg.blend([0.5], [1, 2], [1, 2]),
        "alpha must be one number or one per case, got (1,) for (2,)",
    ),
    "alpha above 1": (lambda: agg.blend([0.5, 1.5], [1, 2], [1, 2]), "every alpha must lie between 0 and 1"),
    "alpha below 0": (lambda: agg.blend(-0.5, [1, 2], [1, 2]), "every alpha must lie between 0 and 1"),
    "an LLM rating of NaN": (
        lambda: agg.blend_ratings(0.5, [NAN], [3], (1, 5)),
        "llm_ratings must be finite, got nan at (0,)",
    ),
    "a backbone rating of NaN": (
        lambda: agg.blend_ratings(0.5, [3], [NAN], (1, 5)),
        "rec_ratings must be finite, got nan at (0,)",
    ),
    "LLM ratings in two axes": (
        lambda: agg.blend_ratings(0.5, [[3]], [3], (1, 5)),
        "llm_ratings must have 1 axes, got shape (1, 1)",
    ),
    "backbone ratings in two axes": (
        lambda: agg.blend_ratings(0.5, [3], [[3]], (1, 5)),
        "rec_ratings must have 1 axes, got shape (1, 1)",
    ),
    "a utility of NaN": (lambda: agg.rerank([[1, 2]], [[NAN, 0]]), "the utility must be finite, got nan at (0, 0)"),
    "utilities of one list": (lambda: agg.rerank([1], [1]), "the utility must have 2 axes, got shape (1,)"),
    "items of other lists": (
        lambda: agg.rerank([[1, 2]], [[0.0]]),
        "items and utility must have one shape [N, C], got (1, 2) and (1, 1)",
    ),
    "no pair": (
        lambda: agg.choose_alphas(lambda a1, a2: [1.0], alpha_2=()),
        "the grid of alpha_1 and alpha_2 is empty: give at least one alpha_2",
    ),
    "a pair outside": (
        lambda: agg.choose_alphas(lambda a1, a2: [1.0], alpha_2=(0.5, 2)),
        "alpha_2 must lie between 0 and 1, got 2.0",
    ),
    "a log-likelihood of NaN": (
        lambda: agg.choose_alphas(lambda a1, a2: [NAN]),
        "the log-likelihood at alpha_1 = 0.0, alpha_2 = 0.1 must be finite, got nan at (0,)",
    ),
    "log-likelihoods in two axes": (
        lambda: agg.choose_alphas(lambda a1, a2: [[1.0]]),
        "the log-likelihood at alpha_1 = 0.0, alpha_2 = 0.1 must have 1 axes, got shape (1, 1)",
    ),
    "targets of other lists": (
        lambda: agg.list_log_likelihood([[1, 2]], [0, 1]),
        "target must be one column for each list, got (2,) for (1, 2)",
    ),
    "a utility of NaN to be sharpened": (
        lambda: agg.sharpness([[1, NAN]], [0]),
        "the utility must be finite, got nan at (0, 1)",
    ),
    "an error of NaN": (
        lambda: agg.rating_log_likelihood([1, NAN]),
        "the error must be finite, got nan at (1,)",
    ),
    "one fold": (
        lambda: agg.cross_fitted(lambda mask: None, lambda choice: [1.0], [0], folds=1),
        "cross-fitting needs two folds or more, got 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_said(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
