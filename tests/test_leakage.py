"""A tuning prompt does not know its answer.

A user's window target is changed, item and rating; the out-of-fold backbones are fitted and all prompts are built
again; the user's history and hints must come out byte for byte the same. The same check must fail on a builder that
leaks: out-of-fold backbones that saw the windows, or similar users quoted with their windows.
"""

import dataclasses

import numpy as np
import pytest
from standins import Characters

from llama4rec_core import data, presets
from llama4rec_core.aggregation import most_similar_user
from llama4rec_core.backbones.fit import fit, training_data
from llama4rec_core.backbones.predict import predict_cases
from llama4rec_core.data.prepared import prepare
from llama4rec_core.llm.examples import by_kind, candidate_lists, rating_groups, rating_prompt
from llama4rec_core.llm.hints import Hints
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import rng

EPOCHS = {"LightGCN": {"epochs": 3}, "SASRec": {"epochs": 2}, "DeepFM": {"epochs": 1}}
WINDOW, USER = 3, 4
PRESET = presets.build({"name": "leak", "instructions": {"window": WINDOW, "tokens": 10**6}})
LLM = Characters()

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def ratings():
    return data.subset_users(data.load("ml-100k"), 30, seed=1)


def changed(dataset):
    """The same ratings, but the user's last window item is another film with another rating."""
    frame = dataset.interactions.copy()
    rows = frame[frame["user"] == USER].sort_values("time", kind="stable")
    row = rows.index[-3]  # before validation and test
    frame.loc[row, "item"] = next(item for item in range(dataset.n_items) if item not in set(rows["item"]))
    frame.loc[row, "rating"] = 6 - frame.loc[row, "rating"]
    return dataclasses.replace(dataset, interactions=frame)


def out_of_fold(ready, task, backbone, leaky=False):
    """As notebook 02 fits it; `leaky`: on the windows too."""
    n_users, train = ready.dataset.n_users, ready.split.train
    before, valid = data.cut_last(train if leaky else data.cut_last(train, n_users, WINDOW)[0], n_users, 1)
    train = train if leaky else before
    known = training_data(ready.dataset, train, task)
    asked = data.cases(ready.split, task, WINDOW).query("part == 'window'").reset_index(drop=True)
    counts = np.ones(n_users, dtype=int)
    return predict_cases(
        fit(backbone, known, valid, 0, EPOCHS[backbone]), asked, ready.histories, counts, 10, known.histories
    )


def predictions_of(dataset, leaky=False):
    ready = prepare(dataset, PRESET)
    tasks = {"direct": "LightGCN", "sequential": "SASRec", "rating": "DeepFM"}
    return ready, {task: out_of_fold(ready, task, name, leaky) for task, name in tasks.items()}


@pytest.fixture(scope="module")
def fitted(ratings):
    """Before and after the change."""
    return predictions_of(ratings), predictions_of(changed(ratings))


def ranker(ready):
    return Ranker("likelihood", LLM, ready.histories, 10, None, np.zeros(ready.dataset.n_items, np.float32), 512)


def window_prompts(ready, predictions, quoted=None):
    """Every prompt of the user's window cases as text, without the changed item's own branch."""
    out, histories = {}, ready.histories
    quoted = histories.n_before_window if quoted is None else quoted(histories)
    for task, known in predictions.items():
        hints = Hints(most_similar_user(known.embeddings), quoted, 8)
        known = known.only((known.cases["user"] == USER).to_numpy())
        if task == "rating":
            ((key, rows),) = rating_groups(known.cases, known.ratings)
            prompt = rating_prompt(LLM, histories, key, rows, 10, hints)
            out[task] = [(key, LLM.text(prompt), LLM.branches(prompt)[:-1])]  # the changed item is the last of three
            out["predicted"] = known.ratings[:-1].tolist()  # unrounded
        else:
            lists = candidate_lists(known.cases, known.items)
            prompts = [ranker(ready).prompt(each, hints) for each in lists]
            out[task] = [(prompt.key, LLM.text(prompt), LLM.branches(prompt)) for prompt in prompts]
    return out


def test_history_and_hints_do_not_depend_on_the_target(fitted):
    before, after = (window_prompts(*each) for each in fitted)
    assert before == after  # keys, texts, candidates, hints
    assert len(before["sequential"]) == 3 and len(before["direct"]) == 1
    prompts = [*before["direct"], *before["sequential"], *before["rating"]]
    assert all("similar taste" in text for _, text, _ in prompts)
    assert len(before["rating"][0][2]) == 2 and "predicts" in before["rating"][0][2][0]


def test_the_same_check_fails_on_out_of_fold_backbones_that_saw_the_windows(ratings):
    before, after = (window_prompts(*predictions_of(dataset, leaky=True)) for dataset in (ratings, changed(ratings)))
    assert all(before[what] != after[what] for what in ("direct", "sequential", "predicted"))


def test_no_other_user_s_hint_quotes_the_changed_item_but_one_with_windows_does(fitted):
    """The user may be another one's similar user: what is quoted of it ends before its window."""
    ready, predictions = fitted[0]
    similar = np.full(ready.dataset.n_users, USER)
    target = ready.histories.titles[ready.histories.history(USER, ready.n_train[USER], 1)[0]]
    candidates, other = predictions["direct"].items[0], (USER + 1) % ready.dataset.n_users
    for quoted, leaks in ((ready.histories.n_before_window, False), (ready.n_train, True)):
        hints = Hints(similar, quoted, 8)
        assert (target in hints.ranking(ready.histories, other, candidates).similar) == leaks
        assert (target in dict(hints.rating(ready.histories, other))) == leaks


def test_nothing_is_asked_about_training_items_and_validation_items_are_not_avoided(ratings):
    ready = prepare(ratings, PRESET)
    histories, draws = ready.histories, np.random.default_rng(0)
    held = ready.split.valid.set_index("user")["item"]
    for user in range(ratings.n_users):
        items = data.unseen(histories, user, ratings.n_items, draws)
        assert not set(items) & set(histories.history(user, histories.n_train[user], 10**9))
        assert held[user] in items and len(items) + histories.n_train[user] == ratings.n_items


def test_held_out_users_give_no_examples(fitted):
    ready, predictions = fitted[0]
    windows = data.cases(ready.split, "sequential", WINDOW).query("part == 'window'")
    assert ready.held_out.sum() == 6
    for hinted in (False, True):
        writers = {
            task: (
                known,
                Hints(most_similar_user(known.embeddings), ready.histories.n_before_window, 8) if hinted else None,
            )
            for task, known in predictions.items()
        }
        kinds = by_kind(ranker(ready), writers, windows, ready.held_out, PRESET.instructions, 10, rng("examples", 0))
        users = [int(each.prompt.key.split("-")[-2]) for examples in kinds.values() for each in examples]
        assert set(users) == set(np.flatnonzero(~ready.held_out)) and len(kinds["direct"]) > 1
