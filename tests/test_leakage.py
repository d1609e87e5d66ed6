"""A tuning prompt does not know its answer.

A user's window target is changed, item and rating; everything is fitted and built again; the user's history and hints
must come out byte for byte the same. The same check must fail on a builder that leaks: hints from a fit that saw the
windows.
"""

import dataclasses

import numpy as np
import pytest

from llama4rec_core import data, instructions, presets, stages
from llama4rec_core.data import load

LISTED = {"direct": "LightGCN", "sequential": "SASRec"}
EPOCHS = {"LightGCN": {"epochs": 3}, "SASRec": {"epochs": 2}, "DeepFM": {"epochs": 1}}


@pytest.fixture(scope="module")
def ratings():
    return data.subset_users(load("ml-100k"), 30, seed=1)


def last_window_item(dataset, user):
    """Where in the file the user's last training interaction stands."""
    rows = dataset.interactions[dataset.interactions["user"] == user].sort_values("time", kind="stable")
    return rows.index[-3]  # before validation and test


def changed(dataset, user):
    """The same ratings, but the user's last window item is another film with another rating."""
    frame = dataset.interactions.copy()
    row = last_window_item(dataset, user)
    taken = set(frame.loc[frame["user"] == user, "item"])
    frame.loc[row, "item"] = next(item for item in range(dataset.n_items) if item not in taken)
    frame.loc[row, "rating"] = 6 - frame.loc[row, "rating"]
    return dataclasses.replace(dataset, interactions=frame)


def window_prompts(dataset, user, llm, folder, monkeypatch):
    """Every prompt of the user's window cases, as it would be built for tuning, without what is asked about."""
    monkeypatch.setattr(stages, "load", lambda name, where: dataset)
    preset = presets.build(
        presets.Preset, {"name": "leak", "backbone_settings": EPOCHS, "instructions": {"window": 3}}, "test"
    )
    run = stages.Run(preset, folder)
    ready, out = stages.prepare(run), {}
    for task, name in {**LISTED, "rating": "DeepFM"}.items():
        known = stages.backbone(run, name, "hint", 0)
        known = known.only((known.cases["user"] == user).to_numpy())
        hints = stages.hint_source(run, known, "hint")
        if task == "rating":
            (key, _, prefix, rows), *_ = instructions.rating_groups(known.cases.assign(predicted=known.ratings))
            some, first = rows["item"].to_numpy()[:1], known.ratings[:1]  # the changed item is the last of three
            out[task] = [instructions.rating_prompt(llm, ready.told, key, user, prefix, some, 10, hints, first)]
        else:
            asked = instructions.lists(known.cases, known.items)
            out[task] = [instructions.ranking_prompt(llm, ready.told, each, 10, hints) for each in asked]
    return out


@pytest.mark.llm
@pytest.mark.data
def test_history_and_hints_do_not_depend_on_the_target(ratings, llm, tmp_path, monkeypatch):
    user = 4
    before = window_prompts(ratings, user, llm, tmp_path / "before", monkeypatch)
    after = window_prompts(changed(ratings, user), user, llm, tmp_path / "after", monkeypatch)
    assert before == after  # keys, tokens, candidates, hints
    assert (
        len(before["sequential"]) == 3 and len(before["direct"]) == 1
    )  # the last prefix holds the two earlier targets


@pytest.mark.llm
@pytest.mark.data
def test_the_same_check_fails_on_a_builder_that_leaks(ratings, llm, tmp_path, monkeypatch):
    user, real = 4, stages.cut_last

    def leaky(train, n_users, window):  # the hint backbone is fitted on the windows too
        return train, real(train, n_users, window)[1]

    monkeypatch.setattr(stages, "cut_last", leaky)
    before = window_prompts(ratings, user, llm, tmp_path / "before", monkeypatch)
    after = window_prompts(changed(ratings, user), user, llm, tmp_path / "after", monkeypatch)
    assert before != after


@pytest.mark.data
def test_nothing_is_asked_about_training_items_and_validation_items_are_not_avoided(ratings, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "load", lambda name, where: ratings)
    ready = stages.prepare(stages.Run(presets.build(presets.Preset, {"name": "leak"}, "test"), tmp_path))
    told, rng = ready.told, np.random.default_rng(0)
    held = ready.split.valid.set_index("user")["item"]
    drawn = {
        user: instructions.unseen(told, user, ratings.n_items, ratings.n_items, rng) for user in range(ratings.n_users)
    }
    for user, items in drawn.items():
        assert not set(items) & set(told.history(user, told.n_train[user], 10**9))
        assert held[user] in items and len(items) + told.n_train[user] == ratings.n_items


def opened(ratings, folder, monkeypatch):
    monkeypatch.setattr(stages, "load", lambda name, where: ratings)
    content = {
        "name": "leak",
        "backbone_settings": EPOCHS,
        "instructions": {"window": 3, "tokens": 10**6},
    }
    return stages.Run(presets.build(presets.Preset, content, "test"), folder)


def test_held_out_users_give_no_lessons(ratings, llm, tmp_path, monkeypatch):
    run = opened(ratings, tmp_path, monkeypatch)
    ready = stages.prepare(run)
    for kind in ("plain", "hints"):
        lessons = stages.lessons(run, llm, kind, 0)
        users = {int(part) for each in lessons for part in [each.prompt.key.split("-")[-2]]}
        assert len(lessons) > 20 and not any(ready.held_out[user] for user in users)
