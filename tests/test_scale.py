"""Ratings on any scale are ways down a trie: by hand, by property, and as what a tiny LLM says of each text."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import Characters, by_hand, score_row
from tiny import answer_log_p, tiny

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.llm import batches, score
from llama4rec_core.llm.examples import rating_examples, rating_groups
from llama4rec_core.llm.loss import collate, tree_loss
from llama4rec_core.llm.prompts import MOST_RATINGS, Scale
from llama4rec_core.llm.rate import rate
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Prompt

TEN = tuple(map(str, range(1, 11)))
HALVES = tuple(f"{n / 2:g}" for n in range(1, 11))
LLM = Characters()


def nodes(scale):
    return [(LLM.decode(path), LLM.decode(among.tokens)) for path, among in scale.nodes]


def test_one_to_five_is_one_choice_of_one_token():
    scale = Scale.of(LLM, "12345")
    assert nodes(scale) == [("", "12345")] and scale.ways == tuple(((0, n),) for n in range(5))
    shared, choices = LLM.choices([f" {n}" for n in "12345"])
    assert scale.shared == shared and scale.nodes[0][1] is choices
    (branch,) = scale.branches((7, 8))
    assert branch.tokens == (7, 8, *shared) and branch.choices is choices
    scores = np.log(np.array([[0.1, 0.2, 0.3, 0.3, 0.1]], dtype=np.float32))
    assert (scale.log_p(scores) == scores).all() and scale.log_p(scores).dtype == np.float32


def test_one_to_ten_by_hand():
    """After "1" either the line ends or a 0 follows."""
    scale = Scale.of(LLM, TEN)
    assert nodes(scale) == [("", "123456789"), ("1", "\n0")]
    assert scale.ways[0] == ((0, 0), (1, 0)) and scale.ways[1] == ((0, 1),) and scale.ways[9] == ((0, 0), (1, 1))
    first, second = np.full(9, 1 / 18), np.array([0.25, 0.75])
    first[0] = 10 / 18
    p = np.exp(scale.log_p(np.log(np.concatenate([first, second]))))
    assert p[0].tolist() == pytest.approx([10 / 72, *[1 / 18] * 8, 30 / 72])


def test_half_stars_have_texts_of_their_own():
    scale = Scale.of(LLM, HALVES)
    assert [LLM.decode(text) for text in scale.texts] == list(HALVES)
    assert nodes(scale) == [("", "012345"), ("1", "\n."), ("2", "\n."), ("3", "\n."), ("4", "\n.")]


@settings(max_examples=50)
@given(st.sets(st.integers(0, 1000), min_size=2, max_size=30), st.sampled_from([1, 2, 10]), st.integers(0, 9))
def test_the_probabilities_of_any_scale_sum_to_one(numbers, by, seed):
    scale = Scale.of(LLM, [f"{n / by:g}" for n in sorted(numbers)])
    draws, scores = np.random.default_rng(seed), []
    for _, among in scale.nodes:
        p = draws.random(len(among.tokens)) + 0.1
        scores.append(np.log(p / p.sum()))
    assert len(set(scale.ways)) == len(numbers)
    assert np.exp(scale.log_p(np.concatenate(scores))).sum() == pytest.approx(1)


@pytest.mark.parametrize("values", ["12345", TEN, HALVES, ("0", "7", "50", "100")])
def test_a_rating_is_as_likely_as_its_text_among_those_that_can_stand_there(values):
    llm, prefix = tiny(), (5, 9, 4)
    scale = Scale.of(llm, values)
    prompt = Prompt("r", prefix, tuple(scale.branches((3,))))
    (found,) = score.score_row(llm, [prompt])
    at = dict(scale.nodes)
    ended = [text + llm.encode("\n") for text in scale.texts]
    for log_p, text, way in zip(scale.log_p(np.concatenate(found))[0], ended, scale.ways, strict=True):
        last = max(len(scale.nodes[node][0]) for node, _ in way) + 1
        among = [at.get(text[:n]) for n in range(last)]
        expected = sum(
            answer_log_p(llm, prefix + (3, *scale.shared, *text[:n]), text[n : n + 1], (each,))
            for n, each in enumerate(among)
            if each
        )
        assert log_p == pytest.approx(expected, abs=1e-4)


def ten_histories():
    return by_hand([[0, 1, 2, 3]], [2], [2], "abcd", ratings=[10, 1, 7, 10], scale=TEN)


CASES = pd.DataFrame({"part": "valid", "user": 0, "item": [2, 3], "rating": [7.0, 10.0], "prefix": 2})


def test_ratings_from_1_to_10_are_told_learnt_and_asked():
    histories = ten_histories()
    titles = Titles.told_apart(LLM, histories.titles)
    (one,) = rating_examples(LLM, histories, titles, rating_groups(CASES, np.zeros(2)), 5, None)
    text = LLM.text(one.prompt)
    assert text.endswith("oldest first:\na: 10\nb: 1\n") and "Ratings from 1 to 10" in text
    assert LLM.branches(one.prompt) == ["c: ", "c: 1", "d: ", "d: 1"]
    seven, ten = one.choice_sets
    assert (seven.branches, seven.right, seven.ways[6]) == ((0, 1), 6, ((0, 6),))
    assert (ten.branches, ten.right, ten.ways[9]) == ((2, 3), 9, ((2, 0), (3, 1)))


def test_the_loss_of_a_rating_is_that_of_its_way_down():
    histories = ten_histories()
    titles = Titles.told_apart(LLM, histories.titles)
    (one,) = rating_examples(LLM, histories, titles, rating_groups(CASES.tail(1), np.zeros(1)), 5, None)
    batch = collate([[one]], 200)
    logits = torch.randn(1, len(batch["places"]), len(batch["vocabulary"]), generator=torch.Generator().manual_seed(0))
    logits = logits.masked_fill(~batch["held"][batch["of_set"]], -torch.inf)
    vocabulary = batch["vocabulary"].tolist()
    table = torch.log_softmax(logits[0], -1)
    digits, end = [table[:, [vocabulary.index(ord(c)) for c in text]] for text in ("123456789", "\n0")]
    root, after_one = digits[~digits.isinf().any(1)][0], end[~end.isinf().any(1)][0]
    log_p = [root[0] + after_one[0], *root[1:], root[0] + after_one[1]]
    right = log_p[9]
    found = tree_loss(SimpleNamespace(logits=logits), batch["labels"])
    assert torch.stack(log_p).exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert found.item() == pytest.approx((-right / 2 - right).item(), abs=1e-5)  # a mean over two tokens; the choice


def test_the_llm_rates_on_the_scale_that_the_data_have(tmp_path, monkeypatch):
    """It likes "1", and after it the line's end twice as much as a 0: 1 or 10, at two to one."""
    monkeypatch.setattr(batches, "score_row", score_row)
    llm = Characters(lambda prefix, text: {"1": 50.0, "\n": np.log(2)}.get(text[-1], 0.0))
    histories = ten_histories()
    titles = Titles.told_apart(llm, histories.titles)
    known = Predictions(CASES, None, None, np.array([11.0, 3.5]), np.zeros((1, 0)))
    found = rate(llm, histories, titles, known, None, 5, (1, 10), tmp_path / "a.parquet", "", 512)
    assert found["expected"].tolist() == pytest.approx([4, 4]) and found["likeliest"].tolist() == [1, 1]
    assert found["backbone"].tolist() == [10, 3.5]


def test_too_few_and_too_many_ratings_are_refused():
    with pytest.raises(ValueError, match="the data have 1 different rating"):
        Scale.of(LLM, ("1",))
    with pytest.raises(ValueError, match=f"{MOST_RATINGS + 1} different .* round them"):
        Scale.of(LLM, [str(n) for n in range(MOST_RATINGS + 1)])
