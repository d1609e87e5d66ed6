"""Training examples by hand: which lists are asked, with what before them and which answers, and their mixture."""

import numpy as np
import pandas as pd
import pytest
from standins import Characters, by_hand

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.llm.examples import (
    KINDS,
    CandidateList,
    ChoiceSet,
    Example,
    by_kind,
    candidate_lists,
    mix,
    next_k_lists,
    pair_examples,
    rating_examples,
    rating_groups,
    same_with_hints,
    with_target,
)
from llama4rec_core.llm.tree import Prompt
from llama4rec_core.presets import InstructionSettings
from llama4rec_core.rankers import Ranker

LLM = Characters()
TITLES = ("Alien", "Brazil", "Clue", "Diva", "Emma", "Fargo", "Ghost", "Heat")
# user 0 trained on 4 5 6, user 1 on 2 3 0 7, user 2 on 1 6; the last of these is each one's window; then come two more
KNOWN = by_hand(
    [[4, 5, 6, 0, 1], [2, 3, 0, 7, 4, 5], [1, 6, 2, 3]], [3, 4, 2], [2, 3, 1], TITLES,
    [1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 1, 2, 3, 4, 5],
)  # fmt: skip


# --- lists ----------------------------------------------------------------------------------------------------------


def test_cases_of_one_part_user_and_history_are_one_list_with_all_their_targets():
    rows = [("valid", 0, 3, 7), ("test", 0, 3, 6), ("valid", 0, 3, 5), ("valid", 0, 2, 4), ("valid", 1, 3, 3)]
    cases = pd.DataFrame(rows, columns=["part", "user", "prefix", "item"])
    candidates = np.array([[7, 5], [6, 1], [7, 5], [2, 4], [0, 1]])
    found = candidate_lists(cases, candidates)
    about = [(each.key, each.user, each.prefix, each.candidates.tolist(), each.targets) for each in found]
    assert about == [
        ("valid-0-3", 0, 3, [7, 5], (7, 5)),
        ("test-0-3", 0, 3, [6, 1], (6,)),
        ("valid-0-2", 0, 2, [2, 4], (4,)),
        ("valid-1-3", 1, 3, [0, 1], (3,)),
    ]
    assert [each.key for each in with_target(found)] == ["valid-0-3", "test-0-3", "valid-0-2"]
    with pytest.raises(ValueError):
        candidate_lists(cases, candidates[:2])


def test_a_list_with_one_of_its_targets_is_asked_about():
    some = CandidateList("a", 0, 1, np.array([1, 2]), (9, 2))
    none = CandidateList("b", 0, 1, np.array([1, 2]), (9, 8))
    assert with_target([none, some]) == [some]


def told(sequences, n_train, n_before_window):
    return by_hand(sequences, n_train, n_before_window, "abcdefghij")


def test_a_next_k_list_asks_for_the_items_of_a_block_after_the_history_before_it():
    """User 0: training items 0 1 2 3 7, in blocks of two from the end, 4 is validation's; user 1: 5, 6 6."""
    known = told([[0, 1, 2, 3, 7, 4], [5, 6, 6]], [5, 3], [3, 1])
    last, first, other = next_k_lists(known, [0, 1], 2, 5, np.random.default_rng(0))
    assert (last.user, last.prefix, last.targets) == (0, 3, (3, 7))
    assert (first.user, first.prefix, first.targets) == (0, 1, (1, 2))
    assert last.candidates[:2].tolist() == [3, 7]
    assert set(last.candidates[2:].tolist()) == {4, 5, 6, 8, 9}  # not steered around validation's item
    assert (other.user, other.prefix, other.targets) == (1, 1, (6,))
    assert not {5, 6} & set(other.candidates[1:].tolist())
    assert [each.key for each in (last, first, other)] == ["next-0-3", "next-0-1", "next-1-1"]
    rest = next_k_lists(known, [0], 3, 0, np.random.default_rng(0))[-1]  # of 0 | 1 | 2 3 7 the middle is left
    assert (rest.prefix, rest.targets, rest.candidates.tolist()) == (1, (1,), [1])
    assert [each.prefix for each in next_k_lists(known, [0], 1, 0, np.random.default_rng(0))] == [4, 3, 2, 1]


def test_a_user_of_one_training_item_has_nothing_to_be_asked_for():
    assert next_k_lists(told([[0, 1, 2]], [1], [1]), [0], 2, 3, np.random.default_rng(0)) == []


def test_the_others_of_a_next_k_list_are_drawn_by_popularity():
    """Item 1 was chosen by nine users before their windows, the others by nobody: with one more each, 10 to 1."""
    known = told([[1, 3]] * 9 + [[0, 4]], [2] * 10, [1] * 10)
    drawn = [next_k_lists(known, [9], 1, 1, np.random.default_rng(n))[0].candidates[1] for n in range(300)]
    assert np.mean(np.array(drawn) == 1) == pytest.approx(10 / 17, abs=0.1)  # eight items, item 1 among them, are free


# --- pairs and ratings ------------------------------------------------------------------------------------------------


def test_in_a_pair_the_window_s_item_is_right_whichever_stands_first():
    cases = pd.DataFrame({"user": [0, 2], "item": [6, 6], "prefix": [2, 1]})
    first, second = pair_examples(LLM, KNOWN, cases, 1, np.random.default_rng(0))
    for each, user, history, drawn in ((first, 0, "Fargo", {0, 1, 2, 3, 7}), (second, 2, "Brazil", {0, 2, 3, 4, 5, 7})):
        assert each.prompt.key == f"pair-{user}-6"
        assert LLM.text(each.prompt) == f"Films this viewer watched, oldest first:\n{history}\n"
        branches = LLM.branches(each.prompt)
        other = branches[1].splitlines()[-1]
        assert TITLES.index(other) in drawn  # no training item
        asked = "Which of these two films would this viewer rather choose?\n{}\n{}\nAnswer:\n{}\n"
        assert branches == [
            asked.format("Ghost", other, "Ghost"),
            asked.format("Ghost", other, other),
            asked.format(other, "Ghost", "Ghost"),
            asked.format(other, "Ghost", other),
        ]
        answers = [LLM.decode(branch.tokens[-branch.answer :]) for branch in each.prompt.branches]
        assert answers == ["Ghost\n", other + "\n"] * 2
        assert each.choice_sets == (ChoiceSet((0, 1), 0), ChoiceSet((2, 3), 0))


def test_the_right_answer_about_a_rating_is_the_one_the_user_gave():
    cases = pd.DataFrame({"user": [1, 0, 1], "item": [7, 6, 4], "rating": [2.0, 3.0, 1.0], "prefix": [3, 2, 3]})
    groups = rating_groups(cases, np.array([4.0, 3.5, 1.5]))
    assert [key for key, _ in groups] == ["rating-0-2", "rating-1-3"]
    assert groups[1][1]["predicted"].tolist() == [4.0, 1.5]
    one, two = rating_examples(LLM, KNOWN, groups, 1, None)
    assert one.choice_sets == (ChoiceSet((0,), 2),)
    assert two.choice_sets == (ChoiceSet((0,), 1), ChoiceSet((1,), 0))
    assert LLM.branches(two.prompt) == ["Heat: ", "Emma: "] and LLM.text(two.prompt).endswith(
        "oldest first:\nAlien: 3\n"
    )


# --- all kinds --------------------------------------------------------------------------------------------------------

CASES = pd.DataFrame({"case": range(4), "part": "window", "user": [0, 1, 2, 2], "item": [6, 7, 6, 2]})
CASES = CASES.assign(rating=3.0, prefix=[2, 3, 1, 1])
LISTS = np.array([[7, 6, 0], [5, 4, 6], [0, 6, 2], [0, 6, 2]])  # user 1's list does not hold its target


def made(held_out=(False, False, False), way="likelihood", seed=0, **settings):
    listed = Predictions(CASES, LISTS, np.zeros((4, 3)), None, np.zeros((3, 0)))
    rated = Predictions(CASES, None, None, np.full(4, 2.5), np.zeros((3, 0)))
    kinds = {"direct": (listed, None), "sequential": (listed, None), "rating": (rated, None)}
    ranker = Ranker(way, LLM, KNOWN, 2, None, np.arange(8, dtype=np.float32), 512)
    settings = InstructionSettings(**({"next": 9, "targets": 2, "others": 3, "pairs": 9} | settings))
    rng = np.random.default_rng(seed)
    return by_kind(ranker, kinds, CASES, np.array(held_out), settings, 1, rng)


def keys(examples):
    return [each.prompt.key for each in examples]


def test_every_kind_of_example_is_made_and_a_list_without_its_target_is_dropped():
    found = made()
    assert set(found) == set(KINDS) == {"direct", "sequential", "next", "rating", "pair"}
    assert keys(found["direct"]) == ["direct-window-0-2", "direct-window-2-1"]
    assert keys(found["sequential"]) == ["sequential-window-0-2", "sequential-window-2-1"]
    assert keys(found["rating"]) == ["rating-0-2", "rating-1-3", "rating-2-1"]
    assert keys(found["pair"]) == ["pair-0-6", "pair-1-7", "pair-2-6", "pair-2-2"]
    assert sorted(keys(found["next"])) == ["next-0-1", "next-1-1", "next-1-2", "next-2-1"]
    first, second = found["direct"]
    assert first.choice_sets == (ChoiceSet((1, 0, 2), 0, (6.0, 7.0, 0.0)),)
    assert second.choice_sets == (ChoiceSet((1, 0), 0, (6.0, 0.0)), ChoiceSet((2, 0), 0, (2.0, 0.0)))
    assert LLM.text(found["rating"][1].prompt).count(": ") == 1  # as many rated titles as asked for
    assert LLM.text(found["pair"][0].prompt).endswith("first:\nEmma\nFargo\n")  # as many as the ranker tells


def test_held_out_users_give_no_example_of_any_kind():
    for held_out in ((True, False, False), (False, False, True)):
        found = made(held_out)
        users = {int(key.split("-")[-2]) for examples in found.values() for key in keys(examples)}
        assert users == {user for user in range(3) if not held_out[user]}
    assert keys(made((False, False, True))["pair"]) == ["pair-0-6", "pair-1-7"]
    assert keys(made((True, True, False))["direct"]) == ["direct-window-2-1"]


def test_the_likelihood_is_taught_k_targets_and_other_ways_one_among_popular_items():
    (block,) = (each for each in made()["next"] if each.prompt.key == "next-1-2")  # 0 and 7 come next
    assert LLM.branches(block.prompt) == ["Alien\n", "Heat\n"] and len(block.choice_sets) == 2
    found = made(way="yes_no")["next"]
    assert sorted(keys(found)) == ["next-0-1", "next-0-2", "next-1-1", "next-1-2", "next-1-3", "next-2-1"]
    assert all(len(each.prompt.branches) == 4 and len(each.choice_sets) == 1 for each in found)


def test_no_more_next_k_and_pair_examples_are_drawn_than_asked_for():
    few = made(next=2, pairs=3)
    assert len(few["next"]) == 2 and len(few["pair"]) == 3
    order = ["pair-0-6", "pair-1-7", "pair-2-6", "pair-2-2"]
    assert keys(few["pair"]) == [key for key in order if key in keys(few["pair"])]  # in the windows' order
    drawn = {tuple(sorted(keys(made(next=2, pairs=1, seed=seed)["next"]))) for seed in range(20)}
    assert len(drawn) > 3  # at random, not the first
    assert len({keys(made(pairs=1, seed=seed)["pair"])[0] for seed in range(20)}) > 2
    assert made(seed=5) == made(seed=5)


# --- the mixture ------------------------------------------------------------------------------------------------------


def examples(kind: int, count: int, length: int) -> list[Example]:
    return [Example(Prompt(f"{kind}-{n}", (kind, n, *range(length - 2)), ()), ()) for n in range(count)]


def spent(chosen) -> dict[str, int]:
    out: dict[str, int] = {}
    for each in chosen:
        kind = each.prompt.key.split("-")[0]
        out[kind] = out.get(kind, 0) + len(each.prompt)
    return out


def test_tokens_are_divided_as_the_shares_say_until_a_kind_runs_out():
    kinds = {"direct": examples(1, 100, 20), "next": examples(2, 100, 5), "pair": examples(3, 2, 10)}
    found = spent(mix(kinds, {"direct": 3.0, "next": 1.0, "pair": 1.0}, 800, np.random.default_rng(0)))
    assert found["3"] == 20  # all there is; the rest is divided 3 to 1
    assert 800 <= sum(found.values()) < 820 and found["1"] / found["2"] == pytest.approx(3, rel=0.1)


def test_a_kind_without_a_share_is_left_out_and_repeats_are_dropped():
    kinds = {"direct": examples(1, 3, 4) * 2, "rating": examples(2, 3, 4), "pair": examples(3, 3, 4)}
    found = spent(mix(kinds, {"direct": 1.0, "pair": 0.0}, 1000, np.random.default_rng(0)))
    assert found == {"1": 12}


def test_a_prompt_with_another_continuation_is_no_repeat():
    from llama4rec_core.llm.tree import Branch

    two = [Example(Prompt(name, (1, 2), (Branch((n,), 1),)), ()) for n, name in enumerate("ab")]
    assert len(mix({"direct": two}, {"direct": 1.0}, 1000, np.random.default_rng(0))) == 2


def test_examples_of_a_kind_are_drawn_at_random_and_the_same_for_the_same_seed():
    kinds = {"direct": examples(1, 50, 4)}
    first, again, other = (mix(kinds, {"direct": 1.0}, 40, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 10
    assert first != kinds["direct"][:10] and first != kinds["direct"][::-1][:10]


def test_the_same_examples_with_hints_come_in_the_same_order():
    plain, hinted = examples(1, 3, 4), examples(1, 3, 9)
    assert same_with_hints([plain[2], plain[0]], {"direct": hinted}) == [hinted[2], hinted[0]]
    with pytest.raises(KeyError):
        same_with_hints(plain, {"direct": hinted[:2]})
