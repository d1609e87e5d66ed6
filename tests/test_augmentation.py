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
from llama4rec_core.llm.titles import Titles
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import rng as stream

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


def ranker(llm, known=KNOWN, prior=None, row_tokens=4096):
    """Tells the last two titles of a history, whole."""
    prior = np.zeros(8, dtype=np.float32) if prior is None else prior
    return Ranker("likelihood", llm, known, Titles.whole(llm, TITLES, None), 2, prior, row_tokens)


def asked_pairs(llm, tmp_path, users=(0, 1), per_user=2, seed=0):
    rng = np.random.default_rng(seed)
    return augmentation.pairs(ranker(llm), list(users), per_user, rng, tmp_path / f"{seed}.parquet")


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


def test_an_answer_that_is_undecided_in_one_order_is_no_agreement(tmp_path):
    """The LLM prefers the alphabet's beginning where it stands first, and has no opinion where it stands second."""

    def likes(prefix, text):
        _, first, second, *_ = text.splitlines()
        return earlier_is_better(prefix, text) if first < second else 0.0

    for seed in range(4):
        found = asked_pairs(Characters(likes), tmp_path, seed=seed)
        assert not found["agreed"].any() and (found[["margin", "margin_swapped"]].max(axis=1) > 0).any()


def answered(*rows):
    """A table of pairs from (user, preferred, other, margin, margin_swapped)."""
    table = pd.DataFrame(rows, columns=["user", "preferred", "other", "margin", "margin_swapped"])
    return table.assign(agreed=table[["margin", "margin_swapped"]].min(axis=1) > 0)


def test_triples_are_user_preferred_and_other_of_the_answers_that_agree():
    asked = answered((4, 1, 7, 2, 0.5), (5, 2, 8, 2, -3), (6, 3, 9, 1, 4), (7, 3, 9, 0, 4))
    found = augmentation.triples(asked[["other", "agreed", "margin_swapped", "margin", "preferred", "user"]])
    assert found.tolist() == [[4, 1, 7], [6, 3, 9]] and found.dtype == np.int64


def test_an_answer_becomes_a_triple_where_the_less_certain_of_both_orders_reaches_the_margin():
    """One is less certain in the first order, one in the second; a large mean or a large disagreement does not help."""
    asked = answered((0, 1, 2, 0.5, 9), (1, 1, 2, 9, 1), (2, 1, 2, 2, 2), (3, 1, 2, 9, -9))
    users = [augmentation.triples(asked, margin)[:, 0].tolist() for margin in (0, 0.6, 1, 1.1, 2, 2.1)]
    assert users == [[0, 1, 2], [1, 2], [1, 2], [2], [2], []]


def close_or_far(prefix, text):
    """Near the alphabet's beginning letters differ by ten points, else by half of one."""
    place = TITLES.index(text.splitlines()[-1])
    return -10.0 * place if place < 2 else -20.0 - 0.5 * place


def test_a_couple_with_a_small_margin_is_kept_in_the_table_and_leaves_the_triples_at_a_larger_one(tmp_path):
    known = by_hand([[4, 5], [0, 1, 2, 3]], [2, 4], [1, 3], TITLES)
    rng = np.random.default_rng(0)
    found = augmentation.pairs(ranker(Characters(close_or_far), known), [0, 1], 2, rng, tmp_path / "p.parquet")
    assert len(found) == 4 and found["agreed"].all()
    sure = found["preferred"] < 2
    assert (found.loc[sure, "margin"] >= 10).all() and (found.loc[~sure, "margin"] <= 2.5).all()
    assert 0 < sure.sum() < 4 and len(augmentation.triples(found)) == 4
    kept = augmentation.triples(found, 3)
    assert kept.tolist() == found.loc[sure, ["user", "preferred", "other"]].to_numpy().tolist()
    data = augmentation.augmented("direct", training(), found, FILMS, margin=3)
    assert data.triples.tolist() == kept.tolist()


def test_a_user_with_few_items_left_is_asked_less_and_one_with_none_not_at_all(tmp_path):
    """User 0 has three items left, so one couple; user 1 has one; user 2 has all six."""
    known = by_hand([[0, 1, 2, 3, 4], [*range(7)], [0, 1]], [5, 7, 2], [1, 1, 1], TITLES)
    rng = np.random.default_rng(0)
    found = augmentation.pairs(ranker(Characters(), known), [0, 1, 2], 3, rng, tmp_path / "p.parquet")
    assert found["user"].tolist() == [0, 2, 2, 2]
    made = augmentation.insertions(
        ranker(Characters(earlier_is_better), known), [0, 1, 2], 4, rng, tmp_path / "i.parquet"
    )
    assert made["user"].tolist() == [0, 2] and made["among"].tolist() == [3, 4] and made["item"].tolist()[0] == 5


# --- P2: insertions ---------------------------------------------------------------------------------------------------


def asked_insertions(llm, tmp_path, prior=None, seed=0, sampled=3):
    rng = np.random.default_rng(seed)
    return augmentation.insertions(ranker(llm, prior=prior), [0, 1, 2], sampled, rng, tmp_path / f"p2-{seed}.parquet")


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
        assert found["among"].tolist() == [3, 3, 3]
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
        f"next-{user}": f"Films this viewer watched, oldest first:\n{history}"
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


def asked_attributes(say, tmp_path, monkeypatch, items, years=None, share=1.0, per_batch=32):
    """P3 by an LLM that answers `say(question, again)`: again is whether the examples stand in reversed order."""
    asked = []
    first, *lines = EXAMPLES.splitlines(keepends=True)
    orders = [EXAMPLES, first + "".join(lines[::-1])]

    def generate(llm, prefix, tails, max_tokens):
        assert max_tokens == 28
        again = orders.index(llm.decode(prefix))
        asked.append((again, [llm.decode(tail) for tail in tails]))
        return [say(llm.decode(tail), again) for tail in tails]

    monkeypatch.setattr(augmentation, "generate", generate)
    known = replace(KNOWN, years=tuple((years or {}).get(item, "") for item in range(len(TITLES))))
    return augmentation.attributes(Characters(), known, items, share, tmp_path / "p3.parquet", per_batch), asked


def test_attributes_are_asked_for_twice_and_read_item_by_item(tmp_path, monkeypatch):
    """Heat's answers agree on both, Brazil's on the director alone but for case, Diva's on nothing."""
    said = {
        "Heat (1995):": (" directed by D1; starring S1", " directed by D1; starring S1."),
        "Brazil:": (" directed by Terry G; starring S2", " directed by terry g.; starring S3"),
        "Diva (1981):": (" no idea", " directed by D4; starring S4"),
    }
    items, years = np.array([7, 1, 3]), {7: "1995", 3: "1981"}
    found, asked = asked_attributes(
        lambda question, again: said[question][again], tmp_path, monkeypatch, items, years, per_batch=2
    )
    assert asked == [(again, some) for some in (["Brazil:", "Heat (1995):"], ["Diva (1981):"]) for again in (0, 1)]
    assert found["item"].tolist() == [1, 3, 7] and found.index.tolist() == [0, 1, 2]
    assert found["title"].tolist() == ["Brazil", "Diva", "Heat"]
    assert found["director"].tolist() == ["Terry G", "unknown", "D1"]
    assert found["star"].tolist() == ["unknown", "unknown", "S1"]
    for again, column in enumerate(("answer", "answer_again")):
        assert found[column].tolist() == [said[q][again].strip() for q in ("Brazil:", "Diva (1981):", "Heat (1995):")]
    assert found["defects"].tolist() == ["star differs", "director missing, star missing", ""]
    cost = batches.cost(tmp_path / "p3.parquet")
    assert cost["tokens_written"] == sum(len(text) for both in said.values() for text in both)
    assert cost["tokens_read"] == 2 * len("Brazil:Heat (1995):Diva (1981):") and cost["prompts"] == 6


def test_an_answer_that_is_given_for_everything_is_unknown(tmp_path, monkeypatch):
    def everything(question, again):
        return f" directed by Nolan; starring {question}"

    found, _ = asked_attributes(everything, tmp_path, monkeypatch, range(6), share=0.5)
    assert found["director"].tolist() == ["unknown"] * 6
    assert found["star"].tolist() == [f"{title}:" for title in TITLES[:6]]
    assert found["defects"].tolist() == ["director too common"] * 6
    found, _ = asked_attributes(everything, tmp_path, monkeypatch, [3], share=0.5)
    assert found["director"].tolist() == ["Nolan"]  # given once, it is not too common


def test_the_share_is_of_the_items_asked_about(tmp_path, monkeypatch):
    """Three of six are half of them, three of five are more."""

    def half(question, again):
        return f" directed by {'Nolan' if question < 'D' else 'Lynch'}; starring S"

    for count, first_half in ((6, "Nolan"), (5, "unknown")):
        found, _ = asked_attributes(half, tmp_path, monkeypatch, range(count), share=0.5)
        assert found["director"].tolist() == [first_half] * 3 + ["Lynch"] * (count - 3)


def test_attributes_are_asked_for_anew_of_other_items_in_other_batches_and_after_other_examples(tmp_path, monkeypatch):
    asked = []

    def generate(llm, prefix, tails, max_tokens):
        asked.extend(llm.decode(tail) for tail in tails)
        return [" no idea"] * len(tails)

    monkeypatch.setattr(augmentation, "generate", generate)
    other = replace(KNOWN, words=replace(FILMS, examples=FILMS.examples[:2]))
    for known, items, size in ((KNOWN, [1], 1), (KNOWN, [1], 1), (KNOWN, [2], 1), (other, [2], 1), (other, [2, 3], 1),
                               (other, [2, 3], 2)):  # fmt: skip
        augmentation.attributes(Characters(), known, items, 1, tmp_path / "p3.parquet", size)
    both = ["Clue:", "Diva:"]
    assert asked == ["Brazil:"] * 2 + ["Clue:"] * 4 + ["Clue:"] * 2 + ["Diva:"] * 2 + both * 2


def test_a_stopped_p3_goes_on_with_the_asking_that_is_missing(tmp_path, monkeypatch):
    def fails_again(question, again):
        if again:
            raise KeyboardInterrupt
        return " directed by D; starring S"

    with pytest.raises(KeyboardInterrupt):
        asked_attributes(fails_again, tmp_path, monkeypatch, [1])
    found, asked = asked_attributes(lambda question, again: f" starring {again}", tmp_path, monkeypatch, [1])
    assert asked == [(1, ["Brazil:"])]
    assert found[["answer", "answer_again"]].to_numpy().tolist() == [["directed by D; starring S", "starring 1"]]


def test_a_data_set_without_attributes_has_an_empty_table(tmp_path, monkeypatch):
    monkeypatch.setattr(augmentation, "generate", None)
    plain = replace(KNOWN, words=replace(FILMS, attributes=(), examples=()))
    found = augmentation.attributes(Characters(), plain, [], 0.1, tmp_path / "p3.parquet", 32)
    assert len(found) == 0 and {"item", "answer", "defects"} <= set(found)


def test_what_is_asked_is_named_where_progress_is_shown(tmp_path, monkeypatch, capsys):
    asked_pairs(Characters(), tmp_path)
    asked_insertions(Characters(), tmp_path)
    monkeypatch.setattr(augmentation, "generate", lambda llm, prefix, tails, max_tokens: [""] * len(tails))
    augmentation.attributes(Characters(), KNOWN, [1], 1, tmp_path / "p3.parquet", 32)
    shown = capsys.readouterr().out
    assert all(f"{what}: " in shown for what in ("P1 pairs", "P2 insertions", "P3 attributes"))


def test_prompts_are_read_in_rows_of_the_length_asked_for(tmp_path, monkeypatch):
    """Three users' pairs are some 3,000 characters each: one row, or three."""
    rows = []
    monkeypatch.setattr(batches, "score_row", lambda llm, prompts: rows.append(len(prompts)) or score_row(llm, prompts))
    for row_tokens, expected in ((10**6, [3]), (100, [1, 1, 1])):
        rows.clear()
        rng, path = np.random.default_rng(0), tmp_path / f"{row_tokens}.parquet"
        augmentation.pairs(ranker(Characters(), row_tokens=row_tokens), [0, 1, 2], 2, rng, path)
        assert rows == expected


def test_attributes_join_the_items_they_are_of_and_unknown_ones_are_empty():
    made = pd.DataFrame({"item": [6, 1], "director": ["Zucker", "unknown"], "star": ["Swayze", "Pryce"], "defects": ""})
    data = augmentation.augmented("rating", training(), made, FILMS)
    features = data.item_features
    assert features.columns.tolist() == ["genre", "director", "star"]
    assert features["genre"].tolist() == ["a", "b"] * 4
    assert features["director"].tolist() == [""] * 6 + ["Zucker", ""]
    assert features["star"].tolist() == ["", "Pryce", "", "", "", "", "Swayze", ""]
    assert data.triples is None and data.insertions is None


def test_pairs_become_the_triples_of_the_training_data():
    made = answered((1, 0, 6, 1, 1), (2, 5, 7, 1, -1))
    data = augmentation.augmented("direct", training(), made, FILMS)
    assert data.triples.tolist() == [[1, 0, 6]] and data.insertions is None
    assert data.items.tolist() == training().items.tolist()  # what was observed stays


# --- controls: as much as the LLM made, without an LLM ----------------------------------------------------------------

MANY = tuple(f"Film {n}" for n in range(60))
CROWD = by_hand(  # item 0 is everyone's, 1 of four of the five, and so on; each user has an item of their own
    [[*range(5 - user), 50 + user, 9] for user in range(5)], [6 - user for user in range(5)], [1] * 5, MANY
)
MADE_PAIRS = answered(
    *((user, 10 + n, 4 + n, (-1, 0.5, 2)[n], 3.0) for user in (4, 2, 3) for n in range(3))  # one of three disagrees
)
MADE_INSERTIONS = pd.DataFrame(
    {"user": [0, 4, 3], "item": [40, 41, 42], "position": [6, 0, 1], "among": [30, 30, 2], "advantage": 1.0}
)
MADE_ATTRIBUTES = pd.DataFrame({
    "item": range(40), "title": MANY[:40], "director": [f"D{n}" for n in range(38)] + ["unknown"] * 2,
    "star": [f"S{n}" for n in range(38)] + ["unknown"] * 2, "answer": "x", "answer_again": "x", "defects": "",
})  # fmt: skip
MADE = {"pairs": MADE_PAIRS, "insertions": MADE_INSERTIONS, "attributes": MADE_ATTRIBUTES}
CONTROLS = [
    *((augmentation.random_control, "random control", kind) for kind in MADE),
    *((augmentation.popularity_placebo, "popularity placebo", kind) for kind in ("pairs", "insertions")),
]


def trained(user):
    return set(CROWD.history(user, CROWD.n_train[user], 99).tolist())


@pytest.mark.parametrize("control, name, kind", CONTROLS)
def test_a_control_is_the_same_for_the_same_stream_and_another_for_another(control, name, kind):
    first, again, *others = (control(MADE[kind], kind, CROWD, stream(name, seed)) for seed in (1, 1, 2, 3, 4, 5, 6))
    pd.testing.assert_frame_equal(first, again)
    assert not all(first.equals(other) for other in others)
    same = first.columns.intersection(MADE[kind].columns)
    assert not first[same].equals(MADE[kind][same])


def test_there_is_no_popularity_placebo_of_attributes():
    with pytest.raises(ValueError, match="of 'attributes'"):
        augmentation.popularity_placebo(MADE_ATTRIBUTES, "attributes", CROWD, np.random.default_rng(0))


def test_random_pairs_are_as_many_of_the_same_users_at_every_margin_and_of_no_training_item():
    rng, first, met = np.random.default_rng(0), [], set()
    for _ in range(20):
        found = augmentation.random_control(MADE_PAIRS, "pairs", CROWD, rng)
        for margin in (0, 0.5, 1.5):
            there, here = (augmentation.triples(table, margin) for table in (MADE_PAIRS, found))
            assert sorted(there[:, 0]) == sorted(here[:, 0])
            assert not {(u, *pair) for u, *pair in there.tolist()} & {(u, *pair) for u, *pair in here.tolist()}
        assert len(augmentation.triples(found)) == 6 and len(augmentation.triples(found, 1.5)) == 3
        for user, rows in found.groupby("user"):
            items = [*rows["preferred"], *rows["other"]]
            assert len(set(items)) == 6 and not set(items) & trained(user)
        assert found["preferred_title"].tolist() == [MANY[item] for item in found["preferred"]]
        first += (found["preferred"] < found["other"]).tolist()
        met |= {*found["preferred"], *found["other"]}
    assert 0.3 < np.mean(first) < 0.7  # neither item is preferred by its number
    assert 9 in met and len(met) > 50  # 9 is everyone's test item: it is drawn as any other


def test_random_insertions_are_at_the_same_positions_of_the_same_users_and_are_no_training_item():
    rng, met = np.random.default_rng(0), set()
    for _ in range(60):
        found = augmentation.random_control(MADE_INSERTIONS, "insertions", CROWD, rng)
        for column in ("user", "position"):
            assert found[column].tolist() == MADE_INSERTIONS[column].tolist()
        assert not any(item in trained(user) for user, item in zip(found["user"], found["item"], strict=True))
        assert found["item_title"].tolist() == [MANY[item] for item in found["item"]]
        met |= set(found["item"])
    assert len(met) > 45


def test_random_attributes_are_the_same_rows_dealt_anew_among_the_items():
    found = augmentation.random_control(MADE_ATTRIBUTES, "attributes", CROWD, np.random.default_rng(0))
    assert found.columns.tolist() == ["item", "title", "director", "star"]
    assert found[["item", "title"]].equals(MADE_ATTRIBUTES[["item", "title"]])
    rows = found[["director", "star"]].to_numpy().tolist()
    assert sorted(rows) == sorted(MADE_ATTRIBUTES[["director", "star"]].to_numpy().tolist())
    assert sum(director == f"D{n}" for n, (director, _) in enumerate(rows)) < 10


def test_popularity_is_counted_in_training_only():
    assert augmentation.training_popularity(CROWD).tolist() == [5, 4, 3, 2, 1] + [0] * 45 + [1] * 5 + [0] * 5


def test_the_popular_one_of_the_same_couples_is_preferred_and_of_equals_either():
    """In the couple of users who have not met item 4 it is the popular one, though the LLM said otherwise."""
    rng, first = np.random.default_rng(0), []
    for _ in range(20):
        found = augmentation.popularity_placebo(MADE_PAIRS, "pairs", CROWD, rng)
        assert [{*each} for each in found[["preferred", "other"]].to_numpy()] == [
            {*each} for each in MADE_PAIRS[["preferred", "other"]].to_numpy()
        ]
        assert (found.loc[MADE_PAIRS["other"] == 4, "preferred"] == 4).all()
        assert found["preferred_title"].tolist() == [MANY[item] for item in found["preferred"]]
        kept = ["user", "agreed", "margin", "margin_swapped"]
        assert found[kept].equals(MADE_PAIRS[kept])
        first += found.loc[MADE_PAIRS["other"] == 5, "preferred"].tolist()
    assert set(first) == {5, 11}


def test_the_most_popular_of_as_many_items_as_the_llm_saw_is_inserted():
    """User 4 has met item 0 alone, so that item 1 is the most popular one of those left; of all it is always taken."""
    everyone = MADE_INSERTIONS.assign(user=4, position=0)
    rng, taken = np.random.default_rng(0), {2: [], 30: [], 58: []}
    for among, items in taken.items():
        for _ in range(30):
            found = augmentation.popularity_placebo(everyone.assign(among=among), "insertions", CROWD, rng)
            assert found["user"].tolist() == [4] * 3 and not set(found["item"]) & trained(4)
            items += found["item"].tolist()
    shares = [np.mean([item == 1 for item in items]) for items in taken.values()]
    assert shares[0] < 0.15 and 0.35 < shares[1] < 0.7 and shares[2] == 1  # 2, 30 and 58 of the 58 left


@pytest.mark.parametrize("control, name, kind", CONTROLS)
def test_training_data_take_a_control_as_they_take_what_the_llm_made(control, name, kind, tmp_path):
    """Also after both were files, in which an empty text is no number."""

    def as_file(table):
        table.to_csv(tmp_path / "table.csv", index=False)
        return pd.read_csv(tmp_path / "table.csv", keep_default_na=False)

    made = as_file(MADE[kind])
    control_of_it = as_file(control(made, kind, CROWD, stream(name, 0)))
    items = np.concatenate([CROWD.history(user, n, n) for user, n in enumerate(CROWD.n_train)])
    features = pd.DataFrame({"genre": ["a"] * 60})
    users = np.repeat(np.arange(5), CROWD.n_train)
    data = TrainingData(5, 60, users, items, np.ones(len(users)), item_features=features)
    task = {"pairs": "direct", "insertions": "sequential", "attributes": "rating"}[kind]
    theirs, ours = (augmentation.augmented(task, data, each, FILMS, margin=1) for each in (made, control_of_it))
    if kind == "attributes":
        assert [(each.item_features == "").sum().tolist() for each in (theirs, ours)] == [[0, 22, 22]] * 2
    else:
        rows = "triples" if kind == "pairs" else "insertions"
        there, here = (sorted(getattr(each, rows)[:, 0]) for each in (theirs, ours))
        assert there == here and len(there) == 3
