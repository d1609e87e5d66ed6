"""The experiment by hand: which recommender and LLM a row puts together, what weights do to the order, and what weights
are chosen by."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import evaluation, experiment, paths, presets, variants
from llama4rec_core.aggregation import Choice, list_log_likelihood, rating_log_likelihood, user_weights
from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.experiment import Lists, Ratings
from llama4rec_core.tasks import TASKS
from llama4rec_core.variants import VARIANTS, Variant

DIRECT, SEQUENTIAL, RATING = TASKS["direct"], TASKS["sequential"], TASKS["rating"]
SECOND, THIRD = 1 / np.log2(3), 1 / np.log2(4)  # NDCG of the second and the third place


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_rows_are_the_paper_s_its_ablations_and_the_controls():
    top_k, both = ("direct", "sequential"), ("direct", "sequential", "rating")
    assert VARIANTS == {
        "Base": Variant("base", None, "backbone", both),  # M_c alone
        "IFT": Variant("base", "without_hints", "opinion", both),  # LLM' alone, about M_c's lists
        "Llama4Rec": Variant("augmented", "with_hints", "adaptive", both),  # LLM'' and M_c' together
        "w/o DA": Variant("base", "with_hints", "adaptive", both),
        "w/o PA": Variant("augmented", "without_hints", "adaptive", both),
        "w/o AA": Variant("augmented", "with_hints", "one", both),
        "random DA": Variant("random", "with_hints", "adaptive", both),
        "Base + popularity": Variant("base", "Popularity", "adaptive", top_k),
        "Base + item-kNN": Variant("base", "ItemKNN", "adaptive", top_k),
        "Base + recent item-kNN": Variant("base", "RecentItemKNN", "adaptive", top_k),
        "Base + EASE": Variant("base", "EASE", "adaptive", top_k),
        "Base + biases": Variant("base", "Bias", "adaptive", ("rating",)),
    }


def test_a_task_has_its_own_rows_in_one_order_and_asks_for_each_opinion_once():
    names = ["w/o AA", "Base + biases", "Base + EASE", "Llama4Rec", "IFT", "Base"]
    assert list(variants.rows_of(names, "direct")) == ["Base", "IFT", "Llama4Rec", "w/o AA", "Base + EASE"]
    assert list(variants.rows_of(names, "rating")) == ["Base", "IFT", "Llama4Rec", "w/o AA", "Base + biases"]
    llms = [("base", "untuned"), ("base", "without_hints"), ("augmented", "with_hints")]  # w/o AA asks what is asked
    assert variants.asked(names, "sequential") == [*llms, ("base", "EASE")]
    assert variants.asked(names, "rating") == [*llms, ("base", "Bias")]
    assert variants.asked([*names, "w/o DA"], "direct")[3:] == [("base", "with_hints"), ("base", "EASE")]


def test_a_stack_joins_all_second_opinions_and_with_the_llm_the_one_asked_about_the_same_lists():
    names = ["Base", "IFT", "Llama4Rec", "Base + EASE", "Base + item-kNN", "Base + biases"]
    top_k = ["ItemKNN", "EASE"]
    assert variants.stacks(names, "direct") == {"stack": top_k, "stack + LLM": [*top_k, "without_hints"]}
    assert variants.stacks([*names, "w/o DA"], "direct")["stack + LLM"] == [*top_k, "without_hints"]
    assert variants.stacks(names, "rating") == {"stack": ["Bias"], "stack + LLM": ["Bias", "without_hints"]}
    assert variants.stacks(names[:3], "direct") == {}


def test_ablations_name_backbones_with_further_rows():
    few = presets.build({"name": "x", "ablations": ["SASRec"]})
    assert few.rows_of("LightGCN") == few.rows and set(few.rows_of("SASRec")) == set(variants.VARIANTS)
    with pytest.raises(ValueError, match="ablations names MF, which is not among the backbones"):
        presets.build({"name": "x", "ablations": ["MF"]})


def test_a_preset_names_its_rows():
    assert presets.build({"name": "x"}).rows == (
        "Base", "IFT", "Llama4Rec", "w/o AA", "Base + popularity", "Base + item-kNN", "Base + recent item-kNN",
        "Base + EASE", "Base + biases",
    )  # fmt: skip
    for rows, said in (
        (["Base", "IFT", "Llama4Rec", "w/o X"], "rows names 'w/o X': the known ones are Base, IFT, Llama4Rec, w/o DA"),
        (["Base", "Llama4Rec"], "rows lacks 'IFT': Base, IFT, Llama4Rec are always there"),
    ):
        with pytest.raises(ValueError, match=said):
            presets.build({"name": "x", "rows": rows})


def test_rows_are_known_without_torch_and_pandas():
    code = "import sys, llama4rec_core.variants; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_tasks_say_what_is_better():
    assert [(task.metric, task.column, task.sign, task.root) for task in TASKS.values()] == [
        ("NDCG@5", "NDCG@5", 1, False),
        ("NDCG@5", "NDCG@5", 1, False),
        ("RMSE", "MSE", -1, True),
    ]
    assert [task.made for task in TASKS.values()] == ["pairs", "insertions", "attributes"]


# --- lists ------------------------------------------------------------------------------------------------------------


def predictions(parts, users, targets=None, items=None, scores=None, prefix=3):
    n = len(users)
    targets = np.zeros(n, dtype=int) if targets is None else targets
    cases = pd.DataFrame({"case": range(n), "part": parts, "user": users, "item": targets, "rating": 5.0})
    items = np.tile([7, 8, 9], (n, 1)) if items is None else np.array(items)
    scores = np.tile([3.0, 2.0, 1.0], (n, 1)) if scores is None else np.array(scores)
    return Predictions(cases.assign(prefix=prefix), items, scores.astype(np.float32), None, np.zeros((9, 0)))


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
    assert cases.opinion.tolist() == [[0, 1, 2], [-1, -2, -3]]
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
    assert positions.rank(0.6).tolist() == [3] and standardised.rank(0.6).tolist() == [2]


def test_no_list_asked_about_is_no_error():
    cases = Lists.of(predictions("test", [0, 1], [5, 6]), said(("else", {7: 0.0})), "positions")
    assert cases.rank(1.0).tolist() == [0, 0] and cases.opinion.shape == (0, 3)
    assert cases.alone(1.0)[0].tolist() == []


def test_each_judge_alone_is_judged_within_lists_that_hold_their_target():
    """User 0: its target first and, in another list, second; user 1: third; user 2's list does not hold it."""
    known = predictions("valid", [0, 0, 1, 2], [5, 6, 7, 9], np.tile([5, 6, 7], (4, 1)), prefix=[3, 4, 3, 3])
    worst_first = {5: 0.3, 6: 0.4, 7: 0.5}
    cases = Lists.of(known, said(*((key, worst_first) for key in ("valid-0-3", "valid-0-4", "valid-1-3"))), "positions")
    users, values = cases.alone(0.0)
    assert users.tolist() == [0, 0, 1] and values == pytest.approx([1, SECOND, THIRD])
    users, values = cases.alone(1.0)
    assert users.tolist() == [0, 0, 1] and values == pytest.approx([THIRD, SECOND, 1])
    found = experiment.alone(DIRECT, "LLM'", *cases.alone(1.0), draws=50)
    assert found["name"] == "LLM'" and found["lists"] == 3
    assert found["value"] == pytest.approx(((THIRD + SECOND) / 2 + 1) / 2)  # each user weighs the same
    assert found["ci_low"] <= found["value"] <= found["ci_high"]


def test_only_the_first_five_places_count_in_what_weights_are_chosen_by():
    """A target in the sixth place, for the backbone as for the LLM, gives nothing; one in the fifth does."""
    items = [[1, 2, 3, 4, 5, 6]] * 2
    known = predictions("test", [0, 1], [6, 5], items, [[6, 5, 4, 3, 2, 1]] * 2)
    falling = dict(zip(items[0], (6, 5, 4, 3, 2, 1), strict=True))
    cases = Lists.of(known, said(("test-0-3", falling), ("test-1-3", falling)), "positions")
    for values in (cases.metric(0.5), cases.alone(1.0)[1], cases.alone(0.0)[1]):
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


def test_a_change_below_the_top_five_does_not_count():
    items = [[1, 2, 3, 4, 5, 6, 7]]
    known = predictions("test", [0], [6], items, [[7, 6, 5, 4, 3, 2, 1]])
    swapped = dict(zip(items[0], (9, 8, 7, 6, 5, 1, 2), strict=True))
    cases = Lists.of(known, said(("test-0-3", swapped)), "positions")
    assert cases.order(1.0).tolist() == [[1, 2, 3, 4, 5, 7, 6]]
    assert experiment.top_changed(cases, cases, np.ones(1)).to_dict() == {0: 0.0}


def test_the_likelihood_is_of_every_target_that_its_list_holds():
    """User 0's two cases share a list, but only one target is in it; user 2's is second."""
    known = predictions("valid", [0, 0, 1, 2], [9, 4, 5, 8], [[7, 8, 9], [7, 8, 9], [1, 2, 3], [7, 8, 9]])
    given = said(("valid-0-3", {7: 0.0, 8: 1.0, 9: 2.0}), ("valid-2-3", {7: 0.0, 8: 1.0, 9: 5.0}))
    cases = Lists.of(known, given, "positions")
    assert cases.asked.tolist() == [True, True, False, True]
    for alpha in (0.0, 0.3, np.array([1.0, 0.5, 0.2])):
        expected = list_log_likelihood(cases.utility(alpha)[[0, 2]], [2, 1])
        assert cases.log_likelihood(alpha).tolist() == expected.tolist()
    assert cases.log_likelihood(0.0).sum() == pytest.approx(-2 * np.log(3))  # third and second: no better than chance
    assert cases.log_likelihood(1.0)[0] > -np.log(3)


def test_only_keeps_a_case_with_its_opinion():
    cases = by_hand()
    kept = cases.only(np.array([False, True, True]))
    assert kept.users.tolist() == [1, 2] and kept.asked.tolist() == [False, True]
    assert kept.opinion.tolist() == [[-1, -2, -3]] and kept.rank(1.0).tolist() == [0, 2]
    rated = Ratings.of(SCORES, "expected", (1, 5)).only(np.array([True, False, True]))
    assert (
        rated.users.tolist() == [0, 1] and rated.metric(1.0).tolist() == [1, 1] and rated.metric(0.0).tolist() == [4, 9]
    )


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
    users, values = cases.alone(1.0)
    assert users.tolist() == [0, 1, 1] and values.tolist() == [1, 4, 1]
    users, values = cases.alone(0.0)
    assert users.tolist() == [0, 1, 1] and values.tolist() == [4, 0, 9]
    assert Ratings.of(SCORES, "likeliest", (1, 5)).predicted(1.0).tolist() == [5, 4, 5]
    assert Ratings.of(SCORES, "expected", (1, 3)).predicted(1.0).tolist() == [3, 3, 3]


def test_the_likelihood_of_ratings_is_that_of_the_blend_s_errors():
    cases = Ratings.of(SCORES, "expected", (1, 5))
    assert cases.log_likelihood(0.0).tolist() == rating_log_likelihood([-2, 0, -3]).tolist()
    assert cases.log_likelihood(np.array([0.25, 0.5])).tolist() == rating_log_likelihood([-1.75, 1, -0.5]).tolist()


# --- choosing ---------------------------------------------------------------------------------------------------------

OURS, ONE = VARIANTS["Llama4Rec"], VARIANTS["w/o AA"]
N_TRAIN = np.array([1, 2, 4, 8, 16, 32, 64, 128])


def where_the_llm_is(right: bool, part="valid", users=range(8)):
    """The target is last for the backbone and first for the LLM, or the other way round."""
    users = list(users)
    given = said(*((f"{part}-{user}-3", {7: 1.0, 8: 2.0, 9: 3.0}) for user in users))
    return Lists.of(predictions(part, users, [9 if right else 7] * len(users)), given, "positions")


def test_weights_are_those_that_make_the_targets_likeliest():
    right = experiment.choose_weights(OURS, where_the_llm_is(True), N_TRAIN)
    wrong = experiment.choose_weights(OURS, where_the_llm_is(False), N_TRAIN)
    assert (wrong.alpha_1, wrong.gain) == (0.0, 0.0) and right.alpha_1 >= 0.7
    assert right.gain == pytest.approx(8 * np.log(3), rel=1e-6)  # from a third to nearly certain
    assert user_weights(N_TRAIN, right.alpha_1, right.alpha_2).min() > 0.5  # everyone's order is the LLM's
    assert len(right.grid) == 30 and right.grid["value"].max() == right.gain


def test_every_list_counts_and_one_s_gain_must_be_worth_a_nat():
    n = N_TRAIN[:4]
    assert experiment.choose_weights(OURS, where_the_llm_is(True, users=[0]), n).alpha_1 > 0  # log 3 > 1
    nobody = where_the_llm_is(True, users=[0]).only(np.array([False]))
    assert experiment.choose_weights(OURS, nobody, n).alpha_1 == 0


def test_without_aa_one_weight_is_chosen_for_all_users():
    choice = experiment.choose_weights(ONE, where_the_llm_is(True), N_TRAIN)
    assert choice.alpha_2 == 1 and choice.alpha_1 > 0.6 and set(choice.grid["alpha_2"]) == {1}
    assert (experiment.weights_of(ONE, choice, N_TRAIN) == choice.alpha_1).all()


@pytest.mark.parametrize("best", [0.81, 0.03, 0.9, 0.35])
def test_without_aa_every_weight_can_be_chosen_that_equation_7_gives_to_long_histories(best):
    n = np.arange(8)
    llm, backbone = np.linspace(2, 5, 8), np.linspace(4, 1, 8)
    cases = Ratings(n, np.full(8, "valid"), best * llm + (1 - best) * backbone, llm, backbone, (1, 5))
    assert experiment.choose_weights(ONE, cases, N_TRAIN).alpha_1 == best


def test_weights_are_chosen_on_validation_alone():
    rated = Ratings(np.arange(3), np.array(["valid", "test", "valid"]), np.ones(3), np.ones(3), np.ones(3), (1, 5))
    for cases in (where_the_llm_is(True, "test"), where_the_llm_is(True, "window"), rated):
        with pytest.raises(ValueError, match="weights are chosen on validation alone: hand in cases of the part"):
            experiment.choose_weights(OURS, cases, N_TRAIN)


def test_for_ratings_the_smallest_error_is_best():
    n = np.arange(8)
    valid = np.full(8, "valid")
    right = Ratings(n, valid, np.full(8, 5.0), np.full(8, 5.0), np.full(8, 1.0), (1, 5))
    wrong = Ratings(n, valid, np.full(8, 1.0), np.full(8, 5.0), np.full(8, 1.0), (1, 5))
    found = experiment.choose_weights(OURS, right, N_TRAIN)
    weight = user_weights(N_TRAIN, found.alpha_1, found.alpha_2)
    assert (found.alpha_1, found.alpha_2) == (0.9, 0.9)
    assert found.gain == pytest.approx(4 * np.log(16 / np.mean((4 * (1 - weight)) ** 2)))  # n/2 log of both MSE
    assert experiment.choose_weights(OURS, wrong, N_TRAIN).alpha_1 == 0.0


def test_a_row_s_weights_are_0_for_base_1_for_ift_and_equation_7_for_a_blend():
    choice = Choice(0.5, 0.3, 0.0, pd.DataFrame())
    assert experiment.weights_of(VARIANTS["Base"], None, N_TRAIN) == 0.0
    assert experiment.weights_of(VARIANTS["IFT"], None, N_TRAIN) == 1.0
    found = experiment.weights_of(OURS, choice, N_TRAIN)
    assert found.tolist() == user_weights(N_TRAIN, 0.5, 0.3).tolist()
    assert found[0] == 0.5 and found[-1] == pytest.approx(0.15)  # who has few interactions leans on the LLM


def test_what_validation_says_of_a_blend_is_by_weights_of_other_users():
    """Where the LLM is right about all, the others say so too; a user alone has nobody to say it."""
    choices = {"Llama4Rec": Choice(0.5, 0.3, 2.5, pd.DataFrame())}
    right = where_the_llm_is(True)
    found = experiment.validated(DIRECT, {"Base": right, "IFT": right, "Llama4Rec": right}, choices, N_TRAIN)
    assert found["Base"] == {"validation": pytest.approx(THIRD)} and found["IFT"] == {"validation": 1}
    assert found["Llama4Rec"] == {"alpha_1": 0.5, "alpha_2": 0.3, "gain": 2.5, "validation": 1}
    only = where_the_llm_is(True, users=[0])  # nobody else to choose on: the backbone alone
    assert experiment.cross_fitted(OURS, only, N_TRAIN).tolist() == [pytest.approx(THIRD)]
    assert experiment.choose_weights(OURS, only, N_TRAIN).alpha_1 > 0


# --- measuring --------------------------------------------------------------------------------------------------------


def test_every_row_is_measured_with_its_own_weights():
    """The LLM has the target first, the backbone does not."""
    each = where_the_llm_is(True, "test")
    choices = {"Llama4Rec": Choice(0.9, 0.9, 0.0, pd.DataFrame()), "w/o AA": Choice(0.0, 1.0, 0.0, pd.DataFrame())}
    rows = ["Base", "IFT", *choices]
    found = experiment.measure(DIRECT, dict.fromkeys(rows, each), choices, N_TRAIN).set_index("row")
    assert (found.loc[["IFT", "Llama4Rec"], "NDCG@5"] == 1).all()
    assert found.loc[["Base", "w/o AA"], "NDCG@5"].to_numpy() == pytest.approx([THIRD] * 16)
    assert (found.loc["Llama4Rec", ["alpha_1", "alpha_2"]] == 0.9).all(axis=None)
    assert (found.loc["w/o AA", "alpha_1"] == 0).all() and (found.loc["w/o AA", "alpha_2"] == 1).all()
    assert (found.loc["Llama4Rec", "mode"] == each.utilities).all()
    assert (found.loc["Llama4Rec", "changed"] == 1).all() and (found.loc["w/o AA", "changed"] == 0).all()
    assert found.loc[["Base", "IFT"], ["alpha_1", "alpha_2", "changed", "mode"]].isna().all(axis=None)
    assert (found["cases"] == 1).all()
    rated = Ratings(np.array([0, 1, 1]), np.full(3, "test"), np.full(3, 5.0), np.full(3, 5.0), np.full(3, 1.0), (1, 5))
    found = experiment.measure(RATING, dict.fromkeys(rows, rated), choices, N_TRAIN).set_index("row")
    assert (found.loc["Base", "MSE"] == 16).all() and (found.loc["IFT", "MSE"] == 0).all()
    assert (found.loc["Llama4Rec", "mode"] == "rating").all() and found["changed"].isna().all()
    assert found.loc["IFT", ["user", "cases"]].to_numpy().tolist() == [[0, 1], [1, 2]]


def test_the_mean_is_over_users_and_the_root_comes_last():
    cases = by_hand()
    assert experiment.over_users(DIRECT, cases.users, cases.metric(1.0)) == pytest.approx((1 + 0 + SECOND) / 3)
    assert experiment.over_users(DIRECT, np.array([0, 0, 1]), np.array([1.0, 0, 1])) == 0.75
    assert experiment.over_users(RATING, np.array([0, 1, 1]), np.array([4.0, 0, 9])) == pytest.approx(np.sqrt(4.25))
