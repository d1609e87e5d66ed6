"""Hints stand, word for word, in every prompt that should have them, and in no other."""

import numpy as np
import pandas as pd
import pytest
from standins import Characters, by_hand, score_row

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList, by_kind, rating_groups, rating_prompt, same_with_hints
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.rate import rate
from llama4rec_core.presets import InstructionSettings
from llama4rec_core.rankers import WAYS, Ranker

TITLES = ("Alien", "Brazil", "Clue", "Diva", "Emma", "Fargo", "Ghost", "Heat")
LLM = Characters()
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
    return Ranker(way, LLM, KNOWN, length, None, np.zeros(8, dtype=np.float32), 512)


@pytest.mark.parametrize("way", WAYS)
def test_a_hint_is_told_between_history_and_question_in_every_way_of_ranking(way):
    plain, hinted = (LLM.text(ranker(way).prompt(EACH, hints)) for hints in (None, HINTS))
    assert plain.startswith(HISTORY) and hinted == HISTORY + TOLD + plain.removeprefix(HISTORY)
    assert "similar taste" not in plain and "suggests" not in plain


@pytest.mark.parametrize("way", WAYS)
def test_a_training_example_carries_the_hint_of_its_prompt_in_every_way_of_ranking(way):
    plain, hinted = (ranker(way).example(EACH, hints).prompt for hints in (None, HINTS))
    assert LLM.text(hinted) == LLM.text(plain).replace(HISTORY, HISTORY + TOLD)
    assert hinted.branches == plain.branches


def test_the_similar_user_is_equation_4_s_and_is_quoted_up_to_what_may_be_quoted():
    assert HINTS.ranking(KNOWN, 1, np.array([5])) == prompts.Hint(("Brazil",), ("Fargo",))  # user 2's only one
    later = Hints(HINTS.similar, KNOWN.n_train, 3)
    assert later.ranking(KNOWN, 0, np.array([5, 4])).similar == ("Diva", "Alien", "Heat")
    assert later.ranking(KNOWN, 0, np.array([5, 4])).prediction == ("Fargo", "Emma")
    assert HINTS.rating(KNOWN, 0) == [("Diva", "4"), ("Alien", "3")]
    assert later.rating(KNOWN, 2) == [("Emma", "1"), ("Fargo", "2"), ("Ghost", "3")]


CASES = pd.DataFrame({"part": "window", "user": [0, 2, 0], "item": [6, 6, 1], "rating": [3.0, 2.0, 5.0]})
CASES = CASES.assign(prefix=[2, 1, 2], case=range(3))
PREDICTED = np.array([2.26, 4.0, 6.5], dtype=np.float32)


def test_a_rating_prompt_says_each_item_s_predicted_rating_before_its_own_title():
    (key, rows), (other, _) = rating_groups(CASES, PREDICTED)
    assert (key, other) == ("rating-0-2", "rating-2-1")
    plain, hinted = (rating_prompt(LLM, KNOWN, key, rows, 5, hints) for hints in (None, HINTS))
    told = "Ratings from 1 to 5 that this viewer gave, oldest first:\nEmma: 1\nFargo: 2\n"
    assert LLM.text(plain) == told
    assert LLM.text(hinted) == told + "Ratings a viewer of similar taste gave:\nDiva: 4\nAlien: 3\n"
    assert LLM.branches(plain) == ["Ghost: ", "Brazil: "]
    assert LLM.branches(hinted) == [
        "A recommender system predicts 2.3 for the next one.\nGhost: ",
        "A recommender system predicts 6.5 for the next one.\nBrazil: ",
    ]
    assert all(branch.choices == tuple(map(ord, "12345")) for branch in (*plain.branches, *hinted.branches))
    # tuning learns the digits of the history, and nothing of the similar user's
    assert [chr(hinted.prefix[at]) for at in hinted.learn] == ["1", "2"] and hinted.learn == plain.learn


def test_ratings_are_asked_with_each_one_s_hints_and_come_back_case_by_case(tmp_path, monkeypatch):
    """The LLM thinks 1, 2, 3, 4, 5 e-fold likelier one by one for Ghost, less and less for Brazil."""
    monkeypatch.setattr(batches, "score_row", score_row)
    llm = Characters(lambda prefix, text: float(text[-1]) * (-1 if "Brazil" in text else 1))
    known = Predictions(CASES, None, None, PREDICTED, np.zeros((3, 0)))
    asked = [("deployed", known, None), ("out_of_fold", known.only(CASES["user"].to_numpy() == 0), HINTS)]
    found = rate(llm, KNOWN, asked, 5, (1, 5), tmp_path / "x.parquet", "test", 512)
    p = np.exp(np.arange(1, 6)) / np.exp(np.arange(1, 6)).sum()
    high, low = p @ np.arange(1, 6), p[::-1] @ np.arange(1, 6)
    assert found.columns.tolist() == ["part", "user", "item", "rating", "backbone", "expected", "likeliest"]
    rows = found[["user", "item", "rating", "backbone"]].to_numpy().round(2).tolist()
    ghost, brazil, other = [0, 6, 3, 2.26], [0, 1, 5, 5], [2, 6, 2, 4]  # 6.5 is clipped to the scale
    assert rows == [ghost, brazil, other, ghost, brazil]
    assert found["expected"].to_numpy() == pytest.approx([high, low, high, high, low], abs=1e-5)
    assert found["likeliest"].tolist() == [5, 1, 5, 5, 1]
    texts = {prompt.key: llm.text(prompt) + "".join(llm.branches(prompt)) for prompt in llm.read}
    assert set(texts) == {"deployed-rating-0-2", "deployed-rating-2-1", "out_of_fold-rating-0-2"}
    for key, text in texts.items():
        assert ("similar taste" in text) == ("predicts" in text) == key.startswith("out_of_fold")


def test_what_llm_is_tuned_on_has_hints_in_candidate_lists_and_ratings_alone_and_is_otherwise_the_same():
    lists = np.array([[6, 7, 2], [6, 3, 0], [6, 7, 2]])
    listed = Predictions(CASES, lists, np.zeros((3, 3)), None, np.zeros((3, 0)))
    rated = Predictions(CASES, None, None, PREDICTED, np.zeros((3, 0)))

    def made(hints):
        kinds = {"direct": (listed, hints), "sequential": (listed, hints), "rating": (rated, hints)}
        windows = CASES.iloc[:2]
        nobody = np.zeros(3, dtype=bool)
        settings = InstructionSettings(next=2, targets=2, pairs=2)
        return by_kind(ranker(), kinds, windows, nobody, settings, 5, np.random.default_rng(0))

    plain, hinted = made(None), made(HINTS)
    for kind in ("next", "pair"):
        assert plain[kind] == hinted[kind]
        assert not any("similar taste" in LLM.text(each.prompt) for each in plain[kind])
    for kind in ("direct", "sequential", "rating"):
        assert [each.prompt.key for each in plain[kind]] == [each.prompt.key for each in hinted[kind]]
        for a, b in zip(plain[kind], hinted[kind], strict=True):
            assert "similar taste" not in LLM.text(a.prompt) and "similar taste" in LLM.text(b.prompt)
            assert a.choice_sets == b.choice_sets
    (first, _) = hinted["direct"]
    assert first.prompt.key == "direct-window-0-2"
    suggested = "A recommender system suggests, best first:\nGhost\nHeat\nClue\n"
    assert HISTORY + TOLD.split("A rec")[0] + suggested in LLM.text(first.prompt)

    chosen = [plain["rating"][1], plain["pair"][0], plain["direct"][1], plain["next"][0]]
    again = same_with_hints(chosen, hinted)
    assert again == [hinted["rating"][1], hinted["pair"][0], hinted["direct"][1], hinted["next"][0]]
