"""Baselines without gradient steps, by hand, and scripts/second_opinion.py on a small run: what they say about a
backbone's lists and ratings, in the files that an LLM's answers would be in."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import N_TRAIN, SEED, SEQUENCES, open_run, predicted, rating_of, script

from llama4rec_core.backbones.baselines import cosines, held
from llama4rec_core.backbones.fit import TrainingData, fit, training_data
from llama4rec_core.backbones.predict import read_predictions
from llama4rec_core.data.dataset import write_dataset
from llama4rec_core.experiment import Lists, Ratings
from llama4rec_core.files import read_json
from llama4rec_core.llm import cost
from llama4rec_core.run import draw_users, rng


def training(*sequences, n_items: int) -> TrainingData:
    users = np.repeat(np.arange(len(sequences)), list(map(len, sequences)))
    return TrainingData(len(sequences), n_items, users, np.concatenate(sequences), np.ones(len(users)))


# Items 0, 1, 2 and 3 have 3, 2, 2 and no users; 0 and 1 share two, 0 and 2 one, 1 and 2 one. Item 1 is twice user 0's.
FOUR = training([0, 1, 1], [2, 0, 1], [0], [2], n_items=4)
C01, C02, C12 = 2 / np.sqrt(3 * 2), 1 / np.sqrt(3 * 2), 1 / 2


def test_an_item_that_is_twice_in_a_history_is_held_once():
    assert held([np.array([2, 0, 2]), np.array([])], 3).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_cosines_by_hand():
    expected = [[0, C01, C02, 0], [C01, 0, C12, 0], [C02, C12, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(cosines(held(FOUR.histories, 4)), expected, rtol=1e-6)


def test_item_neighbours_of_all_training_items_or_of_the_history_that_is_handed_in():
    fitted = fit("ItemKNN", FOUR, None, 0)
    np.testing.assert_allclose(
        fitted.scores([0, 3]), [[C01, C01, C02 + C12, 0], [C02, C12, 0, 0]], rtol=1e-6
    )  # users 0 and 3 have items 0 and 1, and item 2
    np.testing.assert_allclose(fitted.scores([0], [np.array([0])]), [[0, C01, C02, 0]], rtol=1e-6)


def test_recent_item_neighbours_are_those_of_the_last_five():
    rng = np.random.default_rng(0)
    data = training(*(rng.permutation(12)[:6] for _ in range(20)), n_items=12)
    fitted, cosine = fit("RecentItemKNN", data, None, 0), cosines(held(data.histories, 12)).numpy()
    long, other, short = (np.array(items) for items in ([0, 1, 2, 3, 4, 5, 6], [7, 8, 2, 3, 4, 5, 6], [9, 4]))
    found = fitted.scores([0, 0, 0], [long, other, short])
    np.testing.assert_allclose(found, [cosine[long[2:]].sum(0), cosine[long[2:]].sum(0), cosine[short].sum(0)], 1e-5)
    fewer = fit("RecentItemKNN", data, None, 0, {"recent": 2}).scores([0], [long])
    np.testing.assert_allclose(fewer, [cosine[[5, 6]].sum(0)], 1e-5)
    with pytest.raises(ValueError, match="RecentItemKNN reads histories: pass one array of items"):
        fitted.scores([0])


def test_ease_by_hand():
    """Items 0 and 1 have three users and one, who is shared. With ridge 1, G = [[4, 1], [1, 2]] and P = [[2, -1],
    [-1, 4]] / 7. So item 1 follows from item 0 with weight 1 / 4, and item 0 from item 1 with 1 / 2."""
    fitted = fit("EASE", training([0, 1], [0], [0], n_items=2), None, 0, {"ridge": 1})
    histories = [np.array([0]), np.array([1]), np.array([0, 1])]
    np.testing.assert_allclose(fitted.scores([0, 0, 0], histories), [[0, 1 / 4], [1 / 2, 0], [1 / 2, 1 / 4]], rtol=1e-6)
    np.testing.assert_allclose(fitted.scores([1, 0]), [[0, 1 / 4], [1 / 2, 1 / 4]], rtol=1e-6)  # what they trained on


@settings(max_examples=40)
@given(st.integers(2, 8), st.integers(2, 30), st.floats(0.5, 300), st.integers(0, 2**31))
def test_ease_is_the_ridge_regression_of_each_item_on_the_others(n_items, n_users, ridge, seed):
    x = np.random.default_rng(seed).random((n_users, n_items)) < 0.5
    x[0] = True  # so that there is something to train on
    data = training(*(np.flatnonzero(row) for row in x), n_items=n_items)
    one_each = [np.array([item]) for item in range(n_items)]
    weights = fit("EASE", data, None, 0, {"ridge": ridge}).scores([0] * n_items, one_each)
    for item in range(n_items):
        others = np.delete(x, item, axis=1).astype(float)
        gram = others.T @ others + ridge * np.eye(n_items - 1)
        expected = np.insert(np.linalg.solve(gram, others.T @ x[:, item]), item, 0)
        np.testing.assert_allclose(weights[:, item], expected, rtol=1e-4, atol=1e-6)


# --- second opinions, in files ----------------------------------------------------------------------------------------


@pytest.fixture
def say(results, tmp_path, monkeypatch):
    """The run, what is prepared of it, and say(backbone, fit, opinion): the file that the script writes."""
    run, ready = open_run(tmp_path)
    main = script("second_opinion").main

    def said(backbone, fit, opinion):
        words = ["second_opinion.py", tmp_path / "small.yaml", backbone, fit, opinion, SEED]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        main()
        return pd.read_parquet(run.path(f"scores/{backbone}-{fit}-{opinion}-s{SEED}.parquet"))

    said.run, said.ready = run, ready
    return said


def cosine_by_sets(first: int, second: int) -> float:
    """Of two items' sets of users in training."""
    users = [{u for u in range(8) if item in SEQUENCES[u][: N_TRAIN[u]]} for item in (first, second)]
    return len(users[0] & users[1]) / np.sqrt(max(1, len(users[0]) * len(users[1])))


@pytest.mark.parametrize("backbone", ["LightGCN", "SASRec"])
@pytest.mark.parametrize("opinion", ["ItemKNN", "RecentItemKNN"])
@pytest.mark.parametrize("fit", ["base", "augmented"])
def test_neighbours_score_the_lists_that_hold_their_target_by_the_true_history(say, backbone, opinion, fit):
    found = say(backbone, fit, opinion)
    known = read_predictions(say.run.path(f"backbones/{backbone}-s{SEED}/{fit}"))
    lists = Lists.of(known, found, "positions")
    holds = (known.items == known.cases["item"].to_numpy()[:, None]).any(axis=1)
    assert lists.asked.tolist() == holds.tolist() and 0 < holds.sum() < len(holds)
    expected = []
    for row, items in zip(known.cases[holds].itertuples(), known.items[holds], strict=True):
        read = set(SEQUENCES[row.user][max(0, row.prefix - (5 if opinion == "RecentItemKNN" else 99)) : row.prefix])
        assert row.prefix == N_TRAIN[row.user] + (backbone == "SASRec" and row.part == "test")
        expected.append([sum(cosine_by_sets(item, other) for other in read - {item}) for item in items])
    np.testing.assert_allclose(lists.opinion, expected, rtol=1e-5, atol=1e-7)
    assert (found["log_p"] == found["utility"]).all() and found["item"].dtype == np.int64
    assert not found.duplicated(["key", "item"]).any()


@pytest.mark.parametrize("opinion", ["Popularity", "EASE"])
def test_other_opinions_are_the_fitted_baseline_s_scores(say, opinion):
    found = say("SASRec", "base", opinion)
    baseline = fit(opinion, training_data(say.ready.dataset, say.ready.split.train, "direct"), None, 0)
    for row in found.itertuples():
        _, user, prefix = row.key.split("-")
        score = baseline.scores([int(user)], [np.array(SEQUENCES[int(user)][: int(prefix)])])[0, row.item]
        assert row.utility == pytest.approx(score, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("opinion", ["Popularity", "ItemKNN", "EASE", "RecentItemKNN"])
def test_no_validation_or_test_item_shows_in_an_opinion(say, opinion):
    before = say("LightGCN", "base", opinion)
    frame = say.ready.dataset.interactions.copy()
    later = frame.groupby("user").cumcount(ascending=False) < 2
    new = {user: [i for i in range(16) if i not in items] for user, items in enumerate(SEQUENCES)}
    frame.loc[later, "item"] = np.array([new[user].pop() for user in frame["user"][later]], dtype=np.int32)
    write_dataset(replace(say.ready.dataset, interactions=frame), say.run.path("data"))
    pd.testing.assert_frame_equal(say("LightGCN", "base", opinion), before)


def test_bias_rates_the_users_that_the_llm_is_asked_about(say):
    found = say("DeepFM", "augmented", "Bias")
    assert list(found) == ["part", "user", "item", "rating", "backbone", "expected", "likeliest"]
    users = draw_users(3, 8, rng("measured users"))
    cases = {(part, u, SEQUENCES[u][N_TRAIN[u] + n]) for u in users for n, part in enumerate(("valid", "test"))}
    assert set(found[["part", "user", "item"]].itertuples(index=False, name=None)) == cases and len(found) == len(cases)
    baseline = fit("Bias", training_data(say.ready.dataset, say.ready.split.train, "rating"), None, 0)
    expected = baseline.rate(found["user"], found["item"]).clip(1, 5)
    np.testing.assert_allclose(found["expected"], expected, rtol=1e-6)
    assert found["likeliest"].tolist() == np.round(expected).tolist()
    for row in found.itertuples():
        assert row.backbone == pytest.approx(min(predicted(row.user, row.item, "augmented"), 5), abs=1e-5)
        assert row.rating == rating_of(row.user, SEQUENCES[row.user].index(row.item))
    np.testing.assert_allclose(Ratings.of(found, "expected", (1, 5)).predicted(1.0), expected, rtol=1e-6)


def test_an_opinion_costs_no_tokens(say):
    say("LightGCN", "base", "ItemKNN")
    spent = {"neighbours": read_json(say.run.path(f"scores/LightGCN-base-ItemKNN-s{SEED}.json"))}
    table = cost.table(spent, {"body": 1, "head": 1}, 1.0, 0.1, 0.4)
    assert (table[["prompts", "tokens_read", "tokens_written", "seconds", "dollars"]] == 0).all(axis=None)


@pytest.mark.parametrize(("backbone", "opinion"), [("DeepFM", "EASE"), ("SASRec", "Bias")])
def test_ratings_and_lists_are_not_mixed_up(say, backbone, opinion, capsys):
    with pytest.raises(SystemExit):
        say(backbone, "base", opinion)
    assert f"{opinion} has no opinion about {backbone}'s" in capsys.readouterr().err
