"""The ways of ranking: each utility against the model read plainly, each example's answer, and tuning's loss for yes
and no by hand."""

import math
import string
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from standins import Characters, by_hand, score_row
from tiny import answer_log_p, next_log_p, tiny

from llama4rec_core import presets
from llama4rec_core.llm import batches, prompts
from llama4rec_core.llm.examples import CandidateList, ChoiceSet, Example
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.loss import collate, tree_loss
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Among, Branch, Prompt
from llama4rec_core.rankers import WAYS, Ranker

TITLES = ("Alien", "The Godfather", "Fargo", "Il Postino", "Toy Story", "Jurassic Park", "Heat", "Casablanca")
FILMS = TITLES[:4]
LLM = Characters()
SCORED = [way for way in WAYS if way != "listwise"]
HINTED = [way for way in WAYS if way != "pointwise"]
# user 0 chose items 4 and 5, user 1 chose items 2, 3 and 0; item n has the n-th title
KNOWN = by_hand([[4, 5], [2, 3, 0]], [2, 3], [1, 2], TITLES, [5, 3, 4, 1, 2])


def ranker(way="likelihood", llm=None, told=Titles.whole, known=KNOWN, length=5, prior=None, row_tokens=512):
    llm = llm or Characters()
    titles = told(llm, known.titles, None) if told == Titles.whole else told(llm, known.titles)
    prior = np.zeros(len(known.titles), dtype=np.float32) if prior is None else prior
    return Ranker(way, llm, known, titles, length, prior, row_tokens)


def some(key="a", items=(0, 1, 2, 3), targets=(), user=0):
    return CandidateList(key, user, int(KNOWN.n_train[user]), np.array(items), targets)


def utility(ranks, tmp_path, *lists) -> dict[str, np.ndarray]:
    """Each list's utilities in its candidates' order."""
    found = ranks.utilities(lists, [ranks.prompt(each) for each in lists], tmp_path / f"{ranks.way}.parquet", "test")
    by_key = {key: rows.set_index("item")["utility"] for key, rows in found.groupby("key")}
    return {each.key: by_key[each.key][each.candidates].to_numpy() for each in lists}


def test_there_are_the_ways_that_presets_name():
    assert tuple(WAYS) == presets.WAYS


@pytest.mark.parametrize("told", [Titles.whole, Titles.told_apart])
def test_likelihood_is_the_title_s_log_probability(tmp_path, told):
    ranks = ranker(llm=tiny(), told=told)
    prefix = ranks.prompt(some()).prefix
    titles = [ranks.titles.answers[item] for item in range(4)]
    if told == Titles.whole:
        assert [ranks.llm.decode(title.tokens) for title in titles] == [film + "\n" for film in FILMS]
    expected = [answer_log_p(ranks.llm, prefix, title.tokens, title.among) for title in titles]
    assert utility(ranks, tmp_path, some())["a"] == pytest.approx(expected, abs=2e-3)


def test_yes_no_is_yes_minus_no_after_each_candidate_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(WAYS["yes_no"], "YES", " y")  # a token is a character
    monkeypatch.setattr(WAYS["yes_no"], "NO", " n")
    ranks = ranker("yes_no", tiny())
    encode, prefix, found = ranks.llm.encode, ranks.prompt(some()).prefix, utility(ranks, tmp_path, some())["a"]
    for title, value in zip(FILMS, found, strict=True):
        log_p = next_log_p(ranks.llm, prefix + encode(f"{title}\nWould this viewer choose it next? "))
        assert value == pytest.approx((log_p[ord("y")] - log_p[ord("n")]).item(), abs=1e-3)


def test_a_letter_is_the_one_that_stands_before_its_candidate(tmp_path):
    ranks = ranker("letters", tiny())
    prompt, found = ranks.prompt(some()), utility(ranks, tmp_path, some())["a"]
    shown = ranks.llm.decode(prompt.prefix)
    letters = [next(x for x in string.ascii_uppercase if f"{x}. {title}\n" in shown) for title in FILMS]
    assert sorted(letters) == ["A", "B", "C", "D"] != letters
    log_p = next_log_p(ranks.llm, prompt.prefix + ranks.llm.encode(" "), list(map(ord, letters)))
    np.testing.assert_allclose(found, log_p.numpy(), atol=1e-3)


@pytest.mark.llm
@pytest.mark.parametrize("way", SCORED)
def test_every_way_gives_each_candidate_of_each_prompt_one_utility_whatever_the_company(llm, tmp_path, way):
    ranks = ranker(way, llm)
    both = utility(ranks, tmp_path, some("a"), some("b"))
    alone = utility(ranks, tmp_path / "alone", some("b"))
    assert {key: len(values) for key, values in both.items()} == {"a": 4, "b": 4}
    np.testing.assert_allclose(both["b"], alone["b"], atol=1e-3)


def test_a_written_list_is_read_against_its_candidates(tmp_path, monkeypatch):
    said = []

    def write(llm, prefix, tails, max_tokens, lines):
        said.append((len(tails), lines, max_tokens))
        return ["Fargo\nAlien\nCasablanca", ""]

    monkeypatch.setattr(batches, "generate", write)
    found = utility(ranker("listwise"), tmp_path, some("a"), some("b"))
    # what was not written follows in the order shown, which is not the one the candidates came in (a backbone's)
    shown = {key: prompts.shown_order(key, 4).tolist() for key in "ab"}
    assert shown["a"] != [0, 1, 2, 3] != shown["b"]
    for key, order in {"a": [2, 0, *(c for c in shown["a"] if c in (1, 3))], "b": shown["b"]}.items():
        assert np.argsort(-found[key]).tolist() == order
        assert sorted(found[key]) == [-4, -3, -2, -1]
    assert said == [(2, 4, len("\n".join(FILMS)) + 2 * 4)]  # room for every title, a mark before and an end after each


def test_without_a_list_nothing_is_written(tmp_path):
    ranks = ranker("listwise")
    found = WAYS["listwise"].utilities(ranks, [], [], tmp_path / "none.parquet", "test")
    assert len(found) == 0 and list(found.columns) == ["key", "candidate", "utility"]


@pytest.mark.llm
def test_the_real_llm_writes_a_list_that_can_be_read(llm, tmp_path):
    assert sorted(utility(ranker("listwise", llm), tmp_path, some())["a"]) == [-4, -3, -2, -1]


@pytest.mark.parametrize("way", ["letters", "listwise"])
def test_the_order_shown_is_drawn_from_the_key_and_shows_every_candidate(way):
    ranks, places = ranker(way), []
    for n in range(60):
        shown = ranks.llm.text(ranks.prompt(some(f"key {n}")))
        lines = [line.split(". ")[-1] for line in shown.split("Candidates:\n")[1].splitlines()[:4]]
        assert sorted(lines) == sorted(FILMS)
        places.append(lines.index("Alien"))
    assert np.bincount(places, minlength=4).min() >= 5  # by chance 15 of 60 each
    assert ranks.prompt(some("x")) == ranks.prompt(some("x"))


@pytest.mark.parametrize("way", ["letters", "listwise"])
def test_candidates_that_are_shown_have_their_whole_titles_even_where_histories_tell_them_apart(way):
    ranks = ranker(way, told=Titles.told_apart)
    history, shown = ranks.llm.text(ranks.prompt(some())).split("Candidates:\n")
    assert history.endswith("oldest first:\nTo\nJ\n") and all(film + "\n" in shown for film in FILMS)


@pytest.mark.parametrize("way", HINTED)
def test_hints_stand_first_in_every_way_s_prompt_word_for_word(way):
    """The similar user's first two titles (its window is not quoted), what the backbone said in its own order, then the
    history."""
    hints = Hints(similar=np.array([1, 0]), quoted=KNOWN.n_before_window, length=8)
    ranks, each = ranker(way), some(items=(2, 0, 3, 1))
    plain, hinted = (ranks.llm.text(ranks.prompt(each, given)) for given in (None, hints))
    told = (
        "Films a viewer of similar taste watched:\nFargo\nIl Postino\n"
        "A recommender system suggests, best first:\nFargo\nAlien\nIl Postino\nThe Godfather\n"
    )
    assert plain.startswith("Films this viewer watched, oldest first:\nToy Story\nJurassic Park\n")
    assert hinted == told + plain


def test_a_ranker_asks_about_the_list_s_own_history_and_candidates():
    """The history stands last: a title is asked for just where it goes on."""
    ranks = ranker(length=2)
    prompt = ranks.prompt(CandidateList("test-1-3", 1, 3, np.array([5, 0]), (0,)))
    assert ranks.llm.text(prompt) == "Films this viewer watched, oldest first:\nIl Postino\nAlien\n"
    assert ranks.llm.branches(prompt) == ["Jurassic Park\n", "Alien\n"] and prompt.key == "test-1-3"
    assert ranks.named(some(items=(5, 0))) == ["Jurassic Park", "Alien"]


@pytest.mark.parametrize("way", WAYS)
def test_the_control_tells_the_same_titles_in_another_order_and_asks_about_the_same_candidates(way):
    known = by_hand([list(range(8))], [8], [1], TITLES, [5, 3, 4, 1, 2, 5, 3, 4])
    plain = ranker(way, known=known, length=6, told=Titles.whole)
    each = CandidateList("test-0-8", 0, 8, np.array([0, 1]), (0,))
    orders = [ranks.prompt(each) for ranks in (plain, *[replace(plain, shuffled=True)] * 2)]
    before, after, again = (plain.llm.text(prompt) for prompt in orders)
    assert before != after == again  # the same whenever it is asked
    assert sorted(before.splitlines()) == sorted(after.splitlines())
    assert plain.llm.branches(orders[0]) == plain.llm.branches(orders[1])


def test_an_example_s_right_answer_is_the_target():
    example = ranker().example(some("k", (3, 0, 2), (0, 6)))
    assert example.choice_sets == (ChoiceSet((1, 0, 2), 0),)
    with pytest.raises(ValueError, match="the list k does not hold its target: it teaches nothing"):
        ranker().example(some("k", (3, 2), (0,)))


def test_utilities_are_what_the_llm_gave_less_the_prior(tmp_path, monkeypatch):
    given = pd.DataFrame({"key": ["a", "a", "b"], "candidate": [1, 0, 0], "utility": [5.0, 3.0, 1.0]})
    monkeypatch.setattr(WAYS["likelihood"], "utilities", lambda *asked: given)
    ranks = ranker(prior=np.array([0, 0, 0.5, 0.25, 0, 0, 0, 0], dtype=np.float32))
    lists = [some("a", (3, 2)), some("b", (0,))]
    found = ranks.utilities(lists, [ranks.prompt(each) for each in lists], tmp_path / "x.parquet", "test")
    assert found["item"].tolist() == [2, 3, 0]
    assert found["log_p"].tolist() == [5, 3, 1] and found["utility"].tolist() == [4.5, 2.75, 1]


def test_of_the_untuned_llm_alone_a_prior_is_subtracted_as_the_preset_says():
    log_p = np.linspace(-9, -4, 8)
    preset = presets.build({"name": "x"})
    untuned = Ranker.of(preset, Characters(), KNOWN, tuned=False, log_p=log_p)
    np.testing.assert_allclose(untuned.prior, 0.5 * log_p, rtol=1e-6)
    assert not Ranker.of(preset, Characters(), KNOWN, tuned=True).prior.any()
    assert not Ranker.of(preset, Characters(), KNOWN, tuned=True, log_p=log_p).prior.any()
    assert not Ranker.of(preset, Characters(), KNOWN, tuned=False, way="letters").prior.any()
    heavy = presets.build({"name": "x", "ranking": {"prior_weight": 1.0}})
    np.testing.assert_allclose(Ranker.of(heavy, Characters(), KNOWN, False, log_p).prior, log_p, rtol=1e-6)


def test_a_tuned_llm_is_told_titles_apart_and_the_untuned_one_whole():
    preset = presets.build({"name": "x", "ranking": {"prior_weight": 0, "further_tokens": 1}})
    tuned, untuned = (Ranker.of(preset, Characters(), KNOWN, tuned=tuned) for tuned in (True, False))
    asked = [ranks.prompt(some(items=(4, 1))) for ranks in (tuned, untuned)]
    assert LLM.text(asked[0]).endswith("first:\nTo\nJ\n") and LLM.branches(asked[0]) == ["To", "Th"]
    assert LLM.text(asked[1]).endswith("first:\nToy Story\nJurassic Park\n")
    assert LLM.branches(asked[1]) == ["Toy", "The"]  # one token more than tells them apart
    assert all(branch.among for branch in asked[0].branches) and not any(branch.among for branch in asked[1].branches)


def test_what_each_way_is_taught():
    teach = {way: ranker(way).example(some(targets=(2, 0))) for way in HINTED}
    assert ranker("pointwise").example(some(targets=(2, 0))) is None  # ratings have examples of their own
    for way in ("likelihood", "yes_no"):  # each right one, in the candidates' order, against all wrong ones
        assert teach[way].choice_sets == (ChoiceSet((0, 1, 3), 0), ChoiceSet((2, 1, 3), 0))
    (letter,) = teach["letters"].choice_sets
    shown = LLM.text(teach["letters"].prompt)
    assert letter.branches == (0,) and f"{string.ascii_uppercase[letter.right]}. Alien\n" in shown and letter.right
    assert teach["listwise"].choice_sets == (ChoiceSet((0,), 0),)
    (written,) = teach["listwise"].prompt.branches
    rest = [FILMS[c] for c in prompts.shown_order("a", 4) if c in (1, 3)]  # as shown, not as a backbone would have it
    assert LLM.decode(written.tokens) == "\n".join(["Alien", "Fargo", *rest, ""])
    assert written.answer == len(written.tokens)


def asked_ranker(way, tmp_path, monkeypatch, likes):
    """Two lists asked about by a ranker, and what it said: key -> item -> utility."""
    monkeypatch.setattr(batches, "score_row", score_row)
    lists = [some("a", (3, 0, 1)), some("b", (2, 5, 4), user=1)]
    found = utility(ranker(way, Characters(likes)), tmp_path, *lists)
    return {each.key: dict(zip(each.candidates.tolist(), found[each.key], strict=True)) for each in lists}


def test_utilities_by_likelihood_are_the_titles_own(tmp_path, monkeypatch):
    found = asked_ranker("likelihood", tmp_path, monkeypatch, lambda prefix, text: -float(len(text)))
    lengths = [len(title) + 1 for title in TITLES]
    assert found == {"a": {i: -lengths[i] for i in (3, 0, 1)}, "b": {i: -lengths[i] for i in (2, 5, 4)}}


def test_utilities_by_yes_and_no_rise_with_yes(tmp_path, monkeypatch):
    """The LLM says yes about long titles: log p(yes) - log p(no) is the title's length."""

    def likes(prefix, text):
        return float(len(text.splitlines()[0])) if text.endswith("y") else 0.0

    found = asked_ranker("yes_no", tmp_path, monkeypatch, likes)
    for items in found.values():
        for item, value in items.items():
            assert value == pytest.approx(len(TITLES[item]), abs=1e-4)


def test_pointwise_each_candidate_is_rated_and_its_utility_is_the_rating_expected(tmp_path, monkeypatch):
    """The LLM is sure of 1 + the title's place among five, or between that and 1."""

    def likes(prefix, text):
        asked.add(prefix)
        best = 1 + TITLES.index(text.split(":")[0]) % 5
        return 20.0 * (int(text[-1]) in (1, best))

    asked: set[str] = set()
    found = asked_ranker("pointwise", tmp_path, monkeypatch, likes)
    for items in found.values():
        assert items == {item: pytest.approx((2 + item % 5) / 2, abs=1e-4) for item in items}
    history = "Ratings from 1 to 5 that this viewer gave, oldest first:\n"
    assert asked == {
        history + "Toy Story: 5\nJurassic Park: 3\n",
        history + "Fargo: 4\nIl Postino: 1\nAlien: 2\n",
    }


def test_utilities_by_letter_are_those_of_the_letter_before_the_title(tmp_path, monkeypatch):
    """The LLM likes the letter whose title is the shortest."""

    def likes(prefix, text):
        (line,) = (line for line in prefix.splitlines() if line.startswith(f"{text[-1]}. "))
        return -float(len(line))

    found = asked_ranker("letters", tmp_path, monkeypatch, likes)
    assert [sorted(items, key=items.get)[-1] for _, items in sorted(found.items())] == [0, 2]  # Alien, Fargo
    for items in found.values():
        assert sum(np.exp(list(items.values()))) == pytest.approx(1, abs=1e-5)
        best, *_, worst = sorted(items, key=items.get, reverse=True)
        assert items[best] - items[worst] == pytest.approx(len(TITLES[worst]) - len(TITLES[best]), abs=1e-4)


def test_a_list_that_is_written_is_read_by_the_titles_of_its_own_candidates(tmp_path, monkeypatch):
    said = {"a": "Alien\nIl Postino\nThe Godfather", "b": "Toy Story\nFargo\nJurassic Park"}

    def write(llm, prefix, tails, max_tokens, lines):
        return [said["a" if "Alien" in llm.decode(tail) else "b"] for tail in tails]

    monkeypatch.setattr(batches, "generate", write)
    found = utility(ranker("listwise", length=0), tmp_path, some("a", (3, 0, 1)), some("b", (2, 5, 4), user=1))
    assert {key: values.tolist() for key, values in found.items()} == {"a": [-2, -1, -3], "b": [-2, -3, -1]}


def test_the_loss_of_yes_and_no_by_hand():
    """Two candidates, 3 and 4 4, each followed by yes (7) or no (8); the second is right."""
    words = Among((7, 8))
    branches = (Branch((3,), choices=words), Branch((4, 4), choices=words))
    batch = collate([[Example(Prompt("p", (1,), branches), (ChoiceSet((0, 1), 1),))]], 10)
    assert batch["places"].tolist() == [1, 3]  # the ends of the two branches
    assert batch["vocabulary"].tolist() == [7, 8]
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 2)
    log_p = torch.log_softmax(logits[0], -1)
    s_wrong, s_right = log_p[0, 0] - log_p[0, 1], log_p[1, 0] - log_p[1, 1]
    choice = math.log(math.exp(s_right) + math.exp(s_wrong)) - s_right
    cross_entropy = -(log_p[1, 0] + log_p[0, 1]) / 2  # yes about the right one, no about the other
    found = tree_loss(SimpleNamespace(logits=logits), batch["labels"], choice_weight=2.0)
    assert found.item() == pytest.approx((cross_entropy + 2 * choice).item(), abs=1e-5)


@pytest.mark.parametrize("way", SCORED)
def test_prompts_are_read_under_their_name_and_in_rows_of_the_length_asked_for(way, tmp_path, monkeypatch, capsys):
    rows, lists = [], [some("a"), some("b")]
    monkeypatch.setattr(batches, "score_row", lambda llm, prompts: rows.append(len(prompts)) or score_row(llm, prompts))
    for row_tokens, expected in ((10**6, [2]), (10, [1, 1])):
        rows.clear()
        ranks, path = ranker(way, row_tokens=row_tokens), tmp_path / f"{row_tokens}.parquet"
        ranks.utilities(lists, [ranks.prompt(each) for each in lists], path, "this question")
        assert rows == expected
    assert "this question: 2/2" in capsys.readouterr().out


def test_there_are_as_many_letters_as_in_the_alphabet():
    known = by_hand([[0]], [1], [0], [f"Film {n}" for n in range(27)])
    ranks = ranker("letters", known=known)
    prompt = ranks.prompt(CandidateList("a", 0, 1, np.arange(26), ()))
    assert prompt.branches[0].choices.tokens == tuple(map(ord, string.ascii_uppercase))
    with pytest.raises(ValueError, match="27 candidates are more than there are letters"):
        ranks.prompt(CandidateList("a", 0, 1, np.arange(27), ()))
