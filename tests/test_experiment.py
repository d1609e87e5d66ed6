"""The experiment by hand: which recommender and LLM a row puts together, what an LLM is asked about, what weights do to
the order, and what weights are chosen by."""

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import evaluation, experiment
from llama4rec_core.aggregation import Choice, user_weights
from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.experiment import VARIANTS, Lists, Ratings, Variant
from llama4rec_core.tasks import TASKS

DIRECT, SEQUENTIAL, RATING = TASKS["direct"], TASKS["sequential"], TASKS["rating"]
SECOND, THIRD = 1 / np.log2(3), 1 / np.log2(4)  # NDCG of the second and the third place


def test_the_rows_are_the_paper_s():
    assert VARIANTS == {
        "Base": Variant("base", None, False),  # M_c alone
        "IFT": Variant("base", "without_hints", False),  # LLM' alone, about M_c's lists
        "Llama4Rec": Variant("augmented", "with_hints", True),  # LLM'' and M_c' together
    }


def test_tasks_say_what_is_better():
    assert [(task.metric, task.column, task.sign, task.root) for task in TASKS.values()] == [
        ("NDCG@5", "NDCG@5", 1, False),
        ("NDCG@5", "NDCG@5", 1, False),
        ("RMSE", "MSE", -1, True),
    ]
    assert [task.made for task in TASKS.values()] == ["pairs", "insertions", "attributes"]


# --- what is asked ----------------------------------------------------------------------------------------------------


def predictions(parts, users, targets=None, items=None, scores=None, prefix=3):
    n = len(users)
    targets = np.zeros(n, dtype=int) if targets is None else targets
    cases = pd.DataFrame({"case": range(n), "part": parts, "user": users, "item": targets, "rating": 5.0})
    items = np.tile([7, 8, 9], (n, 1)) if items is None else np.array(items)
    scores = np.tile([3.0, 2.0, 1.0], (n, 1)) if scores is None else np.array(scores)
    return Predictions(cases.assign(prefix=prefix), items, scores.astype(np.float32), None, np.zeros((9, 0)))


FITTED = predictions(["valid"] * 4 + ["test"] * 4, [0, 1, 2, 3] * 2)
WINDOWS = predictions("window", [0, 0, 1, 2, 2, 3, 3])
HELD_OUT = np.array([False, True, True, True])


def asked(llm, choosing=None, rating_users=None):
    found = experiment.asked_cases(FITTED, WINDOWS, HELD_OUT, llm, choosing, rating_users)
    return [(name, list(zip(known.cases["part"], known.cases["user"], strict=True))) for name, known in found]


def test_only_the_llm_of_a_blended_row_is_asked_about_windows_and_only_of_held_out_users():
    everything = [(part, user) for part in ("valid", "test") for user in range(4)]
    assert asked("without_hints") == [("deployed", everything)]
    windows = [("window", user) for user in (1, 2, 2, 3, 3)]
    assert asked("with_hints") == [("deployed", everything), ("out_of_fold", windows)]
    assert asked("with_hints", 2)[1] == ("out_of_fold", windows[:3])  # of the first two held-out users
    assert asked("with_hints", 0)[1] == ("out_of_fold", [])


def test_the_untuned_llm_is_asked_about_validation_alone():
    assert asked("untuned") == [("deployed", [("valid", user) for user in range(4)])]


def test_ratings_of_a_few_users_only_are_asked_for_but_all_choosing_windows():
    found = asked("with_hints", None, [0, 3])
    assert found[0] == ("deployed", [("valid", 0), ("valid", 3), ("test", 0), ("test", 3)])
    assert [user for _, user in found[1][1]] == [1, 2, 2, 3, 3]
    assert asked("untuned", None, [2]) == [("deployed", [("valid", 2)])]


# --- lists ------------------------------------------------------------------------------------------------------------


def said(*rows):
    """What an LLM gave: (key, {item: utility})."""
    return pd.DataFrame(
        [(key, item, value) for key, found in rows for item, value in found.items()], columns=["key", "item", "utility"]
    )


def by_hand(utilities="positions"):
    """User 0 asked about 9, which is third for the backbone and first for the LLM; user 1 about 5, which no list holds;
    user 2 about 8, second for both."""
    known = predictions("test", [0, 1, 2], [9, 5, 8], [[7, 8, 9], [1, 2, 3], [7, 8, 9]])
    given = said(("test-2-3", {8: -2.0, 9: -3.0, 7: -1.0}), ("test-0-3", {7: 0.0, 8: 1.0, 9: 2.0}))
    return Lists.of(known, given, utilities)


def test_utilities_stand_with_the_candidates_they_are_of_and_lists_without_target_are_not_asked():
    cases = by_hand()
    assert cases.asked.tolist() == [True, False, True]
    assert cases.llm.tolist() == [[0, 1, 2], [-1, -2, -3]]
    assert cases.users.tolist() == [0, 1, 2] and cases.utilities == "positions"


def test_a_list_of_another_part_or_history_or_user_is_not_the_same_list():
    known = predictions("test", [0], [9])
    for key in ("valid-0-3", "test-1-3", "test-0-2"):
        assert not Lists.of(known, said((key, {7: 0.0, 8: 1.0, 9: 2.0})), "positions").asked.any()


def test_weight_0_is_the_backbone_s_order_weight_1_the_llm_s_and_a_higher_utility_moves_up():
    cases = by_hand()
    assert cases.order(0.0).tolist() == [[7, 8, 9], [7, 8, 9]]
    assert cases.order(1.0).tolist() == [[9, 8, 7], [7, 8, 9]]
    assert cases.rank(0.0).tolist() == [3, 0, 2] and cases.rank(1.0).tolist() == [1, 0, 2]
    assert cases.metric(0.0) == pytest.approx([THIRD, 0, SECOND])
    assert cases.metric(1.0) == pytest.approx([1, 0, SECOND])
    found = cases.per_user(1.0)
    assert found["user"].tolist() == [0, 1, 2] and found["NDCG@5"].tolist() == pytest.approx([1, 0, SECOND])
    assert found["HR@3"].tolist() == [1, 0, 1]


def test_each_user_s_own_weight_is_used():
    cases = by_hand()
    assert cases.rank(np.array([1.0, 0.0, 0.0])).tolist() == [1, 0, 2]
    assert cases.rank(np.array([0.0, 1.0, 1.0])).tolist() == [3, 0, 2]
    known = predictions("test", [1, 0], [9, 9])
    both = Lists.of(known, said(*((f"test-{user}-3", {7: 0.0, 8: 1.0, 9: 2.0}) for user in (0, 1))), "positions")
    assert both.rank(np.array([1.0, 0.0])).tolist() == [3, 1]  # by user, not by row


def test_utilities_are_blended_as_the_kind_says():
    """The LLM's scores 0, 0.1, 10, the backbone's 3, 2.9, 2.8: by score 8 is nearly last for the LLM, by position it is
    second for both."""
    known = predictions("test", [0], [7], scores=[[3.0, 2.9, 2.8]])
    given = said(("test-0-3", {7: 0.0, 8: 0.1, 9: 10.0}))
    positions, standardised = (Lists.of(known, given, kind) for kind in ("positions", "standardised"))
    assert positions.order(0.5).tolist() == [[7, 8, 9]]  # all equal: the backbone's order stays
    assert positions.order(0.6).tolist() == [[9, 8, 7]] and standardised.order(0.6).tolist() == [[9, 7, 8]]
    assert positions.order(0.6, "standardised").tolist() == [[9, 7, 8]]
    assert positions.rank(0.6, "standardised").tolist() == [2] and positions.rank(0.6).tolist() == [3]


def test_no_list_asked_about_is_no_error():
    cases = Lists.of(predictions("test", [0, 1], [5, 6]), said(("else", {7: 0.0})), "positions")
    assert cases.rank(1.0).tolist() == [0, 0] and cases.llm.shape == (0, 3)
    assert cases.llm_alone()[0].tolist() == []


def test_each_judge_alone_is_judged_within_lists_that_hold_their_target():
    """User 0: its target first and, in another list, second; user 1: third; user 2's list does not hold it."""
    known = predictions("valid", [0, 0, 1, 2], [5, 6, 7, 9], np.tile([5, 6, 7], (4, 1)), prefix=[3, 4, 3, 3])
    worst_first = {5: 0.3, 6: 0.4, 7: 0.5}
    cases = Lists.of(known, said(*((key, worst_first) for key in ("valid-0-3", "valid-0-4", "valid-1-3"))), "positions")
    users, values = cases.backbone_alone()
    assert users.tolist() == [0, 0, 1] and values == pytest.approx([1, SECOND, THIRD])
    users, values = cases.llm_alone()
    assert users.tolist() == [0, 0, 1] and values == pytest.approx([THIRD, SECOND, 1])
    found = experiment.alone(DIRECT, "LLM'", *cases.llm_alone(), draws=50)
    assert found["name"] == "LLM'" and found["lists"] == 3
    assert found["value"] == pytest.approx(((THIRD + SECOND) / 2 + 1) / 2)  # each user weighs the same
    assert found["ci_low"] <= found["value"] <= found["ci_high"]


def test_only_the_first_five_places_count_in_what_weights_are_chosen_by():
    """A target in the sixth place, for the backbone as for the LLM, gives nothing; one in the fifth does."""
    items = [[1, 2, 3, 4, 5, 6]] * 2
    known = predictions("test", [0, 1], [6, 5], items, [[6, 5, 4, 3, 2, 1]] * 2)
    falling = dict(zip(items[0], (6, 5, 4, 3, 2, 1), strict=True))
    cases = Lists.of(known, said(("test-0-3", falling), ("test-1-3", falling)), "positions")
    for values in (cases.metric(0.5), cases.llm_alone()[1], cases.backbone_alone()[1]):
        assert values == pytest.approx([0, 1 / np.log2(6)])


def test_intervals_are_of_as_many_draws_as_asked_for():
    users, values = np.arange(6), np.array([0.1, 0.2, 0.4, 0.5, 0.9, 1.0])
    few, many = (experiment.alone(DIRECT, "x", users, values, draws) for draws in (5, 2000))
    expected = evaluation.estimate(values, draws=5)
    assert (few["ci_low"], few["ci_high"]) == (expected.ci_low, expected.ci_high) != (many["ci_low"], many["ci_high"])


def test_a_judge_of_no_list_has_no_value():
    found = experiment.alone(DIRECT, "LLM'", np.array([]), np.array([]), draws=50)
    assert found["name"] == "LLM'" and found["lists"] == 0
    assert np.isnan([found[key] for key in ("value", "ci_low", "ci_high")]).all()


def test_a_random_order_s_value_is_the_mean_over_all_places():
    found = experiment.random_order(6)
    assert found["name"] == "random" and found["value"] == pytest.approx(np.mean([*(1 / np.log2(np.arange(2, 7))), 0]))
    assert np.isnan([found[key] for key in ("ci_low", "ci_high", "lists")]).all()


def test_a_changed_top_is_another_list_than_the_unaugmented_backbone_s():
    """The augmented lists of user 0 are the base ones, of user 1 others; user 2's list is not asked about."""
    base = predictions("test", [0, 1, 2, 1], [9, 9, 5, 9], [[7, 8, 9], [7, 8, 9], [7, 8, 9], [7, 8, 9]])
    full = predictions(
        "test", [0, 1, 2, 1], [9, 9, 5, 9], [[7, 8, 9], [8, 7, 9], [7, 8, 9], [7, 8, 9]], prefix=[3, 3, 3, 4]
    )
    given = said(
        ("test-0-3", {7: 1.0, 8: 2.0, 9: 3.0}), ("test-1-3", {8: 3.0, 7: 2.0, 9: 1.0}),
        ("test-1-4", {7: 3.0, 8: 2.0, 9: 1.0}),
    )  # fmt: skip
    base, full = (Lists.of(known, given, "positions") for known in (base, full))
    assert experiment.top_changed(base, full, np.zeros(3)).to_dict() == {0: 0.0, 1: 1.0}  # M_c' changed the list itself
    assert experiment.top_changed(base, full, np.ones(3)).to_dict() == {0: 1.0, 1: 1.0}  # and the LLM user 0's
    assert experiment.top_changed(base, full, np.zeros(3), k=0).to_dict() == {0: 0.0, 1: 0.0}


def test_a_change_below_the_top_five_does_not_count():
    items = [[1, 2, 3, 4, 5, 6, 7]]
    known = predictions("test", [0], [6], items, [[7, 6, 5, 4, 3, 2, 1]])
    swapped = dict(zip(items[0], (9, 8, 7, 6, 5, 1, 2), strict=True))
    cases = Lists.of(known, said(("test-0-3", swapped)), "positions")
    assert cases.order(1.0).tolist() == [[1, 2, 3, 4, 5, 7, 6]]
    assert experiment.top_changed(cases, cases, np.ones(1)).to_dict() == {0: 0.0}
    assert experiment.top_changed(cases, cases, np.ones(1), k=6).to_dict() == {0: 1.0}


# --- ratings ----------------------------------------------------------------------------------------------------------

SCORES = pd.DataFrame(
    {
        "user": [0, 1, 1], "part": "valid", "rating": [5.0, 2.0, 4.0], "backbone": [3.0, 2.0, 1.0],
        "expected": [4.0, 4.0, 6.0], "likeliest": [5.0, 4.0, 5.0],
    }
)  # fmt: skip


def test_ratings_are_blended_clipped_and_measured_by_hand():
    cases = Ratings.of(SCORES, "expected", (1, 5))
    assert cases.predicted(0.0).tolist() == [3, 2, 1] and cases.predicted(1.0).tolist() == [4, 4, 5]
    assert cases.predicted(np.array([0.25, 0.5])).tolist() == [3.25, 3, 3.5]
    assert cases.metric(0.0).tolist() == [4, 0, 9] and cases.metric(1.0).tolist() == [1, 4, 1]
    found = cases.per_user(1.0)
    assert found["user"].tolist() == [0, 1] and found["MSE"].tolist() == [1, 2.5] and found["MAE"].tolist() == [1, 1.5]
    users, values = cases.llm_alone()
    assert users.tolist() == [0, 1, 1] and values.tolist() == [1, 4, 4]  # as the LLM said it, not clipped
    users, values = cases.backbone_alone()
    assert users.tolist() == [0, 1, 1] and values.tolist() == [4, 0, 9]
    assert Ratings.of(SCORES, "likeliest", (1, 5)).predicted(1.0).tolist() == [5, 4, 5]
    assert Ratings.of(SCORES, "expected", (1, 3)).predicted(1.0).tolist() == [3, 3, 3]


# --- choosing and measuring -------------------------------------------------------------------------------------------


def where_the_llm_is(right: bool, part="valid", users=range(8)):
    """The target is last for the backbone and first for the LLM, or the other way round."""
    users = list(users)
    given = said(*((f"{part}-{user}-3", {7: 1.0, 8: 2.0, 9: 3.0}) for user in users))
    return Lists.of(predictions(part, users, [9 if right else 7] * len(users)), given, "positions")


N_TRAIN = np.array([1, 2, 4, 8, 16, 32, 64, 128])


def test_weights_are_those_that_do_best_on_the_cases_handed_in():
    right = experiment.choose_weights(DIRECT, [where_the_llm_is(True)], N_TRAIN)
    wrong = experiment.choose_weights(DIRECT, [where_the_llm_is(False)], N_TRAIN)
    assert (wrong.alpha_1, wrong.value) == (0.0, 1.0) and right.value == 1.0 and right.alpha_1 >= 0.7
    weight = user_weights(N_TRAIN, right.alpha_1, right.alpha_2)
    assert weight.min() > 0.5  # everyone's order is the LLM's
    grid = right.grid.set_index(["alpha_1", "alpha_2"])["value"]
    assert grid.loc[(0.0, 0.1)] == pytest.approx(THIRD) and len(grid) == 30


def test_all_cases_handed_in_count_and_every_user_once():
    """Three lists of user 0 say the LLM is right, one each of three others that it is not."""
    cases = [where_the_llm_is(True, part, [0]) for part in ("valid", "window", "later")]
    choice = experiment.choose_weights(DIRECT, [*cases, where_the_llm_is(False, users=[1, 2, 3])], N_TRAIN[:4])
    assert choice.alpha_1 == 0.0
    first = choice.grid.iloc[0]
    assert first["value"] == pytest.approx((THIRD + 3) / 4)
    assert experiment.choose_weights(DIRECT, [*cases, where_the_llm_is(True, users=[1])], N_TRAIN[:4]).alpha_1 > 0


def test_weights_are_never_chosen_on_test():
    seen = where_the_llm_is(True, "test")
    one = Ratings(np.arange(3), np.array(["valid", "test", "valid"]), np.ones(3), np.ones(3), np.ones(3), (1, 5))
    for task, cases in ((DIRECT, [where_the_llm_is(True), seen]), (RATING, [one])):
        with pytest.raises(ValueError, match="weights are never chosen on test: hand in validation or window cases"):
            experiment.choose_weights(task, cases, N_TRAIN)


def test_every_row_is_measured_with_its_own_weights():
    """The LLM has the target first, the backbone does not."""
    each, choice = where_the_llm_is(True, "test"), Choice(0.9, 0.9, 0.0, pd.DataFrame())
    found = experiment.measure(DIRECT, dict.fromkeys(VARIANTS, each), choice, N_TRAIN).set_index("method")
    assert (found.loc[["IFT", "Llama4Rec"], "NDCG@5"] == 1).all() and (found.loc["Base", "NDCG@5"] < 1).all()
    assert (found.loc["Llama4Rec", ["alpha_1", "alpha_2"]] == 0.9).all(axis=None)
    assert (found.loc["Llama4Rec", "mode"] == each.utilities).all() and (found.loc["Llama4Rec", "changed"] == 1).all()
    assert found.loc[["Base", "IFT"], ["alpha_1", "alpha_2", "changed", "mode"]].isna().all(axis=None)
    rated = Ratings(np.arange(3), np.full(3, "test"), np.full(3, 5.0), np.full(3, 5.0), np.full(3, 1.0), (1, 5))
    found = experiment.measure(RATING, dict.fromkeys(VARIANTS, rated), choice, N_TRAIN).set_index("method")
    assert (found.loc["Base", "MSE"] == 16).all() and (found.loc["IFT", "MSE"] == 0).all()
    assert (found.loc["Llama4Rec", "mode"] == "rating").all() and found["changed"].isna().all()


def test_for_ratings_the_smallest_error_is_best():
    n = np.arange(8)
    valid = np.full(8, "valid")
    right = Ratings(n, valid, np.full(8, 5.0), np.full(8, 5.0), np.full(8, 1.0), (1, 5))
    wrong = Ratings(n, valid, np.full(8, 1.0), np.full(8, 5.0), np.full(8, 1.0), (1, 5))
    assert experiment.choose_weights(RATING, [right], N_TRAIN).alpha_1 == 0.9
    assert experiment.choose_weights(RATING, [wrong], N_TRAIN).alpha_1 == 0.0


def test_a_row_s_weights_are_0_for_base_1_for_ift_and_equation_7_for_a_blend():
    choice = Choice(0.5, 0.3, 0.0, pd.DataFrame())
    assert experiment.weights_of(VARIANTS["Base"], choice, N_TRAIN) == 0.0
    assert experiment.weights_of(VARIANTS["IFT"], choice, N_TRAIN) == 1.0
    found = experiment.weights_of(VARIANTS["Llama4Rec"], choice, N_TRAIN)
    assert found.tolist() == user_weights(N_TRAIN, 0.5, 0.3).tolist()
    assert found[0] == 0.5 and found[-1] == pytest.approx(0.15)  # who has few interactions leans on the LLM


def test_the_mean_is_over_users_and_the_root_comes_last():
    assert experiment.mean_metric(DIRECT, by_hand(), 1.0) == pytest.approx((1 + 0 + SECOND) / 3)
    cases = Ratings.of(SCORES, "expected", (1, 5))
    assert experiment.mean_metric(RATING, cases, 0.0) == pytest.approx(np.sqrt((4 + 4.5) / 2))
    assert experiment.mean_metric(RATING, cases, np.ones(2)) == pytest.approx(np.sqrt((1 + 2.5) / 2))


def test_llama4rec_is_compared_with_the_better_of_base_and_ift():
    values = {"Base": 0.3, "IFT": 0.4, "Llama4Rec": 0.5}
    assert experiment.best_baseline(DIRECT, values) == "IFT"
    assert experiment.best_baseline(RATING, values) == "Base"
    assert experiment.best_baseline(DIRECT, {"Base": 0.3, "IFT": 0.2, "Llama4Rec": 0.1}) == "Base"
