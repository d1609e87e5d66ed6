"""Data augmentation by hand, by an LLM whose every score is known: what is asked, what is kept, and what becomes of it
in the conventional model's training data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from standins import Characters, by_hand, score_row

from llama4rec_core import augmentation
from llama4rec_core.backbones.fit import TrainingData
from llama4rec_core.backbones.transformer import with_insertions
from llama4rec_core.data.wording import FILMS
from llama4rec_core.llm import batches
from llama4rec_core.rankers import Ranker

TITLES = ("Alien", "Brazil", "Clue", "Diva", "Emma", "Fargo", "Ghost", "Heat")
KNOWN = by_hand([[4, 5, 6, 0], [2, 3, 7], [1, 0, 2]], [3, 2, 1], [2, 1, 1], TITLES)


@pytest.fixture(autouse=True)
def known_scores(monkeypatch):
    monkeypatch.setattr(batches, "score_row", score_row)


# --- P1: pairs --------------------------------------------------------------------------------------------------------


def earlier_is_better(prefix, text):
    """The LLM's taste: the alphabet's order, half a point a letter, whatever stands first."""
    return -0.5 * TITLES.index(text.splitlines()[-1])


def first_is_better(prefix, text):
    """The LLM always names the item that stands first."""
    _, first, *_, answer = text.splitlines()
    return 3.0 if answer == first else 1.0


def asked_pairs(llm, tmp_path, users=(0, 1), per_user=2, seed=0, length=2):
    rng = np.random.default_rng(seed)
    return augmentation.pairs(llm, KNOWN, list(users), per_user, length, rng, tmp_path / f"{seed}.parquet", 4096)


def test_the_item_that_the_llm_finds_likelier_is_preferred(tmp_path):
    orders = set()
    for seed in range(4):
        found = asked_pairs(Characters(earlier_is_better), tmp_path, seed=seed)
        assert found["user"].tolist() == [0, 0, 1, 1]
        assert (found["preferred"] < found["other"]).all() and found["agreed"].all()
        expected = 0.5 * (found["other"] - found["preferred"])
        assert found["margin"].tolist() == found["margin_swapped"].tolist() == expected.tolist()
        assert [TITLES[item] for item in found["preferred"]] == found["preferred_title"].tolist()
        assert [TITLES[item] for item in found["other"]] == found["other_title"].tolist()
        for user, rows in found.groupby("user"):
            items = [*rows["preferred"], *rows["other"]]
            assert len(set(items)) == 4 and not set(items) & set(KNOWN.history(user, KNOWN.n_train[user], 9))
        rng = np.random.default_rng(seed)
        drawn = [couple for user in (0, 1) for couple in augmentation.unseen(KNOWN, user, 4, rng).reshape(2, 2)]
        orders |= {bool(a < b) for a, b in drawn}
        assert [{a, b} for a, b in drawn] == [{a, b} for a, b in zip(found["preferred"], found["other"], strict=True)]
    assert orders == {True, False}  # the preferred one came first in some couples, second in others


def test_each_couple_is_asked_about_in_both_orders_after_the_whole_training_history(tmp_path):
    llm = Characters(earlier_is_better)
    asked_pairs(llm, tmp_path, users=[0], per_user=1)
    (prompt,) = llm.read
    assert prompt.key == "pair-0"
    assert llm.text(prompt) == "Films this viewer watched, oldest first:\nFargo\nGhost\n"  # two titles, no hint
    a, b = (int(item) for item in augmentation.unseen(KNOWN, 0, 2, np.random.default_rng(0)))
    shown = [text.splitlines()[1:3] for text in llm.branches(prompt)]
    assert shown == [[TITLES[a], TITLES[b]]] * 2 + [[TITLES[b], TITLES[a]]] * 2


def test_an_answer_that_follows_the_order_shown_is_no_agreement_and_no_triple(tmp_path):
    found = asked_pairs(Characters(first_is_better), tmp_path)
    assert not found["agreed"].any() and found["margin"].tolist() == [2.0] * 4
    assert found["margin_swapped"].tolist() == [-2.0] * 4
    assert augmentation.triples(found).shape == (0, 3)


def test_an_undecided_answer_is_no_agreement(tmp_path):
    found = asked_pairs(Characters(), tmp_path)
    assert not found["agreed"].any()


def test_triples_are_user_preferred_and_other_of_the_answers_that_agree():
    asked = pd.DataFrame({"user": [4, 5, 6], "preferred": [1, 2, 3], "other": [7, 8, 9], "agreed": [True, False, True]})
    found = augmentation.triples(asked.assign(margin=0.0)[["other", "agreed", "margin", "preferred", "user"]])
    assert found.tolist() == [[4, 1, 7], [6, 3, 9]] and found.dtype == np.int64


# --- P2: insertions ---------------------------------------------------------------------------------------------------


def asked_insertions(llm, tmp_path, prior=None, seed=0, sampled=3):
    prior = np.zeros(8, dtype=np.float32) if prior is None else prior
    ranker = Ranker("likelihood", llm, KNOWN, 2, None, prior, 4096)
    rng = np.random.default_rng(seed)
    return augmentation.insertions(ranker, [0, 1, 2], sampled, rng, tmp_path / f"p2-{seed}.parquet")


def drawn_items(seed, sampled=3):
    """The draws as they should be: everyone's items, then everyone's places."""
    rng = np.random.default_rng(seed)
    items = [augmentation.unseen(KNOWN, user, sampled, rng) for user in range(3)]
    return items, [int(rng.integers(0, n + 1)) for n in KNOWN.n_train]


def test_the_likeliest_of_the_drawn_items_is_inserted_at_the_place_drawn(tmp_path):
    places = set()
    for seed in range(20):
        llm = Characters(earlier_is_better)
        found = asked_insertions(llm, tmp_path, seed=seed)
        items, positions = drawn_items(seed)
        assert found["user"].tolist() == [0, 1, 2]
        assert found["item"].tolist() == [min(each) for each in items]
        assert found["item_title"].tolist() == [TITLES[min(each)] for each in items]
        assert found["position"].tolist() == positions
        ordered = [sorted(each) for each in items]
        assert found["advantage"].tolist() == [0.5 * (second - best) for best, second, _ in ordered]
        places |= {(user, at) for user, at in enumerate(positions)}
    assert {(0, 0), (0, 3)} <= places  # before the first item, and after the last


def test_the_prior_is_taken_off_before_the_likeliest_is_chosen(tmp_path):
    """Less than a letter a point is left of the LLM's half point: the last in the alphabet is now the likeliest."""
    prior = -np.arange(8, dtype=np.float32)
    found = asked_insertions(Characters(earlier_is_better), tmp_path, prior)
    assert found["item"].tolist() == [max(each) for each in drawn_items(0)[0]]


def test_an_insertion_is_asked_for_after_the_training_history_and_without_hints(tmp_path):
    llm = Characters(earlier_is_better)
    asked_insertions(llm, tmp_path)
    texts = {prompt.key: llm.text(prompt) for prompt in llm.read}
    assert texts == {
        f"next-{user}": f"Films this viewer watched, oldest first:\n{history}This viewer watches next:\n"
        for user, history in enumerate(("Fargo\nGhost\n", "Clue\nDiva\n", "Brazil\n"))
    }
    items, _ = drawn_items(0)
    shown = {prompt.key: llm.branches(prompt) for prompt in llm.read}
    assert shown == {f"next-{user}": [TITLES[item] + "\n" for item in each] for user, each in enumerate(items)}


def test_an_inserted_item_stands_at_its_place_in_a_second_sequence_of_its_user():
    made = pd.DataFrame({"user": [0, 2, 2], "item": [7, 3, 4], "position": [3, 0, 1], "item_title": "", "advantage": 1})
    data = augmentation.augmented("sequential", training(), made, FILMS)
    assert data.insertions.tolist() == [[0, 7, 3], [2, 3, 0], [2, 4, 1]]
    sequences, owner = with_insertions(data)
    assert owner.tolist() == [0, 1, 2, 0, 2]
    assert [each.tolist() for each in sequences] == [[4, 5, 6], [2, 3], [1], [4, 5, 6, 7], [3, 1, 4]]
    assert data.counts.tolist() == [3, 2, 1]  # N(u) counts real interactions


# --- P3: attributes ---------------------------------------------------------------------------------------------------


def training() -> TrainingData:
    features = pd.DataFrame({"genre": ["a", "b"] * 4})
    users, items = np.array([0, 0, 0, 1, 1, 2]), np.array([4, 5, 6, 2, 3, 1])
    return TrainingData(3, 8, users, items, np.ones(6), item_features=features)


EXAMPLES = """Films, with what each is known for.
Spirited Away (2001): directed by Hayao Miyazaki; starring Rumi Hiiragi
Gladiator (2000): directed by Ridley Scott; starring Russell Crowe
The Departed (2006): directed by Martin Scorsese; starring Leonardo DiCaprio
Lost in Translation (2003): directed by Sofia Coppola; starring Bill Murray
"""


def test_attributes_are_written_and_read_item_by_item(tmp_path, monkeypatch):
    asked = []

    def generate(llm, prefix, tails, max_tokens):
        assert llm.decode(prefix) == EXAMPLES and max_tokens == 28
        asked.append([llm.decode(tail) for tail in tails])
        return [f" directed by D{len(tail)}; starring {llm.decode(tail)[0]}" for tail in tails[:-1]] + [" no idea"]

    monkeypatch.setattr(augmentation, "generate", generate)
    items, years = np.array([7, 1, 3]), ["1995", "", "1981"]
    found = augmentation.attributes(Characters(), KNOWN, items, years, tmp_path / "p3.parquet", per_batch=2)
    assert asked == [["Brazil:", "Heat (1995):"], ["Diva (1981):"]]  # like lengths together
    assert found["item"].tolist() == [1, 3, 7] and found.index.tolist() == [0, 1, 2]
    assert found["title"].tolist() == ["Brazil", "Diva", "Heat"]
    assert found["director"].tolist() == ["D7", "", ""] and found["star"].tolist() == ["B", "", ""]
    assert found["answer"].tolist() == ["directed by D7; starring B", "no idea", "no idea"]
    assert found["defects"].tolist() == ["", "no director, no star", "no director, no star"]
    cost = batches.cost(tmp_path / "p3.parquet")
    assert cost["tokens_written"] == len(" directed by D7; starring B") + 2 * len(" no idea")
    assert cost["tokens_read"] == len("Brazil:Heat (1995):Diva (1981):") and cost["prompts"] == 3


def test_attributes_are_asked_for_anew_of_other_items_in_other_batches_and_after_other_examples(tmp_path, monkeypatch):
    asked = []

    def generate(llm, prefix, tails, max_tokens):
        asked.extend(llm.decode(tail) for tail in tails)
        return [" no idea"] * len(tails)

    monkeypatch.setattr(augmentation, "generate", generate)
    other = replace(KNOWN, words=replace(FILMS, examples=FILMS.examples[:1]))
    for known, items, size in ((KNOWN, [1], 1), (KNOWN, [1], 1), (KNOWN, [2], 1), (other, [2], 1), (other, [2, 3], 1),
                               (other, [2, 3], 2)):  # fmt: skip
        augmentation.attributes(Characters(), known, items, [""] * len(items), tmp_path / "p3.parquet", size)
    assert asked == ["Brazil:", "Clue:", "Clue:", "Clue:", "Diva:", "Clue:", "Diva:"]
    with pytest.raises(ValueError):
        augmentation.attributes(Characters(), KNOWN, [1, 2], [""], tmp_path / "p3.parquet")


def test_what_is_asked_is_named_where_progress_is_shown(tmp_path, monkeypatch, capsys):
    asked_pairs(Characters(), tmp_path)
    asked_insertions(Characters(), tmp_path)
    monkeypatch.setattr(augmentation, "generate", lambda llm, prefix, tails, max_tokens: [""] * len(tails))
    augmentation.attributes(Characters(), KNOWN, [1], [""], tmp_path / "p3.parquet")
    shown = capsys.readouterr().out
    assert all(f"{what}: " in shown for what in ("P1 pairs", "P2 insertions", "P3 attributes"))


def test_prompts_are_read_in_rows_of_the_length_asked_for(tmp_path, monkeypatch):
    """Three users' pairs are some 3,000 characters each: one row, or three."""
    rows = []
    monkeypatch.setattr(batches, "score_row", lambda llm, prompts: rows.append(len(prompts)) or score_row(llm, prompts))
    for row_tokens, expected in ((10**6, [3]), (100, [1, 1, 1])):
        rows.clear()
        rng, path = np.random.default_rng(0), tmp_path / f"{row_tokens}.parquet"
        augmentation.pairs(Characters(), KNOWN, [0, 1, 2], 2, 2, rng, path, row_tokens)
        assert rows == expected


def test_attributes_join_the_items_they_are_of_and_items_without_an_answer_have_empty_ones():
    made = pd.DataFrame({"item": [6, 1], "director": ["Zucker", np.nan], "star": ["Swayze", "Pryce"], "defects": ""})
    data = augmentation.augmented("rating", training(), made, FILMS)
    features = data.item_features
    assert features.columns.tolist() == ["genre", "director", "star"]
    assert features["genre"].tolist() == ["a", "b"] * 4
    assert features["director"].tolist() == [""] * 6 + ["Zucker", ""]
    assert features["star"].tolist() == ["", "Pryce", "", "", "", "", "Swayze", ""]
    assert data.triples is None and data.insertions is None


def test_pairs_become_the_triples_of_the_training_data():
    made = pd.DataFrame({"user": [1, 2], "preferred": [0, 5], "other": [6, 7], "agreed": [True, False]})
    data = augmentation.augmented("direct", training(), made, FILMS)
    assert data.triples.tolist() == [[1, 0, 6]] and data.insertions is None
    assert data.items.tolist() == training().items.tolist()  # what was observed stays
