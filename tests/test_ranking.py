"""The ways of ranking: each utility against the model read plainly, each lesson's answer, and tuning's loss for yes
and no by hand."""

import math
import string
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4rec_core.llm import prompts, ranking
from llama4rec_core.llm.engine import Branch, Prompt
from llama4rec_core.llm.lessons import Example, Question
from llama4rec_core.llm.tuning import collate, tree_loss

HISTORY = ["Toy Story", "Jurassic Park"]
FILMS = ["Alien", "The Godfather", "Fargo", "Il Postino"]
SCORED = [mode for mode in ranking.MODES if mode != "list"]


def asked(mode, llm, key="a", candidates=FILMS, hint=None):
    return ranking.prompt(mode, llm, key, HISTORY, candidates, prompts.FILMS, hint)


def utility(mode, llm, tmp_path, *given):
    titles = {prompt.key: FILMS for prompt in given}
    found = ranking.utilities(mode, llm, given, titles, tmp_path / f"{mode}.parquet", "test", 512)
    return {key: rows.sort_values("candidate")["utility"].to_numpy() for key, rows in found.groupby("key")}


@torch.inference_mode()
def next_log_p(llm, text_tokens):
    return torch.log_softmax(llm.model(torch.tensor([list(text_tokens)])).logits[0, -1].float(), dim=-1)


@pytest.mark.llm
def test_relevance_is_yes_minus_no_after_each_candidate_alone(llm, tmp_path):
    prompt = asked("relevance", llm)
    found = utility("relevance", llm, tmp_path, prompt)["a"]
    for title, value in zip(FILMS, found, strict=True):
        question = llm.encode(f"{title}\nWould this viewer choose it next?")
        log_p = next_log_p(llm, prompt.prefix + question)
        yes, no = (llm.encode(word)[0] for word in (" yes", " no"))
        assert value == pytest.approx((log_p[yes] - log_p[no]).item(), abs=1e-3)


@pytest.mark.llm
def test_a_label_is_the_letter_that_stands_before_its_candidate(llm, tmp_path):
    prompt = asked("labels", llm)
    shown = llm.decode(prompt.prefix)
    found = utility("labels", llm, tmp_path, prompt)["a"]
    log_p = next_log_p(llm, prompt.prefix)
    letters = [next(x for x in string.ascii_uppercase if f"{x}. {title}\n" in shown) for title in FILMS]
    assert sorted(letters) == ["A", "B", "C", "D"]
    expected = torch.log_softmax(log_p[[llm.encode(f" {letter}")[0] for letter in letters]], 0)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


@pytest.mark.llm
@pytest.mark.parametrize("mode", SCORED)
def test_every_way_gives_each_candidate_of_each_prompt_one_utility_whatever_the_company(llm, tmp_path, mode):
    both = utility(mode, llm, tmp_path, asked(mode, llm, "a"), asked(mode, llm, "b"))
    alone = utility(mode, llm, tmp_path / "alone", asked(mode, llm, "b"))
    assert {key: len(values) for key, values in both.items()} == {"a": 4, "b": 4}
    np.testing.assert_allclose(both["b"], alone["b"], atol=1e-3)


@pytest.mark.llm
def test_a_written_list_is_read_against_its_candidates(llm, tmp_path, monkeypatch):
    said = []

    def write(llm, prefix, tails, max_tokens, lines):
        said.append((len(tails), lines))
        return ["Fargo\nAlien\nCasablanca", ""]

    monkeypatch.setattr("llama4rec_core.llm.recording.generate", write)
    found = utility("list", llm, tmp_path, asked("list", llm, "a"), asked("list", llm, "b"))
    # what was not written follows in the order shown, which is not the one the candidates came in (a backbone's)
    shown = {key: prompts.drawn_order(key, 4).tolist() for key in "ab"}
    assert shown["a"] != [0, 1, 2, 3] != shown["b"]
    for key, order in {"a": [2, 0, *(c for c in shown["a"] if c in (1, 3))], "b": shown["b"]}.items():
        assert np.argsort(-found[key]).tolist() == order
    assert said == [(2, 4)]


@pytest.mark.llm
def test_the_real_llm_writes_a_list_that_can_be_read(llm, tmp_path):
    found = utility("list", llm, tmp_path, asked("list", llm))["a"]
    assert sorted(found) == [-4, -3, -2, -1]


@pytest.mark.llm
@pytest.mark.parametrize("mode", ["labels", "list"])
def test_the_order_shown_is_drawn_from_the_key_and_shows_every_candidate(llm, mode):
    places = []
    for n in range(60):
        shown = llm.decode(asked(mode, llm, f"key {n}").prefix)
        lines = [line.split(". ")[-1] for line in shown.split("Candidates:\n")[1].splitlines()[:4]]
        assert sorted(lines) == sorted(FILMS)
        places.append(lines.index("Alien"))
    assert np.bincount(places, minlength=4).min() >= 5  # by chance 15 of 60 each
    assert asked(mode, llm, "x") == asked(mode, llm, "x")


class Letters:
    """Stands for an LLM whose tokens are characters."""

    def encode(self, text):
        return tuple(map(ord, text))


def test_a_title_is_read_until_it_is_told_from_all_others():
    titles = ["Heat", "Help", "Hero", "Her", "Alien", "Alien"]
    # a, l, "o" and the end of the line tell the first four apart; nothing tells the last two
    assert ranking.told_apart(Letters(), titles, 0).tolist() == [3, 3, 4, 4, 6, 6]
    assert ranking.told_apart(Letters(), titles, 1).tolist() == [4, 4, 5, 4, 6, 6]
    assert ranking.told_apart(Letters(), titles, 99).tolist() == [5, 5, 5, 4, 6, 6]


@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=12), st.integers(0, 2))
def test_no_two_different_titles_are_read_alike(titles, further):
    read = ranking.told_apart(Letters(), titles, further)
    seen = {(title + "\n")[:n] for title, n in zip(titles, read, strict=True)}
    assert len(seen) == len(set(titles)) and all(0 < n <= len(title) + 1 for title, n in zip(titles, read, strict=True))


@pytest.mark.llm
def test_a_title_read_in_part_scores_as_its_first_tokens(llm, tmp_path):
    whole = asked("likelihood", llm)
    found = utility("likelihood", llm, tmp_path, ranking.cut(whole, [1, 2, 99, 2]))["a"]
    for branch, length, value in zip(whole.branches, [1, 2, 99, 2], found, strict=True):
        text, expected = list(whole.prefix), 0.0
        for token in branch.tokens[:length]:
            expected += next_log_p(llm, text)[token].item()
            text.append(token)
        assert value == pytest.approx(expected, abs=1e-3)
    assert len(ranking.cut(whole, [1, 2, 2, 2])) == len(whole.prefix) + 3


@pytest.mark.llm
def test_what_each_way_is_taught(llm):
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    teach = {mode: ranking.lesson(mode, llm, asked(mode, llm), FILMS, [2, 0], prior) for mode in ranking.MODES}
    for mode in ("likelihood", "relevance"):
        assert teach[mode].questions == (
            Question((2, 1, 3), 0, (0.3, 0.2, 0.4)),
            Question((0, 1, 3), 0, (0.1, 0.2, 0.4)),
        )
    assert teach["labels"].questions == (Question((0,), 2),)
    (written,) = teach["list"].prompt.branches
    rest = [FILMS[c] for c in prompts.drawn_order("a", 4) if c in (1, 3)]  # as shown, not as a backbone would have it
    assert llm.decode(written.tokens) == "\n".join(["Fargo", "Alien", *rest, ""])
    assert written.answer == len(written.tokens)


def test_the_loss_of_yes_and_no_by_hand():
    """Two candidates, 3 and 4 4, each followed by yes (7) or no (8); the second is right."""
    branches = (Branch((3,), choices=(7, 8)), Branch((4, 4), choices=(7, 8)))
    batch = collate([[Example(Prompt("p", (1,), branches), (Question((0, 1), 1),))]])
    assert batch["logits_to_keep"].tolist() == [1, 3]  # the ends of the two branches
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 10)
    log_p = torch.log_softmax(logits[0], -1)
    s_wrong, s_right = log_p[0, 7] - log_p[0, 8], log_p[1, 7] - log_p[1, 8]
    choice = math.log(math.exp(s_right) + math.exp(s_wrong)) - s_right
    cross_entropy = -(log_p[1, 7] + log_p[0, 8]) / 2  # yes about the right one, no about the other
    found = tree_loss(SimpleNamespace(logits=logits), batch["labels"], choice_weight=2.0)
    assert found.item() == pytest.approx((cross_entropy + 2 * choice).item(), abs=1e-5)


@pytest.mark.llm
def test_unknown_ways_and_too_many_letters_are_errors(llm):
    with pytest.raises(ValueError, match="ranking.mode 'letters' is unknown: the known ones are likelihood, relevance"):
        asked("letters", llm)
    with pytest.raises(ValueError, match="27 candidates are more than there are letters"):
        asked("labels", llm, candidates=[f"Film {n}" for n in range(27)])
