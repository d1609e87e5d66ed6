"""Titles as tokens, by hand; and every title's probability at once against each title read alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import Characters
from tiny import answer_log_p, tiny

from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.titles import Catalogue, Titles, trie
from llama4rec_core.llm.tree import Prompt

LLM = Characters()
TITLES = ("Heat", "Help", "Hero", "Her", "Alien", "Alien")  # one the beginning of another, two the same


def said(titles):
    return [LLM.decode(answer.tokens) for answer in titles.answers]


def sets(answer):
    return ["".join(sorted(map(chr, among.tokens))) for among in answer.among]


def test_of_a_title_the_tokens_that_tell_it_from_all_others_are_told_and_said():
    """a, l, o and the end of the line tell the first four apart; nothing tells the last two."""
    told = Titles.told_apart(LLM, TITLES)
    assert said(told) == ["Hea", "Hel", "Hero", "Her\n", "Alien\n", "Alien\n"]
    assert [LLM.decode(name) for name in told.names] == said(told)
    assert [answer.answer for answer in told.answers] == [3, 3, 4, 4, 6, 6]
    lines = [LLM.decode(told.quoted(item)) for item in range(6)]
    assert lines == ["Hea\n", "Hel\n", "Hero\n", "Her\n", "Alien\n", "Alien\n"]  # every line ends once


def test_a_token_stands_among_those_that_some_title_has_there():
    heat, help_, hero, her, alien, again = Titles.told_apart(LLM, TITLES).answers
    assert sets(heat) == sets(help_) == ["AH", "e", "alr"]
    assert sets(hero) == sets(her) == ["AH", "e", "alr", "\no"]
    assert sets(alien) == sets(again) == ["AH", "l", "i", "e", "n", "\n"]
    assert heat.among[2] is hero.among[2]  # one node, one set
    assert all(among.tokens == tuple(sorted(among.tokens)) for among in hero.among)


def test_whole_titles_are_quoted_in_full_and_said_as_far_as_asked_among_all_tokens():
    for further, answers in (
        (0, ["Hea", "Hel", "Hero", "Her\n", "Alien\n", "Alien\n"]),
        (1, ["Heat", "Help", "Hero\n", "Her\n", "Alien\n", "Alien\n"]),
        (None, [title + "\n" for title in TITLES]),
    ):
        whole = Titles.whole(LLM, TITLES, further)
        assert said(whole) == answers and [answer.answer for answer in whole.answers] == list(map(len, answers))
        assert [LLM.decode(name) for name in whole.names] == list(TITLES)
        assert [LLM.decode(whole.quoted(item)) for item in range(6)] == [title + "\n" for title in TITLES]
        assert not any(answer.among for answer in whole.answers)


def test_the_trie_names_its_inner_nodes_and_refuses_a_title_without_an_end_of_its_own():
    assert trie([(1, 2), (1, 3, 4), (1, 3, 5), (6,), (6,)]) == {(): {1, 6}, (1,): {2, 3}, (1, 3): {4, 5}}
    with pytest.raises(ValueError, match="the title of item 1 is the beginning of another title"):
        trie([(1, 2, 3), (1, 2)])


some_titles = st.lists(st.text("abc", min_size=1, max_size=5), min_size=2, max_size=12).filter(
    lambda t: len(set(t)) > 1
)
few = settings(max_examples=25)


@few
@given(some_titles, st.integers(0, 2))
def test_no_two_different_titles_are_said_alike(titles, further):
    for told in (Titles.whole(LLM, titles, further), Titles.told_apart(LLM, titles)):
        assert len(set(said(told))) == len(set(titles))
        assert all((title + "\n").startswith(text) for title, text in zip(titles, said(told), strict=True))


@few
@given(some_titles)
def test_every_title_is_put_together_of_its_own_choices(titles):
    """Scores that name their place: what is summed up for a title is its token's at each node with a choice."""
    told = Titles.told_apart(LLM, titles)
    every = Catalogue.of(told)
    nodes = {branch.tokens for branch in every.branches}
    assert nodes == {node for node, tokens in trie(told.names).items() if len(tokens) > 1}  # each once
    assert len(nodes) == len(every.branches)
    scores = [np.array([hash_of(branch.tokens, t) for t in branch.choices.tokens]) for branch in every.branches]
    expected = [sum(hash_of(name[:n], name[n]) for n in range(len(name)) if name[:n] in nodes) for name in told.names]
    assert every.log_p(scores) == pytest.approx(expected)


def hash_of(node, token) -> float:
    return np.sin(sum((3 + n) * each for n, each in enumerate((*node, token))))


@pytest.mark.parametrize("tied", [True, False])
def test_the_catalogue_scores_each_title_as_if_it_were_read_alone_and_sums_to_one(tied):
    titles = ("Star Wars", "Star Trek", "Star", "Fargo", "Fargo", "Far and Away", "Heat")
    llm = tiny(tied=tied)
    told, prefix = Titles.told_apart(llm, titles), llm.encode("Films this viewer watched:\nHeat\n")
    every = Catalogue.of(told)
    (scores,) = score_row(llm, [Prompt("all", prefix, every.branches)])
    found = every.log_p(scores)
    alone = [answer_log_p(llm, prefix, answer.tokens, answer.among) for answer in told.answers]
    assert found == pytest.approx(alone, abs=1e-4)
    assert found[3] == found[4] and len(set(found.round(4))) == 6
    assert np.exp(np.delete(found, 4)).sum() == pytest.approx(1, abs=1e-5)  # two of one title are one leaf
    (asked,) = score_row(llm, [Prompt("titles", prefix, told.answers)])
    assert np.concatenate(asked) == pytest.approx(found, abs=1e-4)
