"""The ways of ranking: each utility against the model read plainly, each example's answer, and tuning's loss for yes
and no by hand."""

import math
import string
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from standins import Characters, score_row

from llama4rec_core import presets
from llama4rec_core.data.histories import Histories
from llama4rec_core.data.wording import FILMS as WORDS
from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList, ChoiceSet, Example
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.loss import collate, tree_loss
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.rankers import WAYS, Ranker
from llama4rec_core.rankers.likelihood import cut, told_apart

HISTORY = ["Toy Story", "Jurassic Park"]
FILMS = ["Alien", "The Godfather", "Fargo", "Il Postino"]
SCORED = [way for way in WAYS if way != "listwise"]


def asked(way, llm, key="a", candidates=FILMS, hint=None):
    return WAYS[way].prompt(llm, key, HISTORY, candidates, WORDS, hint)


def utility(way, llm, tmp_path, *given):
    titles = {prompt.key: FILMS for prompt in given}
    found = WAYS[way].utilities(llm, given, titles, tmp_path / f"{way}.parquet", "test", 512)
    return {key: rows.sort_values("candidate")["utility"].to_numpy() for key, rows in found.groupby("key")}


@torch.inference_mode()
def next_log_p(llm, text_tokens):
    return torch.log_softmax(llm.model(torch.tensor([list(text_tokens)])).logits[0, -1].float(), dim=-1)


def test_there_are_the_ways_that_presets_name():
    assert tuple(WAYS) == presets.WAYS


@pytest.mark.llm
def test_likelihood_is_the_title_s_log_probability(llm, tmp_path):
    prompt = asked("likelihood", llm)
    found = utility("likelihood", llm, tmp_path, prompt)["a"]
    for title, value in zip(FILMS, found, strict=True):
        text, expected = list(prompt.prefix), 0.0
        for token in llm.encode(title + "\n"):
            expected += next_log_p(llm, text)[token].item()
            text.append(token)
        assert value == pytest.approx(expected, abs=1e-3)


@pytest.mark.llm
def test_yes_no_is_yes_minus_no_after_each_candidate_alone(llm, tmp_path):
    prompt = asked("yes_no", llm)
    found = utility("yes_no", llm, tmp_path, prompt)["a"]
    for title, value in zip(FILMS, found, strict=True):
        question = llm.encode(f"{title}\nWould this viewer choose it next?")
        log_p = next_log_p(llm, prompt.prefix + question)
        yes, no = (llm.encode(word)[0] for word in (" yes", " no"))
        assert value == pytest.approx((log_p[yes] - log_p[no]).item(), abs=1e-3)


@pytest.mark.llm
def test_a_letter_is_the_one_that_stands_before_its_candidate(llm, tmp_path):
    prompt = asked("letters", llm)
    shown = llm.decode(prompt.prefix)
    found = utility("letters", llm, tmp_path, prompt)["a"]
    log_p = next_log_p(llm, prompt.prefix)
    letters = [next(x for x in string.ascii_uppercase if f"{x}. {title}\n" in shown) for title in FILMS]
    assert sorted(letters) == ["A", "B", "C", "D"]
    expected = torch.log_softmax(log_p[[llm.encode(f" {letter}")[0] for letter in letters]], 0)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


@pytest.mark.llm
@pytest.mark.parametrize("way", SCORED)
def test_every_way_gives_each_candidate_of_each_prompt_one_utility_whatever_the_company(llm, tmp_path, way):
    both = utility(way, llm, tmp_path, asked(way, llm, "a"), asked(way, llm, "b"))
    alone = utility(way, llm, tmp_path / "alone", asked(way, llm, "b"))
    assert {key: len(values) for key, values in both.items()} == {"a": 4, "b": 4}
    np.testing.assert_allclose(both["b"], alone["b"], atol=1e-3)


def test_a_written_list_is_read_against_its_candidates(tmp_path, monkeypatch):
    llm = Characters()
    said = []

    def write(llm, prefix, tails, max_tokens, lines):
        said.append((len(tails), lines, max_tokens))
        return ["Fargo\nAlien\nCasablanca", ""]

    monkeypatch.setattr("llama4rec_core.llm.batches.generate", write)
    found = utility("listwise", llm, tmp_path, asked("listwise", llm, "a"), asked("listwise", llm, "b"))
    # what was not written follows in the order shown, which is not the one the candidates came in (a backbone's)
    shown = {key: prompts.shown_order(key, 4).tolist() for key in "ab"}
    assert shown["a"] != [0, 1, 2, 3] != shown["b"]
    for key, order in {"a": [2, 0, *(c for c in shown["a"] if c in (1, 3))], "b": shown["b"]}.items():
        assert np.argsort(-found[key]).tolist() == order
        assert sorted(found[key]) == [-4, -3, -2, -1]
    assert said == [(2, 4, len("\n".join(FILMS)) + 2 * 4)]  # room for every title, and some numbering


@pytest.mark.llm
def test_the_real_llm_writes_a_list_that_can_be_read(llm, tmp_path):
    found = utility("listwise", llm, tmp_path, asked("listwise", llm))["a"]
    assert sorted(found) == [-4, -3, -2, -1]


@pytest.mark.parametrize("way", ["letters", "listwise"])
def test_the_order_shown_is_drawn_from_the_key_and_shows_every_candidate(way):
    llm = Characters()
    places = []
    for n in range(60):
        shown = llm.decode(asked(way, llm, f"key {n}").prefix)
        lines = [line.split(". ")[-1] for line in shown.split("Candidates:\n")[1].splitlines()[:4]]
        assert sorted(lines) == sorted(FILMS)
        places.append(lines.index("Alien"))
    assert np.bincount(places, minlength=4).min() >= 5  # by chance 15 of 60 each
    assert asked(way, llm, "x") == asked(way, llm, "x")


@pytest.mark.parametrize("way", WAYS)
def test_hints_stand_in_every_way_s_prompt_word_for_word(way):
    """The similar user's titles, and what the backbone said in its own order, between history and question."""
    llm = Characters()
    hint = prompts.Hint(similar=("Heat", "Casablanca"), prediction=("Fargo", "Alien", "Il Postino", "The Godfather"))
    plain, hinted = (llm.decode(asked(way, llm, hint=each).prefix) for each in (None, hint))
    told = (
        "Films a viewer of similar taste watched:\nHeat\nCasablanca\n"
        "A recommender system suggests, best first:\nFargo\nAlien\nIl Postino\nThe Godfather\n"
    )
    history = "Films this viewer watched, oldest first:\nToy Story\nJurassic Park\n"
    assert plain.startswith(history) and hinted == history + told + plain.removeprefix(history)


@pytest.fixture
def histories():
    """User 0 chose items 4 and 5, user 1 chose items 2, 3 and 0; item n has the n-th title."""
    titles = ("Alien", "The Godfather", "Fargo", "Il Postino", "Toy Story", "Jurassic Park")
    return Histories(
        items=np.array([4, 5, 2, 3, 0]),
        ratings=np.array([5, 3, 4, 1, 2], dtype=np.float32),
        begin=np.array([0, 2, 5]),
        n_train=np.array([2, 3]),
        n_before_window=np.array([1, 2]),
        titles=titles,
        scale=("1", "2", "3", "4", "5"),
        words=WORDS,
    )


def test_a_ranker_asks_about_the_list_s_own_history_candidates_and_hints(histories):
    ranker = Ranker("likelihood", Characters(), histories, 5, None, np.zeros(6, dtype=np.float32), 512)
    each = CandidateList("test-0-2", 0, 2, np.array([3, 0]), (0,))
    hints = Hints(similar=np.array([1, 0]), quoted=histories.n_before_window, length=8)
    text = ranker.llm.decode(ranker.prompt(each, hints).prefix)
    assert text == (
        "Films this viewer watched, oldest first:\nToy Story\nJurassic Park\n"
        "Films a viewer of similar taste watched:\nFargo\nIl Postino\n"  # user 1's first two: its window is not quoted
        "A recommender system suggests, best first:\nIl Postino\nAlien\n"
        "This viewer watches next:\n"
    )
    assert [ranker.llm.decode(branch.tokens) for branch in ranker.prompt(each).branches] == ["Il Postino\n", "Alien\n"]


def test_an_example_s_right_answer_is_the_target_and_its_prior_the_ranker_s(histories):
    prior = np.arange(6, dtype=np.float32)
    ranker = Ranker("likelihood", Characters(), histories, 5, None, prior, 512)
    example = ranker.example(CandidateList("k", 0, 2, np.array([3, 0, 2]), (0,)))
    assert example.choice_sets == (ChoiceSet((1, 0, 2), 0, (0.0, 3.0, 2.0)),)
    with pytest.raises(ValueError, match="the list k does not hold its target: it teaches nothing"):
        ranker.example(CandidateList("k", 0, 2, np.array([3, 2]), (0,)))


def test_utilities_are_what_the_llm_gave_less_the_prior(histories, tmp_path, monkeypatch):
    given = pd.DataFrame({"key": ["a", "a", "b"], "candidate": [1, 0, 0], "utility": [5.0, 3.0, 1.0]})
    monkeypatch.setattr(WAYS["likelihood"], "utilities", lambda *asked: given)
    prior = np.array([0, 0, 0.5, 0.25, 0, 0], dtype=np.float32)
    ranker = Ranker("likelihood", Characters(), histories, 5, None, prior, 512)
    lists = [CandidateList("a", 0, 2, np.array([3, 2]), ()), CandidateList("b", 0, 2, np.array([0]), ())]
    found = ranker.utilities(lists, [ranker.prompt(each) for each in lists], tmp_path / "x.parquet", "test")
    assert found["item"].tolist() == [2, 3, 0]
    assert found["log_p"].tolist() == [5, 3, 1] and found["utility"].tolist() == [4.5, 2.75, 1]


def test_priors_are_subtracted_as_the_preset_says(histories):
    log_p = np.linspace(-9, -4, 6)
    preset = presets.build({"name": "x", "ranking": {"likelihood": {"further_tokens": None}}})
    untuned = Ranker.of(preset, Characters(), histories, tuned=False, log_p=log_p)
    np.testing.assert_allclose(untuned.prior, 0.5 * log_p, rtol=1e-6)
    assert not Ranker.of(preset, Characters(), histories, tuned=True, log_p=None).prior.any()
    assert not Ranker.of(preset, Characters(), histories, tuned=False, log_p=None, way="letters").prior.any()
    heavy = presets.build({"name": "x", "ranking": {"likelihood": {"prior_weight": 1.0}}})
    np.testing.assert_allclose(Ranker.of(heavy, Characters(), histories, True, log_p).prior, log_p, rtol=1e-6)


def test_titles_are_read_in_part_by_likelihood_alone(histories):
    preset = presets.build({"name": "x"})
    each = CandidateList("k", 0, 2, np.array([3, 0]), (0,))
    read = Ranker.of(preset, Characters(), histories, True, None).prompt(each)
    assert [Characters().decode(branch.tokens) for branch in read.branches] == ["I", "A"]
    whole = Ranker.of(preset, Characters(), histories, True, None, way="yes_no")
    assert whole.title_tokens is None and "Il Postino" in Characters().decode(whole.prompt(each).branches[0].tokens)


def test_a_title_is_read_until_it_is_told_from_all_others():
    titles = ["Heat", "Help", "Hero", "Her", "Alien", "Alien"]
    # a, l, "o" and the end of the line tell the first four apart; nothing tells the last two
    assert told_apart(Characters(), titles, 0).tolist() == [3, 3, 4, 4, 6, 6]
    assert told_apart(Characters(), titles, 1).tolist() == [4, 4, 5, 4, 6, 6]
    assert told_apart(Characters(), titles, 99).tolist() == [5, 5, 5, 4, 6, 6]


@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=12), st.integers(0, 2))
def test_no_two_different_titles_are_read_alike(titles, further):
    read = told_apart(Characters(), titles, further)
    seen = {(title + "\n")[:n] for title, n in zip(titles, read, strict=True)}
    assert len(seen) == len(set(titles)) and all(0 < n <= len(title) + 1 for title, n in zip(titles, read, strict=True))


@pytest.mark.llm
def test_a_title_read_in_part_scores_as_its_first_tokens(llm, tmp_path):
    whole = asked("likelihood", llm)
    found = utility("likelihood", llm, tmp_path, cut(whole, [1, 2, 99, 2]))["a"]
    for branch, length, value in zip(whole.branches, [1, 2, 99, 2], found, strict=True):
        text, expected = list(whole.prefix), 0.0
        for token in branch.tokens[:length]:
            expected += next_log_p(llm, text)[token].item()
            text.append(token)
        assert value == pytest.approx(expected, abs=1e-3)
    assert len(cut(whole, [1, 2, 2, 2])) == len(whole.prefix) + 3


def test_what_each_way_is_taught():
    llm = Characters()
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    teach = {way: WAYS[way].example(llm, asked(way, llm), FILMS, [2, 0], prior) for way in WAYS}
    for way in ("likelihood", "yes_no"):
        assert teach[way].choice_sets == (
            ChoiceSet((2, 1, 3), 0, (0.3, 0.2, 0.4)),
            ChoiceSet((0, 1, 3), 0, (0.1, 0.2, 0.4)),
        )
    assert teach["letters"].choice_sets == (ChoiceSet((0,), 2),)
    assert teach["listwise"].choice_sets == (ChoiceSet((0,), 0),)
    (written,) = teach["listwise"].prompt.branches
    rest = [FILMS[c] for c in prompts.shown_order("a", 4) if c in (1, 3)]  # as shown, not as a backbone would have it
    assert llm.decode(written.tokens) == "\n".join(["Fargo", "Alien", *rest, ""])
    assert written.answer == len(written.tokens)


def asked_ranker(way, histories, tmp_path, monkeypatch, likes):
    """Two lists asked about by a ranker, and what it said: key -> item -> utility."""
    monkeypatch.setattr(batches, "score_row", score_row)
    ranker = Ranker(way, Characters(likes), histories, 5, None, np.zeros(6, dtype=np.float32), 512)
    lists = [CandidateList("a", 0, 2, np.array([3, 0, 1]), ()), CandidateList("b", 1, 3, np.array([2, 5, 4]), ())]
    found = ranker.utilities(lists, [ranker.prompt(each) for each in lists], tmp_path / f"{way}.parquet", "test")
    assert (found["utility"] == found["log_p"]).all()
    return {key: dict(zip(rows["item"], rows["utility"], strict=True)) for key, rows in found.groupby("key")}


def test_utilities_by_likelihood_are_the_titles_own(histories, tmp_path, monkeypatch):
    found = asked_ranker("likelihood", histories, tmp_path, monkeypatch, lambda prefix, text: -float(len(text)))
    lengths = [len(title) + 1 for title in histories.titles]
    assert found == {"a": {i: -lengths[i] for i in (3, 0, 1)}, "b": {i: -lengths[i] for i in (2, 5, 4)}}


def test_utilities_by_yes_and_no_rise_with_yes(histories, tmp_path, monkeypatch):
    """The LLM says yes about long titles: log p(yes) - log p(no) is the title's length."""

    def likes(prefix, text):
        return float(len(text.splitlines()[0])) if text.endswith("y") else 0.0

    found = asked_ranker("yes_no", histories, tmp_path, monkeypatch, likes)
    for items in found.values():
        for item, utility in items.items():
            assert utility == pytest.approx(len(histories.titles[item]), abs=1e-4)


def test_utilities_by_letter_are_those_of_the_letter_before_the_title(histories, tmp_path, monkeypatch):
    """The LLM likes the letter whose title is the shortest."""

    def likes(prefix, text):
        (line,) = (line for line in prefix.splitlines() if line.startswith(f"{text[-1]}. "))
        return -float(len(line))

    found = asked_ranker("letters", histories, tmp_path, monkeypatch, likes)
    assert [sorted(items, key=items.get)[-1] for _, items in sorted(found.items())] == [0, 2]  # Alien, Fargo
    for items in found.values():
        assert sum(np.exp(list(items.values()))) == pytest.approx(1, abs=1e-5)
        best, *_, worst = sorted(items, key=items.get, reverse=True)
        lengths = len(histories.titles[worst]) - len(histories.titles[best])
        assert items[best] - items[worst] == pytest.approx(lengths, abs=1e-4)


def test_a_list_that_is_written_is_read_by_the_titles_of_its_own_candidates(histories, tmp_path, monkeypatch):
    said = {"a": "Alien\nIl Postino\nThe Godfather", "b": "Toy Story\nFargo\nJurassic Park"}

    def write(llm, prefix, tails, max_tokens, lines):
        return [said["a" if "Alien" in llm.decode(tail) else "b"] for tail in tails]

    monkeypatch.setattr(batches, "generate", write)
    ranker = Ranker("listwise", Characters(), histories, 0, None, np.zeros(6, dtype=np.float32), 512)
    lists = [CandidateList("a", 0, 2, np.array([3, 0, 1]), ()), CandidateList("b", 1, 3, np.array([2, 5, 4]), ())]
    found = ranker.utilities(lists, [ranker.prompt(each) for each in lists], tmp_path / "x.parquet", "test")
    places = {(row.key, row.item): row.utility for row in found.itertuples()}
    assert places == {("a", 0): -1, ("a", 3): -2, ("a", 1): -3, ("b", 4): -1, ("b", 2): -2, ("b", 5): -3}


def test_the_loss_of_yes_and_no_by_hand():
    """Two candidates, 3 and 4 4, each followed by yes (7) or no (8); the second is right."""
    branches = (Branch((3,), choices=(7, 8)), Branch((4, 4), choices=(7, 8)))
    batch = collate([[Example(Prompt("p", (1,), branches), (ChoiceSet((0, 1), 1),))]])
    assert batch["logits_to_keep"].tolist() == [1, 3]  # the ends of the two branches
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 10)
    log_p = torch.log_softmax(logits[0], -1)
    s_wrong, s_right = log_p[0, 7] - log_p[0, 8], log_p[1, 7] - log_p[1, 8]
    choice = math.log(math.exp(s_right) + math.exp(s_wrong)) - s_right
    cross_entropy = -(log_p[1, 7] + log_p[0, 8]) / 2  # yes about the right one, no about the other
    found = tree_loss(SimpleNamespace(logits=logits), batch["labels"], choice_weight=2.0)
    assert found.item() == pytest.approx((cross_entropy + 2 * choice).item(), abs=1e-5)


@pytest.mark.parametrize("way", SCORED)
def test_prompts_are_read_under_their_name_and_in_rows_of_the_length_asked_for(way, tmp_path, monkeypatch, capsys):
    rows, llm = [], Characters()
    monkeypatch.setattr(batches, "score_row", lambda llm, prompts: rows.append(len(prompts)) or score_row(llm, prompts))
    given = [asked(way, llm, key) for key in "ab"]
    for row_tokens, expected in ((10**6, [2]), (10, [1, 1])):
        rows.clear()
        titles, path = dict.fromkeys("ab", FILMS), tmp_path / f"{row_tokens}.parquet"
        WAYS[way].utilities(llm, given, titles, path, "this question", row_tokens)
        assert rows == expected
    assert "this question: 2/2" in capsys.readouterr().out


def test_there_are_as_many_letters_as_in_the_alphabet():
    films = [f"Film {n}" for n in range(26)]
    assert len(asked("letters", Characters(), candidates=films).branches[0].choices) == 26


def test_too_many_letters_are_an_error():
    llm = Characters()
    with pytest.raises(ValueError, match="27 candidates are more than there are letters"):
        asked("letters", llm, candidates=[f"Film {n}" for n in range(27)])


def test_a_written_list_has_room_for_every_title_and_the_first_written_gets_minus_one(tmp_path, monkeypatch):
    llm, told = Characters(), []
    prompt = WAYS["listwise"].prompt(llm, "a", HISTORY, FILMS, WORDS, None)

    def write(llm, prefix, tails, max_tokens, lines):
        told.append((max_tokens, lines))
        return ["\n".join(FILMS)]

    monkeypatch.setattr("llama4rec_core.llm.batches.generate", write)
    found = WAYS["listwise"].utilities(llm, [prompt], {"a": FILMS}, tmp_path / "a.parquet", "test", 512)
    assert found.sort_values("candidate")["utility"].tolist() == [-1, -2, -3, -4]
    assert told == [(len("\n".join(FILMS)) + 2 * 4, 4)]  # a mark before and a line's end after each, one token each
    nothing = WAYS["listwise"].utilities(llm, [], {}, tmp_path / "none.parquet", "test", 512)
    assert len(nothing) == 0 and list(nothing.columns) == ["key", "candidate", "utility"]


def test_a_written_list_is_learnt_as_one_whole_answer():
    llm = Characters()
    asked = WAYS["listwise"].prompt(llm, "a", HISTORY, FILMS, WORDS, None)
    example = WAYS["listwise"].example(llm, asked, FILMS, [2], np.zeros(4))
    assert example.choice_sets == (ChoiceSet((0,), 0),)
    assert llm.decode(example.prompt.branches[0].tokens).startswith(FILMS[2] + "\n")
