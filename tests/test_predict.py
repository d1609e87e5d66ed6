"""What a fitted backbone predicts, by hand: the top k, what each case reads and excludes, similar users, files."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4rec_core.aggregation import most_similar_user
from llama4rec_core.backbones import predict
from llama4rec_core.backbones.fit import Fitted
from llama4rec_core.backbones.predict import Predictions, candidate_scores, predict_cases, read_predictions, top_k


class Table(torch.nn.Module):
    """Scores are a table's rows, ratings are 10 user + item; remembers the histories that it was given."""

    def __init__(self, table):
        super().__init__()
        self.table, self.read = torch.tensor(table, dtype=torch.float32), []

    def scores(self, users, histories):
        self.read += [None] * len(users) if histories is None else [list(history) for history in histories]
        return self.table[users]

    def rate(self, users, items):
        return (10 * users + items).float()


def fixed(table, name: str = "MF") -> Fitted:
    return Fitted(name, Table(table), pd.DataFrame())


class Histories:
    """Users' sequences: training, then validation, then test items."""

    def __init__(self, sequences: list[list[int]], n_train: list[int]):
        self.sequences, self.n_train = sequences, np.array(n_train)

    def history(self, user: int, prefix: int, length: int) -> np.ndarray:
        return np.array(self.sequences[user][max(0, prefix - length) : prefix], dtype=np.int64)


def cases_of(*rows: tuple[str, int, int, int]) -> pd.DataFrame:
    """Cases of (part, user, item, prefix)."""
    frame = pd.DataFrame(rows, columns=["part", "user", "item", "prefix"]).assign(rating=np.float32(4))
    frame.insert(0, "case", np.arange(len(frame), dtype=np.int32))
    frame["prefix"] = frame["prefix"].astype(np.int32)
    return frame[["case", "part", "user", "item", "rating", "prefix"]]


# User 0: training 0 1 2, validation 3, test 4. User 1: training 5, validation 0, test 2. Items 0 to 7.
HISTORIES = Histories([[0, 1, 2, 3, 4], [5, 0, 2]], [3, 1])
VALID = np.array([1, 1])
FALLING = [[8, 7, 6, 5, 4, 3, 2, 1]] * 2  # item 0 is everyone's best, then 1, ...
NOBODY = [np.array([0]), np.array([1])]  # what was trained on matters to embeddings alone


# --- the top k --------------------------------------------------------------------------------------------------


def test_top_k_orders_excludes_and_gives_equal_scores_to_the_lower_id():
    fitted = fixed([[1, 3, 3, 0, 3], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1]])
    exclude = [np.array([2]), np.array([], dtype=int), np.array([0, 1])]
    items, scores = top_k(fitted, [0, 1, 2], None, exclude, 3, batch_size=2)
    assert items.tolist() == [[1, 4, 0], [0, 1, 2], [2, 3, 4]] and items.dtype == np.int32
    assert scores.tolist() == [[3, 3, 1], [0, 0, 0], [3, 2, 1]] and scores.dtype == np.float32
    assert top_k(fitted, [2], None, exclude[2:], 3)[0].tolist() == [[2, 3, 4]]
    many, _ = top_k(fixed(np.zeros((1, 300))), [0], None, exclude[:1], 4)  # where an unstable sort shows
    assert many.tolist() == [[0, 1, 3, 4]]


def test_top_k_refuses_a_list_that_cannot_be_filled():
    with pytest.raises(ValueError, match="user 7 has fewer than k = 3 items left"):
        top_k(fixed(np.zeros((8, 4))), [7], None, [np.array([0, 1])], 3)
    with pytest.raises(ValueError, match="k is 5, but there are only 4 items"):
        top_k(fixed(np.zeros((1, 4))), [0], None, [np.array([], dtype=int)], 5)
    with pytest.raises(ValueError, match="2 users need as many lists"):
        top_k(fixed(np.zeros((2, 4))), [0, 1], None, [np.array([0])], 1)


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(3, 9), st.integers(0, 2**31))
def test_top_k_is_the_sorted_rest(n_users, n_items, seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(3, size=(n_users, n_items))  # many ties
    exclude = [rng.choice(n_items, rng.integers(n_items - 1), replace=False) for _ in range(n_users)]
    items, _ = top_k(fixed(table), np.arange(n_users), None, exclude, 2, batch_size=2)
    for user in range(n_users):
        rest = [i for i in range(n_items) if i not in exclude[user]]
        assert items[user].tolist() == sorted(rest, key=lambda i: (-table[user, i], i))[:2]


# --- what is excluded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MF", "SASRec"])
def test_at_validation_the_training_items_are_excluded_and_nothing_else(name):
    found = predict_cases(
        fixed(FALLING, name), cases_of(("valid", 0, 3, 3), ("valid", 1, 0, 1)), HISTORIES, VALID, 3, NOBODY
    )
    assert found.items.tolist() == [[3, 4, 5], [0, 1, 2]]  # the test items 4 and 2 are candidates like any other
    assert found.scores.tolist() == [[5, 4, 3], [8, 7, 6]]


@pytest.mark.parametrize(("name", "prefixes"), [("MF", (3, 1)), ("SASRec", (4, 2))])
def test_at_test_no_validation_item_outranks_the_test_item(name, prefixes):
    """The validation items 3 and 0 score higher, and a direct backbone has not read them: they are excluded."""
    cases = cases_of(("test", 0, 4, prefixes[0]), ("test", 1, 2, prefixes[1]))
    found = predict_cases(fixed(FALLING, name), cases, HISTORIES, VALID, 3, NOBODY)
    assert found.items.tolist() == [[4, 5, 6], [1, 2, 3]]


def test_a_later_test_case_of_a_sequential_backbone_excludes_the_earlier_test_items():
    histories = Histories([[6, 5, 0, 1, 2]], [2])  # training 6 5, validation 0, test 1 2
    cases = cases_of(("valid", 0, 0, 2), ("test", 0, 1, 3), ("test", 0, 2, 4))
    found = predict_cases(fixed(FALLING, "SASRec"), cases, histories, np.array([1]), 2, NOBODY[:1])
    assert found.items.tolist() == [[0, 1], [1, 2], [2, 3]]
    direct = cases.assign(prefix=2)  # a direct backbone's test cases stand beside each other
    found = predict_cases(fixed(FALLING), direct, histories, np.array([1]), 2, NOBODY[:1])
    assert found.items.tolist() == [[0, 1], [1, 2], [1, 2]]


def test_a_window_case_excludes_what_came_before_the_window_only():
    found = predict_cases(
        fixed(FALLING), cases_of(("window", 0, 1, 1), ("window", 0, 2, 2)), HISTORIES, VALID, 3, NOBODY
    )
    assert found.items.tolist() == [[1, 2, 3], [2, 3, 4]]


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.booleans(), st.integers(0, 2**31))
def test_a_list_is_the_sorted_rest_of_the_catalogue(n_train, n_valid, n_test, sequential, seed):
    rng = np.random.default_rng(seed)
    sequence, table = rng.permutation(14)[: n_train + n_valid + n_test].tolist(), rng.integers(4, size=(1, 14))
    rows = []
    for n, item in enumerate(sequence[n_train:], start=n_train):
        rows.append(("valid" if n < n_train + n_valid else "test", 0, item, n if sequential else n_train))
    fitted = fixed(table, "SASRec" if sequential else "MF")
    found = predict_cases(fitted, cases_of(*rows), Histories([sequence], [n_train]), np.array([n_valid]), 5, NOBODY[:1])
    for (part, _, item, prefix), items in zip(rows, found.items.tolist(), strict=True):
        had = set(sequence[:prefix]) | set(sequence[: n_train + n_valid] if part == "test" else ())
        assert item not in had and not had & set(items)
        assert items == sorted(set(range(14)) - had, key=lambda i: (-table[0, i], i))[:5]


def test_too_few_items_left_is_an_error():
    with pytest.raises(ValueError, match="user 0 has fewer than k = 5 items left"):
        predict_cases(fixed(FALLING), cases_of(("test", 0, 4, 3)), HISTORIES, VALID, 5, NOBODY)


# --- what is read -----------------------------------------------------------------------------------------------


def test_each_case_reads_the_first_prefix_items_of_its_user():
    """Oldest first. At test a direct backbone is handed the training items only."""
    rows = ("window", 0, 1, 1), ("valid", 0, 3, 3), ("test", 0, 4, 4), ("test", 1, 2, 2)
    sequential = fixed(FALLING, "SASRec")
    predict_cases(sequential, cases_of(*rows), HISTORIES, VALID, 2, NOBODY)
    assert sequential.module.read == [[0], [0, 1, 2], [0, 1, 2, 3], [5, 0]]
    direct = fixed(FALLING)
    predict_cases(direct, cases_of(("test", 0, 4, 3), ("test", 1, 2, 1)), HISTORIES, VALID, 2, NOBODY)
    assert direct.module.read == [[0, 1, 2], [5]]


def test_a_rating_backbone_rates_each_cases_user_and_item_and_reads_no_history():
    cases = cases_of(("valid", 0, 3, 3), ("test", 1, 2, 1))
    found = predict_cases(fixed(FALLING, "DeepFM"), cases, None, VALID, 3, NOBODY)
    assert found.ratings.tolist() == [3, 12] and found.ratings.dtype == np.float32
    assert found.items is None and found.scores is None


@pytest.mark.parametrize("name", ["MF", "SASRec"])
def test_a_second_opinion_scores_each_cases_own_candidates_given_the_first_prefix_items(name):
    """In the list's own order, in batches, whatever the second one's task."""
    cases = cases_of(("valid", 0, 3, 3), ("test", 0, 4, 4), ("test", 1, 2, 2))
    lists = Predictions(cases, np.array([[3, 7], [0, 5], [6, 1]]), np.zeros((3, 2)), None, np.zeros((2, 0)))
    second = fixed([[0, 1, 2, 3, 4, 5, 6, 7], [10, 11, 12, 13, 14, 15, 16, 17]], name)
    found = candidate_scores(second, lists, HISTORIES, batch_size=2)
    assert found.tolist() == [[3, 7], [0, 5], [16, 11]] and found.dtype == np.float32
    assert second.module.read == [[0, 1, 2], [0, 1, 2, 3], [5, 0]]


# --- equation 4 -------------------------------------------------------------------------------------------------


class States(torch.nn.Module):
    """A sequential backbone whose state is (1, 0), (0, 1) or (3, 1) after the last item 0, 1 or 2."""

    def scores(self, users, histories):
        return torch.zeros(len(users), 4)

    def user_embeddings(self, histories):
        return torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]])[[int(history[-1]) for history in histories]]


def test_the_similar_user_has_the_largest_cosine_of_the_states_after_the_training_items():
    fitted = Fitted("SASRec", States(), pd.DataFrame())
    items = [np.array([1, 0]), np.array([0, 1]), np.array([2]), np.array([0])]  # states (1, 0) (0, 1) (3, 1) (1, 0)
    made = predict_cases(fitted, cases_of(("valid", 0, 3, 1)), HISTORIES, VALID, 2, items)
    assert made.embeddings.tolist() == [[1, 0], [0, 1], [3, 1], [1, 0]]
    assert most_similar_user(made.embeddings).tolist() == [3, 2, 0, 0]  # users 0 and 3 tie for user 2: lower id


def test_a_baseline_has_no_user_embeddings():
    made = predict_cases(fixed(FALLING, "Popularity"), cases_of(("valid", 0, 3, 1)), HISTORIES, VALID, 2, NOBODY)
    assert made.embeddings.shape == (2, 0)


# --- the files --------------------------------------------------------------------------------------------------


def same(first: Predictions, second: Predictions) -> None:
    pd.testing.assert_frame_equal(first.cases, second.cases)
    for name in ("items", "scores", "ratings", "embeddings"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("name", ["SASRec", "DeepFM"])
def test_files_give_back_what_was_written(name, tmp_path):
    cases = cases_of(("valid", 0, 3, 3), ("test", 0, 4, 4), ("test", 1, 2, 2))
    made = predict_cases(fixed(FALLING, name), cases, HISTORIES, VALID, 3, NOBODY)
    made.write(tmp_path / "fit")
    assert sorted(path.name for path in (tmp_path / "fit").iterdir()) == [
        "predictions.parquet", "user_embeddings.safetensors"
    ]  # fmt: skip
    same(read_predictions(tmp_path / "fit"), made)
    assert made.items is None or made.items.dtype == np.int64 and made.scores.dtype == np.float32


def test_the_predictions_file_comes_last_so_that_it_stands_for_both(tmp_path, monkeypatch):
    written = []
    for name in ("write_frame", "write_tensors"):
        monkeypatch.setattr(predict, name, lambda path, content: written.append(path.name))
    predict_cases(fixed(FALLING), cases_of(("valid", 0, 3, 3)), HISTORIES, VALID, 3, NOBODY).write(tmp_path)
    assert written == ["user_embeddings.safetensors", "predictions.parquet"]


def test_a_part_keeps_its_cases_with_their_lists():
    cases = cases_of(("valid", 0, 3, 3), ("test", 0, 4, 4), ("valid", 1, 0, 1))
    made = predict_cases(fixed(FALLING, "SASRec"), cases, HISTORIES, VALID, 3, NOBODY)
    valid, both = made.part("valid"), made.part("test", "valid")
    assert valid.cases["case"].tolist() == [0, 2] and valid.cases.index.tolist() == [0, 1]
    assert valid.items.tolist() == [[3, 4, 5], [0, 1, 2]] and valid.scores.tolist() == [[5, 4, 3], [8, 7, 6]]
    assert valid.ratings is None and valid.embeddings is made.embeddings
    same(both, made)
    assert made.only(np.array([False, True, False])).items.tolist() == [[4, 5, 6]]
