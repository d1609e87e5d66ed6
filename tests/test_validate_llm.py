"""What an LLM is worth beside a backbone, on lists by hand."""

import sys

import numpy as np
import pandas as pd
import pytest
from standins import script

from llama4rec_core.backbones.predict import Predictions

USERS = 40
N_TRAIN = np.arange(5, 5 + USERS)


def known_lists() -> Predictions:
    """A list of four for each user. The target stands third, and in the last user's list nowhere."""
    cases = pd.DataFrame({"part": "valid", "user": range(USERS), "item": 2, "prefix": 3})
    cases.loc[USERS - 1, "item"] = 9
    items = np.tile([0, 1, 2, 3], (USERS, 1))
    return Predictions(cases, items, np.tile([4.0, 3.0, 2.0, 1.0], (USERS, 1)), None, np.zeros((USERS, 2)))


def said(utility_of_target) -> pd.DataFrame:
    """What the LLM gives the candidates: the target its own, the others less and less."""
    rows = [
        (f"valid-{user}-3", item, utility_of_target if item == 2 else -float(item))
        for user in range(USERS)
        for item in range(4)
    ]
    return pd.DataFrame(rows, columns=["key", "item", "utility"])


def test_an_llm_that_knows_gains_what_there_is_to_gain_and_a_list_without_its_target_does_not_count():
    found = script("validate_llm").worth(known_lists(), said(5.0), "standardised", N_TRAIN)
    assert found["lists"] == found["users"] == USERS - 1
    assert found["alone"] == found["alone_ci_low"] == found["alone_ci_high"] == 1 and found[
        "backbone_alone"
    ] == pytest.approx(1 / np.log2(4))  # first, third
    assert found["diff"] == pytest.approx(1 - 1 / np.log2(4)) and found["alpha_1"] > 0
    assert found["nats"] == pytest.approx(np.log(4), rel=1e-3)  # from chance to certain
    assert found["nats_se"] == pytest.approx(0, abs=1e-9)


def test_every_user_weighs_the_same_however_many_lists_they_have():
    known, scores = known_lists(), said(5.0)
    more = [known.cases.iloc[[0]].assign(prefix=prefix) for prefix in (4, 5)]  # of user 0, where the LLM is wrong
    rows = [0, 0, *range(USERS)]
    known = Predictions(
        pd.concat([*more, known.cases], ignore_index=True),
        known.items[rows],
        known.scores[rows],
        None,
        known.embeddings,
    )
    wrong = [
        scores[scores["key"] == "valid-0-3"].assign(key=f"valid-0-{n}", utility=[3.0, 2.0, -9.0, 1.0]) for n in (4, 5)
    ]
    found = script("validate_llm").worth(known, pd.concat([scores, *wrong]), "standardised", N_TRAIN)
    assert found["users"] == USERS - 1 and found["lists"] == USERS + 1
    of_user_0 = (1 + 2 / np.log2(5)) / 3  # first once, fourth twice
    assert found["alone"] == pytest.approx((USERS - 2 + of_user_0) / (USERS - 1))


def test_an_llm_that_says_what_the_backbone_says_gains_nothing():
    found = script("validate_llm").worth(known_lists(), said(-2.0), "standardised", N_TRAIN)
    assert found["alpha_1"] == found["nats"] == found["diff"] == 0


def test_a_backbone_that_ranks_nothing_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["validate_llm.py", "quick", "trunk", "DeepFM", "0"])
    with pytest.raises(SystemExit):
        script("validate_llm").main()
    assert "DeepFM predicts ratings" in capsys.readouterr().err


def test_lines_of_several_runs_stand_in_one_file_each_once_and_sorted(tmp_path):
    add, file = script("validate_llm").add, tmp_path / "lines.csv"

    def line(preset, seed, llm=0.5):
        return pd.DataFrame([{"preset": preset, "opinion": "trunk", "backbone": "MF", "seed": seed, "llm": llm}])

    for each in (line("b", 10), line("b", 2), line("a", 3), line("b", 2, 0.12345678)):
        add(each, file)
    told = file.read_text().splitlines()
    assert told == [
        "preset,opinion,backbone,seed,llm", "a,trunk,MF,3,0.5", "b,trunk,MF,2,0.123457", "b,trunk,MF,10,0.5",
    ]  # fmt: skip
