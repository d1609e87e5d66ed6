"""Hints stand, word for word, in every prompt that should have them, and in no other."""

import numpy as np
import pandas as pd
import pytest
from standins import Characters, by_hand, score_row

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.llm import batches
from llama4rec_core.llm.examples import CandidateList, by_kind, rating_groups, rating_prompt, same_with_hints
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.rate import rate
from llama4rec_core.llm.titles import Titles
from llama4rec_core.rankers import WAYS, Ranker

TITLES = ("Alien", "Brazil", "Clue", "Diva", "Emma", "Fargo", "Ghost", "Heat")
LLM = Characters()
HINTED = [way for way in WAYS if way != "pointwise"]
WHOLE = Titles.whole(LLM, TITLES, None)
# user 0 trained on 4 5 6, user 1 on 2 3 0 7, user 2 on 1 6; the last of these is each one's window; then come two more
SEQUENCES = [[4, 5, 6, 0, 1], [2, 3, 0, 7, 4, 5], [1, 6, 2, 3]]
RATINGS = [1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 1, 2, 3, 4, 5]
KNOWN = by_hand(SEQUENCES, [3, 4, 2], [2, 3, 1], TITLES, RATINGS)
HINTS = Hints(similar=np.array([1, 2, 0]), quoted=KNOWN.n_before_window, length=2)

HISTORY = "Films this viewer watched, oldest first:\nEmma\nFargo\n"
TOLD = (
    "Films a viewer of similar taste watched:\nDiva\nAlien\n"  # user 1's last two before its window
    "A recommender system suggests, best first:\nHeat\nClue\nDiva\nAlien\n"  # the list's own order
)
EACH = CandidateList("window-0-2", 0, 2, np.array([7, 2, 3, 0]), (3,))


def ranker(way="likelihood", length=2):
    return Ranker(way, LLM, KNOWN, WHOLE, length, np.zeros(8, dtype=np.float32), 512)


@pytest.mark.parametrize("way", HINTED)
def test_a_hint_is_told_before_the_history_in_every_way_of_ranking(way):
    plain, hinted = (LLM.text(ranker(way).prompt(EACH, hints)) for hints in (None, HINTS))
    assert plain.startswith(HISTORY) and hinted == TOLD + plain
    assert "similar taste" not in plain and "suggests" not in plain


def test_pointwise_ranking_tells_no_hint():
    assert ranker("pointwise").prompt(EACH, HINTS) == ranker("pointwise").prompt(EACH)


@pytest.mark.parametrize("way", HINTED)
def test_a_training_example_carries_the_hint_of_its_prompt_in_every_way_of_ranking(way):
    plain, hinted = (ranker(way).example(EACH, hints).prompt for hints in (None, HINTS))
    assert LLM.text(hinted) == TOLD + LLM.text(plain)
    assert hinted.branches == plain.branches and not hinted.learn


def test_the_similar_user_is_equation_4_s_and_is_quoted_up_to_what_may_be_quoted():
    def told(hints, user, candidates):
        hint = hints.ranking(KNOWN, user, np.array(candidates))
        return hint.similar.tolist(), hint.prediction.tolist()

    assert told(HINTS, 1, [5]) == ([1], [5])  # user 2's only one
    later = Hints(HINTS.similar, KNOWN.n_train, 3)
    assert told(later, 0, [5, 4]) == ([3, 0, 7], [5, 4])
    assert HINTS.rating(KNOWN, 0) == [(3, 3), (0, 2)]  # rated 4 and 3
    assert later.rating(KNOWN, 2) == [(4, 0), (5, 1), (6, 2)]


CASES = pd.DataFrame({"part": "window", "user": [0, 2, 0], "item": [6, 6, 1], "rating": [3.0, 2.0, 5.0]})
CASES = CASES.assign(prefix=[2, 1, 2], case=range(3))
PREDICTED = np.array([2.26, 4.0, 6.5], dtype=np.float32)


def test_a_rating_prompt_says_each_item_s_predicted_rating_before_its_own_title():
    (key, rows), (other, _) = rating_groups(CASES, PREDICTED)
    assert (key, other) == ("rating-0-2", "rating-2-1")
    plain, hinted = (rating_prompt(LLM, KNOWN, WHOLE, key, rows, 5, hints) for hints in (None, HINTS))
    told = "Ratings from 1 to 5 that this viewer gave, oldest first:\nEmma: 1\nFargo: 2\n"
    assert LLM.text(plain) == told
    assert LLM.text(hinted) == "Ratings a viewer of similar taste gave:\nDiva: 4\nAlien: 3\n" + told
    assert LLM.branches(plain) == ["Ghost: ", "Brazil: "]
    assert LLM.branches(hinted) == [
        "A recommender system predicts 2.3 for the next one.\nGhost: ",
        "A recommender system predicts 6.5 for the next one.\nBrazil: ",
    ]
    for branch in (*plain.branches, *hinted.branches):
        assert branch.choices.tokens == tuple(map(ord, "12345"))
    assert not plain.learn and not hinted.learn  # the trunk has learnt the history's ratings


def test_a_rating_is_its_own_token_however_often_an_item_or_a_rating_is_told():
    """Item 4 twice with another rating, item 5 with the same rating as item 4: each line keeps its own."""
    known = by_hand([[4, 5, 4, 6, 7]], [5], [5], TITLES, [2, 5, 5, 2, 1])
    rows = pd.DataFrame({"user": [0, 0], "prefix": [4, 4], "item": [7, 7], "predicted": [1.0, 4.96]})
    hints = Hints(np.array([0]), np.array([3]), 3)
    prompt = rating_prompt(LLM, known, WHOLE, "k", rows, 9, hints)
    similar, own = LLM.text(prompt).split("Ratings from 1 to 5 that this viewer gave, oldest first:\n")
    assert own == "Emma: 2\nFargo: 5\nEmma: 5\nGhost: 2\n"
    assert similar == "Ratings a viewer of similar taste gave:\nEmma: 2\nFargo: 5\nEmma: 5\n"
    told = "A recommender system predicts {} for the next one.\nHeat: "
    assert LLM.branches(prompt) == [told.format("1.0"), told.format("5.0")]  # the same item asked about twice


def test_ratings_are_asked_with_each_one_s_hints_and_come_back_case_by_case(tmp_path, monkeypatch):
    """The LLM thinks 1, 2, 3, 4, 5 e-fold likelier one by one for Ghost, less and less for Brazil."""
    monkeypatch.setattr(batches, "score_row", score_row)
    llm = Characters(lambda prefix, text: float(text[-1]) * (-1 if "Brazil" in text else 1))
    known = Predictions(CASES, None, None, PREDICTED, np.zeros((3, 0)))
    asked = (known, None), (known.only(CASES["user"].to_numpy() == 0), HINTS)
    told = [
        rate(llm, KNOWN, WHOLE, *each, 5, (1, 5), tmp_path / f"{n}.parquet", "test", 512)
        for n, each in enumerate(asked)
    ]
    found = pd.concat(told, ignore_index=True)
    p = np.exp(np.arange(1, 6)) / np.exp(np.arange(1, 6)).sum()
    high, low = p @ np.arange(1, 6), p[::-1] @ np.arange(1, 6)
    assert found.columns.tolist() == ["part", "user", "item", "rating", "backbone", "expected", "likeliest"]
    rows = found[["user", "item", "rating", "backbone"]].to_numpy().round(2).tolist()
    ghost, brazil, other = [0, 6, 3, 2.26], [0, 1, 5, 5], [2, 6, 2, 4]  # 6.5 is clipped to the scale
    assert rows == [ghost, brazil, other, ghost, brazil]
    assert found["expected"].to_numpy() == pytest.approx([high, low, high, high, low], abs=1e-5)
    assert found["likeliest"].tolist() == [5, 1, 5, 5, 1]
    assert sorted(prompt.key for prompt in llm.read[:2]) == ["rating-0-2", "rating-2-1"]
    assert [prompt.key for prompt in llm.read[2:]] == ["rating-0-2"]
    for n, prompt in enumerate(llm.read):
        text = llm.text(prompt) + "".join(llm.branches(prompt))
        assert ("similar taste" in text) == ("predicts" in text) == (n == 2)


def test_validation_and_test_cases_of_one_history_share_a_prompt_and_keep_their_own_ratings(tmp_path, monkeypatch):
    """User 0 has a validation and a test case after the same history, user 2 a test case between them in the table."""
    monkeypatch.setattr(batches, "score_row", score_row)
    llm = Characters(lambda prefix, text: 9.0 * (int(text[-1]) == 1 + TITLES.index(text.split(":")[0]) % 5))
    rows = [("valid", 0, 2, 5.0, 3), ("test", 2, 3, 4.0, 2), ("test", 0, 1, 1.0, 3)]
    cases = pd.DataFrame(rows, columns=["part", "user", "item", "rating", "prefix"])
    known = Predictions(cases, None, None, np.array([1.5, 2.5, 3.5], dtype=np.float32), np.zeros((3, 0)))
    found = rate(llm, KNOWN, WHOLE, known, None, 5, (1, 5), tmp_path / "x.parquet", "test", 512)
    assert sorted(prompt.key for prompt in llm.read) == ["rating-0-3", "rating-2-2"]
    columns = ["part", "user", "item", "rating", "backbone", "likeliest"]
    told = found[columns].sort_values(["user", "part"]).to_numpy().tolist()
    assert told == [["test", 0, 1, 1, 3.5, 2], ["valid", 0, 2, 5, 1.5, 3], ["test", 2, 3, 4, 2.5, 4]]


def test_what_llm_is_tuned_on_has_hints_in_candidate_lists_and_ratings_alone_and_is_otherwise_the_same():
    lists = np.array([[6, 7, 2], [6, 3, 0], [6, 7, 2]])
    listed = Predictions(CASES, lists, np.zeros((3, 3)), None, np.zeros((3, 0)))
    rated = Predictions(CASES, None, None, PREDICTED, np.zeros((3, 0)))

    def made(hints):
        kinds = {"direct": (listed, hints), "sequential": (listed, hints), "rating": (rated, hints)}
        return by_kind(ranker(), kinds, CASES.iloc[:2], 5, np.random.default_rng(0))

    plain, hinted = made(None), made(HINTS)
    assert plain["pair"] == hinted["pair"]  # P1 is asked without hints
    assert not any("similar taste" in LLM.text(each.prompt) for each in plain["pair"])
    for kind in ("direct", "sequential", "rating"):
        assert [each.prompt.key for each in plain[kind]] == [each.prompt.key for each in hinted[kind]]
        for a, b in zip(plain[kind], hinted[kind], strict=True):
            assert "similar taste" not in LLM.text(a.prompt) and "similar taste" in LLM.text(b.prompt)
            assert a.choice_sets == b.choice_sets
    (first, _) = hinted["direct"]
    assert first.prompt.key == "direct-window-0-2"
    suggested = "A recommender system suggests, best first:\nGhost\nHeat\nClue\n"
    assert LLM.text(first.prompt) == TOLD.split("A rec")[0] + suggested + HISTORY

    rows = [[plain["rating"][1], plain["pair"][0]], [plain["direct"][1]]]
    again = same_with_hints(rows, hinted)
    assert again == [[hinted["rating"][1], hinted["pair"][0]], [hinted["direct"][1]]]
