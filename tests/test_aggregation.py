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
    assert agg.most_similar_user(np.array([[1.0, 0], [100, 100], [0.1, 0.01]]), users=[0]).tolist() == [2]


def test_ties_go_to_the_lowest_id_and_zero_embeddings_have_cosine_zero():
    same = np.tile([0.3, 0.1, 0.7], (40, 1))
    assert agg.most_similar_user(same).tolist() == [1] + [0] * 39
    embeddings = np.array([[0, 0], [1, 0], [-1, 0.0]])
    assert agg.most_similar_user(embeddings).tolist() == [1, 0, 0]  # 0 beats the cosine of -1


def test_only_allowed_users_are_chosen():
    embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    allowed = np.array([False, False, True, True])
    assert agg.most_similar_user(embeddings, allowed=allowed).tolist() == [3, 3, 3, 2]


def test_blocks_give_what_the_whole_matrix_gives():
    embeddings = np.random.default_rng(0).normal(size=(3000, 6))  # more than one block
    unit_rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = unit_rows @ unit_rows.T
    np.fill_diagonal(cosine, -2)
    assert (agg.most_similar_user(embeddings) == cosine.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (np.ones((1, 2)), {}, "user 0 has no other"),
        (np.ones((3, 2)), {"allowed": np.array([False, True, False])}, "user 1 has no other"),
        (np.ones((3, 2)), {"users": [3]}, "0..2"),
        (np.ones((3, 2)), {"allowed": np.array([0, 1, 2])}, "boolean mask"),
        (np.array([[1.0], [np.nan]]), {}, "finite, got nan at"),
        (np.ones(3), {}, "2 axes"),
    ],
)
def test_similar_user_refuses(embeddings, options, message):
    with pytest.raises(ValueError, match=message):
        agg.most_similar_user(embeddings, **options)


# --- equations 5 and 7 -----------------------------------------------------------------------------


def test_long_tail_coefficient_by_hand():
    np.testing.assert_allclose(agg.long_tail_coefficient([0, 1, np.e - 1, 99]), [0, np.log(2), 1, np.log(100)])
    with pytest.raises(ValueError, match="negative"):
        agg.long_tail_coefficient([3, -1])


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


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30), unit, unit)
def test_weights_stay_between_their_bounds_and_fall_with_activity(n, alpha_1, alpha_2):
    weight = agg.user_weights(n, alpha_1, alpha_2)
    assert (weight >= alpha_1 * alpha_2 - 1e-12).all() and (weight <= alpha_1 + 1e-12).all()
    assert (np.diff(weight[np.argsort(n)]) <= 1e-12).all()


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30), unit)
def test_cut_off_of_one_is_uniform(n, alpha_1):
    assert (agg.user_weights(n, alpha_1, 1) == alpha_1).all()


@pytest.mark.parametrize(("alpha_1", "alpha_2"), [(-0.1, 0.5), (1.1, 0.5), (0.5, -0.1), (0.5, 1.1), (np.nan, 0.5)])
def test_alphas_outside_the_unit_interval_are_refused(alpha_1, alpha_2):
    with pytest.raises(ValueError, match="between 0 and 1"):
        agg.adaptive_weight([1.0], alpha_1, alpha_2, 1, 2)


def test_extremes_must_be_over_all_users():
    with pytest.raises(ValueError, match="over all users"):
        agg.adaptive_weight([0.5], 0.5, 0.5, 1, 2)
    with pytest.raises(ValueError, match="l_min must not exceed"):
        agg.adaptive_weight([1.0], 0.5, 0.5, 2, 1)
    with pytest.raises(ValueError, match="no user"):
        agg.user_weights([], 0.5, 0.5)


# --- utilities -------------------------------------------------------------------------------------


def test_positional_utilities_by_hand():
    assert agg.positional_utility(3).tolist() == [-1, -2, -3]
    assert agg.utility_of_scores([[0.2, 0.9, 0.5]]).tolist() == [[-3, -1, -2]]
    assert agg.utility_of_scores([[4, 5, 4]]).tolist() == [[-2, -1, -3]]  # a tie keeps the backbone's order
    assert agg.utility_of_order([[7, 8, 9]], [[9, 7, 8]]).tolist() == [[-2, -3, -1]]


@pytest.mark.parametrize("order", [[9, 9, 8], [7, 8, 6]])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match="row 1: the LLM's list is not a permutation"):
        agg.utility_of_order([[7, 8, 9], [7, 8, 9]], [[7, 8, 9], order])


def test_standardise_by_hand():
    np.testing.assert_allclose(
        agg.standardise([[1, 2, 3], [0.1, 0.1, 0.1]]), [[-np.sqrt(1.5), 0, np.sqrt(1.5)], [0, 0, 0]]
    )


@given(scores)
def test_standardised_lists_have_mean_zero_and_deviation_one_or_zero(x):
    z = agg.standardise(x)
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=1), x.std(axis=1) > 0, atol=1e-9)


def test_the_two_modes_by_hand():
    llm, rec = [[0.0, 1.0]], [[100.0, 0.0]]
    u_llm, u_rec = agg.utilities(llm, rec, "score")
    assert u_llm.tolist() == [[-1, 1]] and u_rec.tolist() == [
        [1, -1]
    ]  # raw scores would let the backbone drown the LLM
    u_llm, u_rec = agg.utilities(llm, rec, "paper")
    assert u_llm.tolist() == [[-2, -1]] and u_rec.tolist() == [[-1, -2]]
    for mode in agg.MODES:
        assert agg.aggregate([[7, 8]], llm, rec, 0.6, mode).tolist() == [[8, 7]]
        assert agg.aggregate([[7, 8]], llm, rec, 0.4, mode).tolist() == [[7, 8]]


def test_candidates_must_stand_in_the_backbones_order():
    with pytest.raises(ValueError, match="row 0: rec_scores rise"):
        agg.utilities([[1, 2]], [[1, 2]], "score")
    with pytest.raises(ValueError, match="mode must be one of paper, score"):
        agg.utilities([[1, 2]], [[2, 1]], "paepr")
    with pytest.raises(ValueError, match="one shape"):
        agg.utilities([[1, 2]], [[2, 1, 0]], "paper")


# --- equation 6 ------------------------------------------------------------------------------------


def test_blend_by_hand():
    np.testing.assert_allclose(
        agg.blend([0.25, 1], [[-1, -2], [-1, -2]], [[-2, -1], [-2, -1]]), [[-1.75, -1.25], [-1, -2]]
    )
    np.testing.assert_allclose(agg.blend([0.25, 1], [4, 3], [2, 5]), [2.5, 3])
    np.testing.assert_allclose(agg.blend(0.5, [4, 3], [2, 5]), [3, 4])


@pytest.mark.parametrize(
    ("alpha", "u_llm", "message"),
    [
        ([0.5], [[1, 2], [1, 2]], "one per case"),
        ([1.5, 0], [[1, 2], [1, 2]], "between 0 and 1"),
        (0.5, [[1]], "one shape"),
    ],
)
def test_blend_refuses(alpha, u_llm, message):
    with pytest.raises(ValueError, match=message):
        agg.blend(alpha, u_llm, [[1, 2], [1, 2]])


@given(unit, st.floats(-9, 9), st.floats(-9, 9))
def test_a_blend_lies_between_its_parts(alpha, a, b):
    blended = agg.blend([alpha], [a], [b])[0]
    assert min(a, b) - 1e-12 <= blended <= max(a, b) + 1e-12


def test_ratings_are_clipped_to_the_scale():
    np.testing.assert_allclose(agg.blend_ratings([0.5, 0.5, 0], [9, 0, 4], [4, 1, 3.2], (1, 5)), [5, 1, 3.2])
    with pytest.raises(ValueError, match="llm_ratings must be finite"):
        agg.blend_ratings(0.5, [np.nan], [3], (1, 5))


def test_rerank_by_hand():
    assert agg.rerank([[5, 6, 7]], [[-2, -1, -3]]).tolist() == [[6, 5, 7]]
    assert agg.rerank([[5, 6, 7]], [[1, 2, 2]]).tolist() == [[6, 7, 5]]


def test_sums_that_are_equal_but_for_rounding_tie():
    a, b = agg.blend(0.3, [-8, -1], [-3, -6])  # both -4.5
    assert a != b  # in floating point
    assert agg.rerank([[5, 6]], [[a, b]]).tolist() == agg.rerank([[5, 6]], [[b, a]]).tolist() == [[5, 6]]


@pytest.mark.parametrize("tenths", [1, 3, 5, 7, 9])
def test_paper_mode_equals_exact_arithmetic(tenths):
    """Random orders of ten candidates in whole tenths: integers cannot round, so this is what eq. 6 really says."""
    positions = np.random.default_rng(0).permuted(np.tile(np.arange(1, 11), (2000, 1)), axis=1)
    exact = tenths * positions + (10 - tenths) * np.arange(1, 11)
    items = np.broadcast_to(np.arange(10), positions.shape)
    rec = np.broadcast_to(agg.positional_utility(10), positions.shape)
    mixed = agg.aggregate(items, -positions, rec, tenths / 10, "paper")
    assert (mixed == np.argsort(exact, axis=1, kind="stable")).all()


@given(scores, unit, st.sampled_from(agg.MODES), st.data())
@settings(max_examples=150)
def test_aggregation_permutes_and_obeys_the_extremes(llm, alpha, mode, data):
    n, c = llm.shape
    rec = -np.sort(-data.draw(arrays(np.float64, (n, c), elements=st.integers(-50, 50))), axis=1)
    items = np.tile(np.arange(100, 100 + c), (n, 1))
    mixed = agg.aggregate(items, llm, rec, np.full(n, alpha), mode)
    assert (np.sort(mixed, axis=1) == items).all()
    assert (agg.aggregate(items, llm, rec, 0, mode) == items).all()
    llm_order = np.take_along_axis(items, np.argsort(-llm, axis=1, kind="stable"), axis=1)
    assert (agg.aggregate(items, llm, rec, 1, mode) == llm_order).all()


def test_rerank_refuses_what_it_cannot_order():
    with pytest.raises(ValueError, match="finite, got nan at"):
        agg.rerank([[1, 2]], [[np.nan, 0]])
    with pytest.raises(ValueError, match="one shape"):
        agg.rerank([[1, 2]], [[0.0]])


def test_no_case_at_all_is_fine():
    assert agg.aggregate(np.empty((0, 3), int), np.empty((0, 3)), np.empty((0, 3)), 0.5, "score").shape == (0, 3)


# --- the shortcut ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", agg.MODES)
def test_skipped_calls_change_no_metric(mode):
    """Cases whose target is no candidate: random LLM scores or none, every alpha of the grid, every K up to k'."""
    rng = np.random.default_rng(1)
    n, c = 60, 10
    items = np.array([rng.choice(40, c, replace=False) for _ in range(n)])
    target = rng.integers(0, 40, n)
    rec, llm = -np.sort(rng.normal(size=(n, c)), axis=1), rng.normal(size=(n, c))
    skip = agg.shortcut(items, target, c)
    assert 0 < skip.sum() < n
    without = np.where(skip[:, None], 0.0, llm)
    activity = rng.integers(1, 300, n)
    for alpha_1 in (*agg.ALPHA_1, 1.0):
        for alpha_2 in (*agg.ALPHA_2, 1.0):
            alpha = agg.user_weights(activity, alpha_1, alpha_2)
            rank_with = target_rank(agg.aggregate(items, llm, rec, alpha, mode), target)
            rank_without = target_rank(agg.aggregate(items, without, rec, alpha, mode), target)
            for k in range(1, c + 1):
                assert (hit(rank_with, k) == hit(rank_without, k)).all()
                assert (ndcg(rank_with, k) == ndcg(rank_without, k)).all()
                assert not hit(rank_with, k)[skip].any()


def test_shortcut_by_hand():
    assert agg.shortcut([[1, 2], [3, 4]], [2, 2], k=2).tolist() == [False, True]
    with pytest.raises(ValueError, match="k must lie between 1 and the 2 candidates, got 3"):
        agg.shortcut([[1, 2]], [1], k=3)


# --- choosing --------------------------------------------------------------------------------------


def test_choose_alphas_finds_the_best_mean_over_users_where_all_agree():
    choice = agg.choose_alphas(lambda a1, a2: [v := 1 - (a1 - 0.5) ** 2 - (a2 - 0.7) ** 2, v - 1])
    assert (choice.alpha_1, choice.alpha_2, choice.value) == (0.5, 0.7, 0.5)
    assert list(choice.grid.columns) == ["alpha_1", "alpha_2", "value"] and len(choice.grid) == 30
    worst_is_best = agg.choose_alphas(lambda a1, a2: [(a1 - 0.9) ** 2 + (a2 - 0.1) ** 2], larger_is_better=False)
    assert (worst_is_best.alpha_1, worst_is_best.alpha_2) == (0.9, 0.1)


def test_a_pair_within_one_standard_error_of_the_best_and_with_less_llm_is_taken():
    """Four users. Best: alpha_1 0.9, mean 2. At 0.5 the paired differences are (4, 0, 0, 0): mean 1, standard error
    2 / sqrt(4) = 1, just within. At 0.3 they are (3, 1, 1, 1): mean 1.5, standard error 0.5, out."""
    users = {0.9: [5, 1, 1, 1], 0.5: [1, 1, 1, 1], 0.3: [2, 0, 0, 0]}
    choice = agg.choose_alphas(lambda a1, a2: users[a1], alpha_1=(0.3, 0.5, 0.9), alpha_2=(0.1, 0.3))
    assert (choice.alpha_1, choice.alpha_2, choice.value) == (0.5, 0.1, 1.0)
    assert choice.grid["value"].tolist() == [0.5, 0.5, 1, 1, 2, 2]
    errors = {a1: [10 - v for v in values] for a1, values in users.items()}
    smaller = agg.choose_alphas(lambda a1, a2: errors[a1], False, (0.3, 0.5, 0.9), (0.1,))
    assert (smaller.alpha_1, smaller.value) == (0.5, 9.0)


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_a_tie_goes_to_less_llm_whatever_the_order_of_the_grid(larger_is_better):
    choice = agg.choose_alphas(lambda a1, a2: [0.1] * 3, larger_is_better, agg.ALPHA_1[::-1], agg.ALPHA_2[::-1])
    assert (choice.alpha_1, choice.alpha_2) == (0.0, 0.1)
    ties_above = agg.choose_alphas(
        lambda a1, a2: [float(a1 >= 0.5) * (1 if larger_is_better else -1)], larger_is_better
    )
    assert (ties_above.alpha_1, ties_above.alpha_2) == (0.5, 0.1)


def test_choose_alphas_refuses():
    with pytest.raises(ValueError, match="no validation user"):
        agg.choose_alphas(lambda a1, a2: [])
    with pytest.raises(ValueError, match="alpha_1 = 0.0, alpha_2 = 0.1 must be finite"):
        agg.choose_alphas(lambda a1, a2: [np.nan])
    with pytest.raises(ValueError, match="grid .* is empty"):
        agg.choose_alphas(lambda a1, a2: [1.0], alpha_1=())
