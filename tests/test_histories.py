"""Histories by hand and by property: prefixes, N(u), written ratings; and what is drawn beside them."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4rec_core.backbones.fit import training_data
from llama4rec_core.data import FILMS, Histories, cases, histories, make_dataset, split, unseen

few = settings(max_examples=25)


@st.composite
def datasets(draw):
    """A few users with 3 to 9 interactions each, in any order."""
    lines = []
    for user in range(draw(st.integers(1, 5))):
        items = draw(st.lists(st.integers(0, 12), min_size=3, max_size=9, unique=True))
        lines += [(user, item, draw(st.integers(1, 5)), draw(st.integers(0, 9))) for item in items]
    frame = pd.DataFrame(draw(st.permutations(lines)), columns=["user", "item", "rating", "time"])
    titles = pd.DataFrame({"item": range(13)}).assign(title=lambda table: "title " + table["item"].astype(str))
    return make_dataset("made-up", frame, titles, scale=(1, 5))


def by_hand(sequences, n_train, n_before_window, titles="abcdefghij", ratings=None) -> Histories:
    items = np.concatenate(sequences)
    ratings = np.ones(len(items), np.float32) if ratings is None else np.array(ratings, np.float32)
    begin = np.cumsum([0, *map(len, sequences)])
    counts = np.array(n_train), np.array(n_before_window)
    return Histories(items, ratings, begin, *counts, tuple(titles), ("",) * len(titles), tuple("12345"), FILMS)


def test_history_is_the_end_of_a_prefix():
    known = by_hand([[0, 1, 2, 3], [4, 5, 6]], [2, 1], [1, 1], ratings=[1, 2.4, 2.6, 5, 4, 9, -3])
    assert known.history(0, 3, 2).tolist() == [1, 2]
    assert known.history(1, 2, 10).tolist() == [4, 5] and known.history(1, 0, 10).tolist() == []
    assert known.titles_of(0, 3, 2) == ["b", "c"]
    assert known.rated(0, 3, 2) == [(1, 1), (2, 2)]  # places on the scale, from 0
    assert known.rated(1, 3, 3) == [(4, 3), (5, 4), (6, 0)]  # the nearest that can be written
    assert known.rated(0, 0, 3) == [] and known.values.tolist() == [1, 2, 3, 4, 5]


def test_items_without_a_rating_stand_in_the_history_and_not_among_the_rated():
    none = np.nan
    known = by_hand([[0, 1, 2, 3], [4, 5]], [3, 1], [1, 1], ratings=[2, none, 5, 1, none, none])
    assert known.history(0, 3, 2).tolist() == [1, 2]
    assert known.rated(0, 3, 2) == [(0, 1), (2, 4)] and known.rated(0, 3, 1) == [(2, 4)]
    assert known.rated(0, 3, 0) == known.rated(1, 2, 2) == []


def test_of_ratings_beside_missing_ones_those_that_were_given_are_learnt_and_predicted():
    """All interactions are histories and targets of the other tasks."""
    plays = pd.DataFrame({"user": list("aaaaabbb"), "item": list("xyzvwxyz"), "time": [*range(5), *range(3)]})
    plays["rating"] = ["4", "", "2", "", " 5", "", "3", ""]
    items = pd.DataFrame({"item": list("vwxyz"), "title": list("vwxyz")})
    dataset = make_dataset("own", plays, items)
    assert dataset.scale == (2, 5) and dataset.interactions["rating"].isna().tolist() == [
        text.strip() == "" for text in plays["rating"]
    ]
    parts, window = split(dataset), np.array([1, 0])  # a: x y | z, v, w; b: x, y, z
    assert histories(dataset, parts, window, FILMS).scale == ("2", "3", "4", "5")
    assert cases(parts, "direct", window)["item"].tolist() == [4, 0, 3, 1, 4]
    asked = cases(parts, "rating", window)
    assert asked[["case", "part", "user", "item", "rating"]].to_numpy().tolist() == [
        [0, "window", 0, 4, 2], [1, "valid", 1, 3, 3], [2, "test", 0, 1, 5],
    ]  # fmt: skip
    assert training_data(dataset, parts.train, "rating").items.tolist() == [2, 4]
    assert training_data(dataset, parts.train, "direct").items.tolist() == [2, 3, 4, 2]
    unrated = make_dataset("own", plays.assign(rating=""), items)
    assert unrated.scale == (1, 1) and (unrated.interactions["rating"] == 1).all()


@few
@given(datasets(), st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_a_user_s_sequence_is_train_valid_test_and_n_of_u_counts_train(dataset, window):
    parts, window = split(dataset), np.array(window[: dataset.n_users])
    known = histories(dataset, parts, window, FILMS)
    assert known.begin[-1] == len(known.items) == len(known.ratings) == len(dataset.interactions)
    assert (known.items.dtype, known.ratings.dtype, known.begin.dtype) == (np.int64, np.float32, np.int64)
    assert (known.n_train.dtype, known.n_before_window.dtype) == (np.int64, np.int64)
    assert known.titles == tuple(dataset.items["title"]) and list(known.scale) == [
        f"{rating:g}" for rating in sorted(dataset.interactions["rating"].unique())
    ]  # fmt: skip
    for user in range(dataset.n_users):
        frames = [frame[frame["user"] == user] for frame in (parts.train, parts.valid, parts.test)]
        together = pd.concat(frames)
        assert known.history(user, len(together), 99).tolist() == together["item"].tolist()
        rated = known.rated(user, len(together), 99)
        assert [item for item, _ in rated] == together["item"].tolist()
        assert [known.scale[value] for _, value in rated] == [f"{rating:g}" for rating in together["rating"]]
        assert known.n_train[user] == len(frames[0])
        assert known.n_before_window[user] == max(1, len(frames[0]) - window[user])


@few
@given(
    datasets(),
    st.lists(st.integers(0, 4), min_size=5, max_size=5),
    st.sampled_from(["direct", "sequential", "rating"]),
)
def test_a_case_s_history_does_not_hold_its_target_or_what_comes_later(dataset, window, task):
    parts, window = split(dataset), np.array(window[: dataset.n_users])
    known = histories(dataset, parts, window, FILMS)
    for case in cases(parts, task, window).itertuples():
        length = known.begin[case.user + 1] - known.begin[case.user]
        history = known.history(case.user, case.prefix, 99).tolist()
        later = known.history(case.user, length, length - case.prefix).tolist()
        assert len(history) == case.prefix and case.item in later and not set(history) & set(later)


@few
@given(datasets(), st.integers(0, 9), st.integers(0, 3))
def test_unseen_items_are_different_and_not_of_training(dataset, count, seed):
    known = histories(dataset, split(dataset), 2, FILMS)
    for user in range(dataset.n_users):
        free = dataset.n_items - known.n_train[user]
        drawn = unseen(known, user, count, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) == len(drawn) == min(count, free)
        assert not set(drawn) & set(known.history(user, known.n_train[user], 99))
        everything = unseen(known, user, dataset.n_items, np.random.default_rng(seed))
        held_out = known.items[known.begin[user] + known.n_train[user] : known.begin[user + 1]]
        assert set(held_out) <= set(everything)  # never steered around validation or test


def test_unseen_draws_are_what_they_always_were():
    known = by_hand([[0, 1, 2, 3, 7, 4], [5, 6, 6]], [5, 3], [3, 1])
    assert unseen(known, 0, 3, np.random.default_rng(0)).tolist() == [8, 9, 6]
