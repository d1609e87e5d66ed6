"""Training examples by hand: what the trunk reads, which lists are asked, with what before them and which answers, and
their mixture."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from standins import Characters, by_hand

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.llm import examples as llm_examples
from llama4rec_core.llm.examples import (
    CandidateList,
    ChoiceSet,
    Example,
    by_kind,
    candidate_lists,
    mix,
    next_examples,
    pair_examples,
    rating_examples,
    rating_groups,
    same_with_hints,
    trunk,
    with_target,
)
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.presets import ShareSettings, TrunkSettings
from llama4rec_core.rankers import Ranker

LLM = Characters()
TITLES = ("Alien", "Brazil", "Clue", "Diva", "Emma", "Fargo", "Ghost", "Heat")
WHOLE, TOLD = Titles.whole(LLM, TITLES, None), Titles.told_apart(LLM, TITLES)
# user 0 trained on 4 5 6, user 1 on 2 3 0 7, user 2 on 1 6; the last of these is each one's window; then come two more
KNOWN = by_hand(
    [[4, 5, 6, 0, 1], [2, 3, 0, 7, 4, 5], [1, 6, 2, 3]], [3, 4, 2], [2, 3, 1], TITLES,
    [1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 1, 2, 3, 4, 5],
)  # fmt: skip

# --- the trunk --------------------------------------------------------------------------------------------------------

LONG = by_hand(
    [[(3 * t + user) % 11 for t in range(11 - user)] for user in range(3)], [9, 8, 7], [7, 5, 1],
    [f"{letter}film" for letter in "abcdefghijk"], [1 + (t + user) % 5 for user in range(3) for t in range(11 - user)],
)  # fmt: skip
FILM = "Films this viewer watched, oldest first:\n"
RATING = "Ratings from 1 to 5 that this viewer gave, oldest first:\n"


LONG_TOLD = Titles.told_apart(LLM, LONG.titles)


def read(known=LONG, seed=0, **settings) -> list[Example]:
    settings = TrunkSettings(**({"tokens": 2000, "history": 3, "rated": 0.3} | settings))
    return trunk(LLM, known, LONG_TOLD, settings, np.random.default_rng(seed))


def lines(each: Example) -> list[str]:
    return LLM.text(each.prompt).removeprefix(FILM).removeprefix(RATING).splitlines()


def test_every_item_of_a_trunk_example_is_a_target_after_those_before_it():
    told = Titles.told_apart(LLM, TITLES)
    (one,) = trunk(LLM, KNOWN, told, TrunkSettings(1, history=9, rated=0.0), np.random.default_rng(0))
    user = int(one.prompt.key.split("-")[2])
    items = KNOWN.history(user, KNOWN.n_before_window[user], 9)
    text = FILM + "".join(TITLES[item][0] + "\n" for item in items)
    assert LLM.text(one.prompt) == text and not one.prompt.branches and not one.choice_sets
    assert [LLM.decode([one.prompt.prefix[at]]) for at, _ in one.prompt.learn] == [TITLES[item][0] for item in items]
    assert all(among.tokens == tuple(map(ord, "ABCDEFGH")) for _, among in one.prompt.learn)


def test_of_a_rated_trunk_example_the_ratings_are_the_targets():
    rated = read(rated=1.0)
    assert all(LLM.text(each.prompt).startswith(RATING) for each in rated)
    for each in rated:
        learnt = [LLM.decode([each.prompt.prefix[at]]) for at, _ in each.prompt.learn]
        assert learnt == [line.split(": ")[1] for line in lines(each)]
        assert {among.tokens for _, among in each.prompt.learn} == {tuple(map(ord, "12345"))}
    _, reading, user, end = rated[0].prompt.key.split("-")
    (item, value) = LONG.rated(int(user), int(end), 1)[0]
    assert lines(rated[0])[-1] == f"{LONG.titles[item][0]}: {value + 1}"
    share = np.mean([LLM.text(each.prompt).startswith(RATING) for each in read(tokens=40_000)])
    assert share == pytest.approx(0.3, abs=0.07)
    assert not any(LLM.text(each.prompt).startswith(RATING) for each in read(rated=0.0))


def test_the_trunk_reads_every_user_s_sequence_before_the_window_as_often_as_the_tokens_last():
    """Pieces of at most three items. Each reading has every item once, in order, cut at places of its own."""
    made = read(rated=0.0)
    spent = [len(each.prompt) for each in made]
    assert sum(spent[:-1]) < 2000 <= sum(spent) and len({each.prompt.key for each in made}) == len(made)
    readings: dict[str, dict[str, list]] = {}
    for each in made:
        _, reading, user, end = each.prompt.key.split("-")
        assert 1 <= len(lines(each)) <= 3
        readings.setdefault(reading, {}).setdefault(user, []).append((int(end), lines(each)))
    assert len(readings) > 3
    cuts = set()
    for reading in list(readings.values())[:-1]:  # the last ends with the tokens
        for user, n in enumerate((7, 5, 1)):
            pieces = sorted(reading[str(user)])
            items = [line for _, piece in pieces for line in piece]
            assert items == [LONG.titles[item][0] for item in LONG.history(user, n, 99)]
        cuts.add(tuple(end for end, _ in sorted(reading["0"])))
    assert len(cuts) > 1
    assert read() == read() != read(seed=1)
    assert read(tokens=0) == []


def changed(known, user: int, at: int):
    """Another item, of nobody's training before, and another rating at place `at` of a user's sequence."""
    items, ratings, place = known.items.copy(), known.ratings.copy(), known.begin[user] + at
    items[place], ratings[place] = (items[place] + 5) % 11, 6 - ratings[place] if ratings[place] != 3 else 1
    return replace(known, items=items, ratings=ratings)


@pytest.mark.parametrize("user", [0, 1, 2])
def test_the_trunk_reads_nothing_of_windows_or_of_what_follows_them(user):
    before = LONG.n_before_window[user]
    for at in range(before, LONG.begin[user + 1] - LONG.begin[user]):
        assert read(changed(LONG, user, at)) == read()
    assert read(changed(LONG, user, before - 1)) != read()  # and the same check fails before the window


def test_a_trunk_without_anything_to_read_is_an_error():
    nothing = by_hand([[0, 1]], [1], [0], "ab")
    with pytest.raises(ValueError, match="no user has an interaction before the window"):
        read(nothing)


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


# --- next titles ------------------------------------------------------------------------------------------------------


def window_lists(prefixes: dict[int, list[int]]) -> Predictions:
    """User 2's list at each prefix: the items prefix and prefix + 1."""
    cases = pd.DataFrame([("window", 2, p) for p in prefixes], columns=["part", "user", "prefix"]).assign(item=10)
    lists = np.array([[p, p + 1] for p in prefixes])
    return Predictions(cases, lists, np.zeros(lists.shape), None, np.zeros((3, 0)))


def test_a_window_s_titles_are_learnt_piece_by_piece_and_the_tasks_take_turns_with_hints_made_up_to_there(monkeypatch):
    monkeypatch.setattr(llm_examples, "NEXT_TOGETHER", 2)
    ranker = Ranker("likelihood", LLM, LONG, LONG_TOLD, 2, np.zeros(11, dtype=np.float32), 512)
    hints = Hints(np.array([1, 2, 0]), LONG.n_before_window, 1)
    direct, sequential = window_lists([1]), window_lists([1, 2, 3, 4, 5, 6])
    plain = next_examples(ranker, [(direct, None), (sequential, None)])
    hinted = next_examples(ranker, [(direct, hints), (sequential, hints)])
    assert keys(plain) == keys(hinted) == ["next-2-1", "next-2-3", "next-2-5"]  # six window items
    history = [(3 * t + 2) % 11 for t in range(9)]  # user 2's
    for each, other, begin, listed in zip(plain, hinted, (1, 3, 5), ([1, 2], [3, 4], [1, 2]), strict=True):
        told = "".join(f"{'abcdefghijk'[item]}\n" for item in history[max(0, begin - 2) : begin + 2])
        assert LLM.text(each.prompt) == FILM + told
        similar = "abcdefghijk"[(3 * 6) % 11]  # user 0's last before its window
        suggested = "".join(f"{'abcdefghijk'[item]}\n" for item in listed)
        assert LLM.text(other.prompt) == (
            f"Films a viewer of similar taste watched:\n{similar}\n"
            f"A recommender system suggests, best first:\n{suggested}{FILM}{told}"
        )
        for prompt in (each.prompt, other.prompt):
            assert [prompt.prefix[at] for at, _ in prompt.learn] == [
                LONG_TOLD.names[item][0] for item in history[begin : begin + 2]
            ]
        assert each.choice_sets == other.choice_sets == ()


# --- pairs and ratings ------------------------------------------------------------------------------------------------


def test_in_a_pair_the_window_s_item_is_right_whichever_stands_first():
    cases = pd.DataFrame({"user": [0, 2], "item": [6, 6], "prefix": [2, 1]})
    first, second = pair_examples(LLM, KNOWN, WHOLE, cases, 1, np.random.default_rng(0))
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
    one, two = rating_examples(LLM, KNOWN, WHOLE, groups, 1, None)
    first, second = (tuple(((b, n),) for n in range(5)) for b in range(2))  # to each of five ratings one choice
    assert one.choice_sets == (ChoiceSet((0,), 2, first),)
    assert two.choice_sets == (ChoiceSet((0,), 1, first), ChoiceSet((1,), 0, second))
    assert not one.prompt.learn and not two.prompt.learn  # the trunk has learnt the history's
    assert LLM.branches(two.prompt) == ["Heat: ", "Emma: "] and LLM.text(two.prompt).endswith(
        "oldest first:\nAlien: 3\n"
    )


# --- all kinds --------------------------------------------------------------------------------------------------------

CASES = pd.DataFrame({"case": range(4), "part": "window", "user": [0, 1, 2, 2], "item": [6, 7, 6, 2]})
CASES = CASES.assign(rating=3.0, prefix=[2, 3, 1, 1])
LISTS = np.array([[7, 6, 0], [5, 4, 6], [0, 6, 2], [0, 6, 2]])  # user 1's list does not hold its target


def made(way="likelihood", seed=0, cases=CASES):
    listed = Predictions(CASES, LISTS, np.zeros((4, 3)), None, np.zeros((3, 0)))
    rated = Predictions(cases, None, None, np.full(len(cases), 2.5), np.zeros((3, 0)))
    kinds = {"direct": (listed, None), "sequential": (listed, None), "rating": (rated, None)}
    ranker = Ranker(way, LLM, KNOWN, TOLD, 2, np.arange(8, dtype=np.float32), 512)
    return by_kind(ranker, kinds, CASES, 1, np.random.default_rng(seed))


def keys(examples):
    return [each.prompt.key for each in examples]


def test_every_kind_of_example_is_made_and_a_list_without_its_target_is_dropped():
    found = made()
    kinds = {field.name for field in fields(ShareSettings)}
    assert set(found) == kinds == {"direct", "sequential", "next", "rating", "pair"}
    assert keys(found["direct"]) == ["direct-window-0-2", "direct-window-2-1"]
    assert keys(found["sequential"]) == ["sequential-window-0-2", "sequential-window-2-1"]
    assert keys(found["next"]) == ["next-0-2", "next-1-3", "next-2-1"]
    assert keys(found["rating"]) == ["rating-0-2", "rating-1-3", "rating-2-1"]
    assert keys(found["pair"]) == ["pair-0-6", "pair-1-7", "pair-2-6", "pair-2-2"]
    first, second = found["direct"]
    assert first.choice_sets == (ChoiceSet((1, 0, 2), 0),)
    assert second.choice_sets == (ChoiceSet((1, 0), 0), ChoiceSet((2, 0), 0))
    assert not first.prompt.learn  # the trunk has learnt the history
    assert LLM.text(found["rating"][1].prompt).count(": ") == 1  # as many rated titles as asked for
    assert LLM.text(found["pair"][0].prompt).endswith("first:\nE\nF\n")  # as many as the ranker tells
    assert made(seed=5) == made(seed=5)


def test_at_most_twenty_ratings_are_asked_for_in_one_example():
    cases = CASES.iloc[[0] * 45].assign(rating=[1.0] * 20 + [2.0] * 20 + [3.0] * 5)
    examples = made(cases=cases)["rating"]
    assert keys(examples) == ["rating-0-2", "rating-0-2-20", "rating-0-2-40"]
    assert [[each.right for each in example.choice_sets] for example in examples] == [[0] * 20, [1] * 20, [2] * 5]


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
    two = [Example(Prompt(name, (1, 2), (Branch((n,), 1),)), ()) for n, name in enumerate("ab")]
    assert len(mix({"direct": two}, {"direct": 1.0}, 1000, np.random.default_rng(0))) == 2


def test_examples_of_a_kind_are_drawn_at_random_and_the_same_for_the_same_seed():
    kinds = {"direct": examples(1, 50, 4)}
    first, again, other = (mix(kinds, {"direct": 1.0}, 40, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 10
    assert first != kinds["direct"][:10] and first != kinds["direct"][::-1][:10]


def test_the_same_examples_with_hints_stand_in_the_same_rows():
    plain, hinted = examples(1, 3, 4), examples(1, 3, 9)
    rows = [[plain[2], plain[0]], [plain[1]]]
    assert same_with_hints(rows, {"direct": hinted}) == [[hinted[2], hinted[0]], [hinted[1]]]
    with pytest.raises(KeyError):
        same_with_hints(rows, {"direct": hinted[:2]})
