"""BookCrossing's files to a Dataset, and the k-core."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4rec_core.data import read_bookcrossing
from llama4rec_core.data.bookcrossing import k_core


@pytest.fixture
def bookcrossing(tmp_path):
    ratings = ['"User-ID";"ISBN";"Book-Rating"']
    ratings += [f'"{user}";"{book}";"{1 + (user + book) % 10}"' for user in range(1, 4) for book in range(10, 13)]
    ratings += ['"1";"13";"0"', '"2";"99";"7"', '"3";" 12";"9"', '"broken";"line']
    books = ['"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"S";"M";"L"']
    books += [f'"{book}";"Book {book} &amp; more";"Müller";"{book - 10}";"P";"s";"m";"l"' for book in range(10, 13)]
    books += [r'"11x";"A \"quoted\"; title";"B";"1999";"P";"s";"m";"l"', '"14";"broken";"B";"1999"']
    users = ['"User-ID";"Location";"Age"', '"1";"ulm, bw, germany";NULL', '"2";"rome, italy";"30"']
    for name, lines in (("BX-Book-Ratings", ratings), ("BX-Books", books), ("BX-Users", users)):
        (tmp_path / f"{name}.csv").write_text("\r\n".join(lines) + "\r\n", encoding="latin-1")
    return tmp_path


def test_bookcrossing_by_hand(bookcrossing):
    message = (
        r"2 broken lines \(BX-Book-Ratings.csv 1, BX-Books.csv 1, .* 0\), 1 repeated .* 1 ratings of books without"
    )
    with pytest.warns(UserWarning, match=message):
        dataset = read_bookcrossing(bookcrossing, k=3)
    assert (dataset.n_users, dataset.n_items, len(dataset.interactions)) == (3, 3, 9)
    assert dataset.items.iloc[0].tolist() == ["10", "Book 10 & more", "Müller", "", "P"]  # year 0 is unknown
    assert dataset.users.to_numpy().tolist() == [["1", "", "germany"], ["2", "30", "italy"], ["3", "", ""]]
    assert dataset.scale == (1, 10) and (dataset.interactions["time"] == 0).all()


@pytest.mark.filterwarnings("ignore:BookCrossing")
def test_books_that_a_user_has_but_did_not_rate_are_kept_where_that_is_asked_for(bookcrossing):
    """An ISBN that ends in x is the one that ends in X."""
    with open(bookcrossing / "BX-Book-Ratings.csv", "a", encoding="latin-1") as file:
        file.write('"3";"11X";"0"\r\n"2";"11x";"0"\r\n"2";"11X";"8"\r\n')
    kept, dropped = (read_bookcrossing(bookcrossing, unrated=unrated, k=1) for unrated in ("keep", "drop"))
    assert (len(kept.interactions), len(dropped.interactions)) == (11, 10)
    assert kept.items["item_id"].tolist() == ["10", "11", "11X", "12"] and kept.scale == dropped.scale == (1, 10)
    of_x = kept.interactions[kept.interactions["item"] == 2].sort_values("user")
    assert of_x["user"].tolist() == [1, 2] and of_x["rating"].isna().all()  # the first of two lines is kept


@pytest.mark.filterwarnings("ignore:BookCrossing")
def test_bookcrossing_order_is_by_seed(bookcrossing):
    one, same, other = (read_bookcrossing(bookcrossing, seed=seed, k=1) for seed in (0, 0, 1))
    assert one.sha256 == same.sha256 != other.sha256
    columns = ["user", "item", "rating"]
    assert sorted(one.interactions[columns].to_numpy().tolist()) == sorted(
        other.interactions[columns].to_numpy().tolist()
    )
    assert one.interactions["user"].tolist() != sorted(one.interactions["user"])


def slow_k_core(pairs: list[tuple[int, int]], k: int, of_user: int) -> list[tuple[int, int]]:
    """Remove one offending row after another: the k-core is what is left, in whatever order one removes."""
    pairs = list(pairs)
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        bad = next((pair for pair in pairs if users[pair[0]] < max(k, of_user) or items[pair[1]] < k), None)
        if bad is None:
            return pairs
        pairs.remove(bad)


@settings(max_examples=60)
@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=50).map(list),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_k_core_is_the_largest_part_where_all_have_k(pairs, k, of_user):
    frame = pd.DataFrame(pairs, columns=["user", "item"], index=np.arange(len(pairs)) + 5)
    expected = slow_k_core(pairs, k, of_user)
    if not expected:
        with pytest.raises(ValueError, match=f"{k}-core"):
            k_core(frame, k, of_user)
        return
    core = k_core(frame, k, of_user)
    assert list(core.itertuples(index=False, name=None)) == expected  # the same rows in the same order
    assert core["user"].value_counts().min() >= max(k, of_user) and core["item"].value_counts().min() >= k
    assert core.index.tolist() == [row + 5 for row, pair in enumerate(pairs) if pair in set(expected)]


def test_k_below_one_is_refused():
    for least in ((0,), (1, 0)):
        with pytest.raises(ValueError, match="k = 0"):
            k_core(pd.DataFrame({"user": [1], "item": [1]}), *least)
