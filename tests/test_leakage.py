"""A tuning prompt does not know its answer.

The last item of a user's window is changed, or its rating; the out-of-fold backbones are fitted and all prompts are
built again. What the trunk reads, and history and hints of the further examples, must come out byte for byte the same.
The same checks must fail on builders that leak: a trunk that reads the windows, out-of-fold backbones that saw them,
similar users quoted with them.
"""

import dataclasses
import re

import numpy as np
import pytest
from standins import Characters

from llama4rec_core import data, presets
from llama4rec_core.aggregation import most_similar_user
from llama4rec_core.backbones.fit import fit, training_data
from llama4rec_core.backbones.predict import predict_cases
from llama4rec_core.data.prepared import prepare
from llama4rec_core.llm.examples import by_kind, candidate_lists, next_examples, rating_groups, rating_prompt, trunk
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.titles import Titles
from llama4rec_core.presets import TrunkSettings
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import rng

EPOCHS = {"LightGCN": {"epochs": 3}, "SASRec": {"epochs": 2}, "DeepFM": {"epochs": 1}}
BACKBONES = {"direct": "LightGCN", "sequential": "SASRec", "rating": "DeepFM"}
USER = 14  # has a window
WINDOW, VALID, TEST = -16, -15, -10  # places in a user's sequence: the window's last item, the first of each later part
PRESET = presets.build({"name": "leak"})
LLM = Characters()

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def ratings():
    return data.subset_users(data.load("ml-100k"), 30, seed=1)


def changed(dataset, place=WINDOW, columns=("item", "rating")):
    """The same ratings, but at one place the user has another film, or gave another rating."""
    frame = dataset.interactions.copy()
    rows = frame[frame["user"] == USER].sort_values("time", kind="stable")
    row = rows.index[place]
    if "item" in columns:
        frame.loc[row, "item"] = next(item for item in range(dataset.n_items) if item not in set(rows["item"]))
    if "rating" in columns:
        frame.loc[row, "rating"] = 1 + frame.loc[row, "rating"] % 5
    return dataclasses.replace(dataset, interactions=frame)


# --- the trunk --------------------------------------------------------------------------------------------------------


def read_by_the_trunk(dataset, leaky=False):
    """All that the trunk reads, and all that it learns; `leaky`: of whole training sequences."""
    histories = prepare(dataset, PRESET).histories
    if leaky:
        histories = dataclasses.replace(histories, n_before_window=histories.n_train)
    titles = Titles.told_apart(LLM, histories.titles)
    settings = TrunkSettings(tokens=100_000, history=20, rated=0.5)
    read = trunk(LLM, histories, titles, settings, rng("trunk", 0))
    assert all(each.prompt.learn and each.prompt.branches == each.choice_sets == () for each in read)
    return [(each.prompt.key, each.prompt.prefix, repr(each.prompt.learn)) for each in read]


@pytest.mark.parametrize("place", [WINDOW, VALID, TEST])
@pytest.mark.parametrize("column", ["item", "rating"])
def test_the_trunk_reads_and_learns_nothing_of_windows_validation_or_test(ratings, place, column):
    assert read_by_the_trunk(changed(ratings, place, [column])) == read_by_the_trunk(ratings)


@pytest.mark.parametrize("column", ["item", "rating"])
def test_the_same_check_fails_on_a_trunk_that_reads_the_windows(ratings, column):
    assert read_by_the_trunk(changed(ratings, WINDOW, [column]), leaky=True) != read_by_the_trunk(ratings, leaky=True)


# --- the further examples ---------------------------------------------------------------------------------------------


def out_of_fold(ready, task, backbone, leaky=False):
    """As notebook 02 fits it; `leaky`: on the windows too."""
    n_users, train = ready.dataset.n_users, ready.split.train
    before, valid = data.cut_last(train if leaky else data.cut_last(train, ready.window)[0], 1)
    known = training_data(ready.dataset, train if leaky else before, task)
    asked = data.cases(ready.split, task, ready.window).query("part == 'window'").reset_index(drop=True)
    counts = np.ones(n_users, dtype=int)
    return predict_cases(
        fit(backbone, known, valid, 0, EPOCHS[backbone]), asked, ready.histories, counts, 10, known.histories
    )


def predictions_of(dataset, leaky=False):
    ready = prepare(dataset, PRESET)
    return ready, {task: out_of_fold(ready, task, name, leaky) for task, name in BACKBONES.items()}


@pytest.fixture(scope="module")
def fitted(ratings):
    """Before and after the change."""
    return predictions_of(ratings), predictions_of(changed(ratings))


def ranker(ready):
    return Ranker.of(PRESET, LLM, ready.histories, tuned=True)


def window_prompts(ready, predictions):
    """Every prompt of the user's window cases as text, without the changed item's own branch."""
    out, histories = {}, ready.histories
    for task, known in predictions.items():
        hints = hints_of(ready, known)
        known = known.only((known.cases["user"] == USER).to_numpy())
        if task == "rating":
            ((key, rows),) = rating_groups(known.cases, known.ratings)
            prompt = rating_prompt(LLM, histories, ranker(ready).titles, key, rows, 10, hints)
            out[task] = [(key, LLM.text(prompt), LLM.branches(prompt)[:-1])]  # the changed item is the last
            out["predicted"] = known.ratings[:-1].tolist()  # unrounded
        else:
            lists = candidate_lists(known.cases, known.items)
            prompts = [ranker(ready).prompt(each, hints) for each in lists]
            out[task] = [(prompt.key, LLM.text(prompt), LLM.branches(prompt)) for prompt in prompts]
    ranking = [(known, hints_of(ready, known)) for task, known in predictions.items() if task != "rating"]
    pieces = [each.prompt for each in next_examples(ranker(ready), ranking)]
    pieces = [prompt for prompt in pieces if prompt.key.startswith(f"next-{USER}-")]
    end = ranker(ready).titles.quoted(int(histories.history(USER, histories.n_train[USER], 1)[0]))
    out["next"] = [LLM.text(prompt).removesuffix(LLM.decode(end)) for prompt in pieces]  # without the changed item
    return out


def hints_of(ready, known):
    return Hints(most_similar_user(known.embeddings), ready.histories.n_before_window, 8)


def test_history_and_hints_do_not_depend_on_the_target(fitted):
    before, after = (window_prompts(*each) for each in fitted)
    assert before == after  # keys, texts, candidates, hints
    count = fitted[0][0].window[USER]
    assert len(before["sequential"]) == count > 1 and len(before["direct"]) == 1
    prompts = [*before["direct"], *before["sequential"], *before["rating"]]
    assert all("similar taste" in text for text in [*(text for _, text, _ in prompts), *before["next"]])
    assert len(before["next"]) == -(-count // 20)
    assert len(before["rating"][0][2]) == count - 1 and "predicts" in before["rating"][0][2][0]


def test_the_same_check_fails_on_out_of_fold_backbones_that_saw_the_windows(ratings):
    before, after = (window_prompts(*predictions_of(dataset, leaky=True)) for dataset in (ratings, changed(ratings)))
    assert all(before[what] != after[what] for what in ("direct", "sequential", "predicted", "next"))


def kinds_of(ready, predictions, quoted=None):
    """All further examples; quoted: with hints, and up to where the similar user is quoted."""
    windows = data.cases(ready.split, "sequential", ready.window).query("part == 'window'")
    writers = {
        task: (known, None if quoted is None else Hints(most_similar_user(known.embeddings), quoted, 8))
        for task, known in predictions.items()
    }
    return by_kind(ranker(ready), writers, windows, 10, rng("examples", 0))


def test_the_users_with_a_window_give_all_examples(fitted):
    ready, predictions = fitted[0]
    for quoted in (None, ready.histories.n_before_window):
        kinds = kinds_of(ready, predictions, quoted)
        at = {"direct": 2, "sequential": 2, "next": 1, "rating": 1, "pair": 1}  # where the key says the user
        users = [int(each.prompt.key.split("-")[at[kind]]) for kind, found in kinds.items() for each in found]
        assert set(users) == set(np.flatnonzero(ready.window)) and len(set(users)) == 10
        assert all(kinds.values())


def test_no_hint_quotes_a_window_but_one_that_quotes_all_of_training_does(fitted):
    """Of every example but pairs: what stands under the similar user is what that user had before the window."""
    ready, predictions = fitted[0]
    histories, names = ready.histories, ranker(ready).titles.names
    similar = {task: most_similar_user(known.embeddings) for task, known in predictions.items()}
    for quoted, leaks in ((histories.n_before_window, False), (histories.n_train, True)):
        found = []
        for task, examples in kinds_of(ready, predictions, quoted).items():
            for each in examples if task != "pair" else ():
                user = int(each.prompt.key.split("-")[1 if task in ("rating", "next") else 2])
                piece = (int(each.prompt.key.split("-")[2]) - int(histories.n_before_window[user])) // 20
                turn = list(predictions)[piece % 2] if task == "next" else task  # the ranking tasks take turns
                other = similar[turn][user]
                begin = re.split("\nA recommender|\nRatings from", LLM.text(each.prompt))[0]
                first, *lines = begin.splitlines()
                assert "similar taste" in first and lines
                window = histories.history(other, histories.n_train[other], ready.window[other])
                told = {LLM.decode(names[item]).strip() for item in window}
                found.append(any(line in told or line[:-3] in told for line in lines))
        assert any(found) == leaks


def test_nothing_is_asked_about_training_items_and_validation_items_are_not_avoided(ratings):
    ready = prepare(ratings, PRESET)
    histories, draws = ready.histories, np.random.default_rng(0)
    held = ready.split.valid.groupby("user")["item"].agg(set)
    for user in range(ratings.n_users):
        items = data.unseen(histories, user, ratings.n_items, draws)
        assert not set(items) & set(histories.history(user, histories.n_train[user], 10**9))
        assert held[user] < set(items) and len(items) + histories.n_train[user] == ratings.n_items
