"""A Dataset: exact times, its hash, its row of Table 1, some of its users, and files that give it back."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama4rec_core.data import Dataset, make_dataset, read_dataset, subset_users, table_1, write_dataset


@pytest.fixture
def dataset() -> Dataset:
    """Two users, four items."""
    frame = pd.DataFrame(
        [(10, 2, 3, 100), (9, 2, 4, 90), (10, 1, 5, 80), (9, 1412, 1, 70), (10, 267, 2, 60)],
        columns=["user", "item", "rating", "time"],
    )
    items = pd.DataFrame({"item": [1, 2, 267, 1412], "title": ["Il Postino", "Les Misérables", "unknown", "Land"]})
    return make_dataset("made-up", frame, items, pd.DataFrame({"user": [9, 10], "age": [29, None]}), (1, 5))


def test_times_beyond_the_float_range_stay_exact():
    time = 2**53 + 1
    frame = pd.DataFrame({"user": ["u"], "item": ["i"], "rating": ["1"], "time": [str(time)]})
    dataset = make_dataset("x", frame, pd.DataFrame({"item": ["i"], "title": ["t"]}))
    assert dataset.interactions["time"].tolist() == [time]


def test_content_hash_is_over_the_lines():
    text = b"196\t242\t3\t881250949\n7\tx\t3.5\t0\n"
    frame = pd.DataFrame({"user": ["196", "7"], "item": ["242", "x"], "rating": [3.0, 3.5], "time": [881250949, 0]})
    dataset = make_dataset("made-up", frame, pd.DataFrame({"item": ["x", "242"], "title": ["one", "other"]}))
    assert dataset.sha256 == hashlib.sha256(text).hexdigest()


def test_subset_keeps_all_items_and_whole_histories(dataset):
    for seed in range(4):
        small = subset_users(dataset, 1, seed)
        assert small.n_users == 1 and small.n_items == dataset.n_items
        old = dataset.users["user_id"].tolist().index(small.users["user_id"].iloc[0])
        rows = dataset.interactions[dataset.interactions["user"] == old].drop(columns="user").reset_index(drop=True)
        pd.testing.assert_frame_equal(small.interactions.drop(columns="user"), rows)
        assert set(small.interactions["user"]) == {0} and small.interactions["user"].dtype == np.int32
        assert small.sha256 != dataset.sha256
    assert subset_users(dataset, 2, seed=0).sha256 == dataset.sha256  # all users: nothing changes
    with pytest.raises(ValueError, match="n = 3 users"):
        subset_users(dataset, 3, 0)


def test_table_1_by_hand(dataset):
    row = table_1(dataset).iloc[0]
    assert row[["users", "items", "interactions", "min_per_user", "max_per_user"]].tolist() == [2, 4, 5, 2, 3]
    assert (row["density"], row["mean_per_user"], row["scale"]) == (5 / 8, 2.5, "1-5")


def assert_equal(one: Dataset, other: Dataset) -> None:
    """In every value and type."""
    for table in ("interactions", "users", "items"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table), check_column_type=True)
    assert (one.name, one.scale, one.source, one.sha256) == (other.name, other.scale, other.source, other.sha256)
    assert [type(value) for value in one.scale] == [type(value) for value in other.scale]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text("abcé |,\"'\n0", min_size=1, max_size=5).filter(lambda name: name.strip() == name)


@st.composite
def datasets(draw) -> Dataset:
    """Any ids, titles, features, ratings and times; features may be missing, or have any name."""
    pairs = draw(st.lists(st.tuples(names, names), min_size=1, max_size=8, unique=True))
    rating = st.floats(-10, 10, width=32)
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    frame["rating"] = draw(st.lists(rating, min_size=len(pairs), max_size=len(pairs)))
    frame["time"] = draw(st.lists(st.integers(-(2**62), 2**62), min_size=len(pairs), max_size=len(pairs)))
    ids = sorted({item for _, item in pairs})
    items = pd.DataFrame({"item": ids, "title": [draw(text.filter(str.strip)) for _ in ids]})
    feature = draw(names.filter(lambda name: name not in ("item", "title")))
    items[feature] = pd.Series([draw(st.none() | text) for _ in ids], dtype="str")
    users = pd.DataFrame({"user": [pairs[0][0]], "age": [draw(text)]}) if draw(st.booleans()) else None
    return make_dataset(draw(text), frame, items, users)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datasets())
def test_written_dataset_is_read_as_it_was(tmp_path, dataset):
    write_dataset(dataset, tmp_path / "data")
    assert_equal(read_dataset(tmp_path / "data"), dataset)


def test_written_files_say_what_they_hold(dataset, tmp_path):
    for written in (dataset, subset_users(dataset, 1, seed=0)):  # the second in place of the first
        write_dataset(written, tmp_path)
        assert_equal(read_dataset(tmp_path), written)
    write_dataset(dataset, tmp_path)
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "name": "made-up", "scale": [1.0, 5.0], "source": "own", "sha256": dataset.sha256,
        "interactions": 5, "users": 2, "items": 4,
    }  # fmt: skip
    files = ["dataset.json", "interactions.parquet", "items.parquet", "users.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_files_that_do_not_belong_together_are_refused(dataset, tmp_path):
    write_dataset(dataset, tmp_path)
    frame = dataset.interactions
    for changed in (frame.assign(rating=frame["rating"] + 1), frame.assign(user=frame["user"] + 1), frame.iloc[:-1]):
        changed.to_parquet(tmp_path / "interactions.parquet")
        with pytest.raises(ValueError, match="does not hold the data set that its dataset.json describes"):
            read_dataset(tmp_path)
    write_dataset(dataset, tmp_path)
    pd.concat([dataset.items, dataset.items[-1:]]).to_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="does not hold"):
        read_dataset(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_dataset(tmp_path / "none")


def test_hash_is_over_ids_ratings_and_times_in_file_order(dataset):
    text = b"10\t2\t3\t100\n9\t2\t4\t90\n10\t1\t5\t80\n9\t1412\t1\t70\n10\t267\t2\t60\n"
    assert dataset.sha256 == hashlib.sha256(text).hexdigest()
