import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import Characters

from llama4rec_core.data.wording import FILMS
from llama4rec_core.llm import answers, memorization_probe

FIVE = ["Toy Story", "Alien", "Aliens", "Il Postino", "Se7en"]


def test_a_clean_list_comes_back_in_its_order():
    assert answers.ranking("Alien\nToy Story\nSe7en\nAliens\nIl Postino", FIVE) == ([1, 0, 4, 2, 3], [])


def test_decoration_years_case_and_accents_do_not_matter():
    text = '1. Alien (1979)\n2) **TOY STORY**\n- "Séven"\n* Se7en\n  Aliens,\n• il postino'
    order, defects = answers.ranking(text, FIVE)
    assert order == [1, 0, 4, 2, 3] and defects == ["unknown"]


def test_defects_are_counted_and_the_ranking_is_complete():
    order, defects = answers.ranking("Alien\nAlien\nCasablanca\nToy Story", FIVE)
    assert order == [1, 0, 2, 3, 4]
    assert sorted(defects) == ["missing"] * 3 + ["repeated", "unknown"]


def test_two_candidates_of_one_title_are_both_taken():
    assert answers.ranking("Emma\nFargo\nEmma", ["Emma", "Emma", "Fargo"]) == ([0, 2, 1], [])


def test_a_numeric_title_is_not_taken_for_a_list_number():
    assert answers.ranking("2001\n101 Dalmatians", ["101 Dalmatians", "2001"]) == ([1, 0], [])


@settings(max_examples=400)
@given(st.text(max_size=400), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8))
def test_no_text_breaks_the_ranking(text, candidates):
    order, _ = answers.ranking(text, candidates)
    assert sorted(order) == list(range(len(candidates)))


MARKS = ["1.", "10) ", "\n", "\r\n", "\x00", "\u202e", "```json", "{}", "%s", "\\", "(" * 50, "None"]
TONGUES = ["以下は", "Вот список:", "إليك", "🙂"]
HALVES = [title[: len(title) // 2] for title in FIVE]
HOSTILE = st.lists(st.one_of(st.text(max_size=60), st.sampled_from([*FIVE, *HALVES, *MARKS, *TONGUES])), max_size=25)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(HOSTILE, st.sampled_from(["", " ", "\n", ", "]))
def test_ten_thousand_hostile_texts(pieces, between):
    text = between.join(pieces)
    order, defects = answers.ranking(text, FIVE)
    assert sorted(order) == list(range(5)) and defects.count("missing") <= 5
    answers.attributes(text, FILMS)


@given(st.permutations(range(5)), st.integers(0, 5), st.sampled_from(["", "- ", "1. ", "* "]))
def test_a_well_formed_list_decorated_or_cut_short_keeps_its_order(order, kept, mark):
    text = "\n".join(mark + FIVE[i] for i in order[:kept])
    found, defects = answers.ranking(text, FIVE)
    assert found[:kept] == list(order[:kept]) and defects == ["missing"] * (5 - kept)


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_no_text_breaks_attributes(text):
    values = answers.attributes(text, FILMS)
    assert set(values) == {"director", "star"}
    for value in values.values():
        (kept,), (wrong,) = answers.consistent([value], [text], 0.1)
        assert (kept == answers.UNKNOWN) if wrong else (kept == value)


def test_attributes():
    assert answers.attributes(" directed by Ridley Scott; starring Sigourney Weaver.", FILMS) == {
        "director": "Ridley Scott",
        "star": "Sigourney Weaver",
    }
    assert answers.attributes("starring X", FILMS) == {"director": "", "star": "X"}


@pytest.mark.parametrize("first, second, kept, wrong", [
    ("Ridley Scott", "Ridley Scott", "Ridley Scott", ""),
    ("Agnès Varda", "AGNES VARDA.", "Agnès Varda", ""),
    ("Ridley Scott", "Tony Scott", "unknown", "differs"),
    ("Ridley Scott", "", "unknown", "missing"),
    ("", "Ridley Scott", "unknown", "missing"),
    ("", "", "unknown", "missing"),
    ("Unknown", "unknown.", "unknown", "missing"),
    ("?", "!", "unknown", "missing"),
])  # fmt: skip
def test_two_answers_that_are_not_the_same_are_unknown(first, second, kept, wrong):
    assert answers.consistent([first], [second], 0.1) == ([kept], [wrong])


def test_an_answer_is_too_common_by_the_items_it_is_given_for_in_either_answer():
    """Nolan is given for four items of eight: agreed for two, and for two more in one of their answers."""
    first = ["Nolan", "nolan", "Nolan", "A", "B", "C", "D", "E"]
    second = ["Nolan", "Nolan", "X", "Nolan", "B", "C", "D", "E"]
    assert answers.consistent(first, second, 0.5)[0] == ["Nolan", "nolan", "unknown", "unknown", "B", "C", "D", "E"]
    values, wrong = answers.consistent(first, second, 0.4)
    assert values == ["unknown"] * 4 + ["B", "C", "D", "E"]
    assert wrong == ["too common", "too common", "differs", "differs", "", "", "", ""]
    assert answers.consistent([], [], 0.1) == ([], [])


def test_the_same_title_in_other_clothes():
    assert answers.same_title(" se7en (1995)", "Se7en") and answers.same_title("Il Póstino!", "Il Postino")
    assert (
        not answers.same_title("Alien", "Aliens")
        and not answers.same_title("", "")
        and not answers.same_title("!", "?")
    )


def test_the_probe_knows_a_model_that_remembers(monkeypatch):
    """Of 40 films 20 are asked for after five others; every second question is answered with the film's own title."""
    titles, ids, llm, seen = [f"Film {n * n}" for n in range(40)], [str(n) for n in range(40)], Characters(), []

    def by_heart(llm, prefix, tails, max_tokens):
        seen.append((llm.decode(prefix), [llm.decode(tail) for tail in tails]))
        return [titles[int(llm.decode(tail).strip("|"))] if n % 2 else "no idea" for n, tail in enumerate(tails)]

    monkeypatch.setattr(memorization_probe, "generate", by_heart)
    found = memorization_probe.probe(llm, ids, titles, np.random.default_rng(0), asked=20)
    assert len(found) == 20 and found["known"].tolist() == [False, True] * 10
    ((shown, questions),) = seen
    lines = shown.splitlines()
    assert len(lines) == 5 and all(line == f"{line.split('|')[0]}|{titles[int(line.split('|')[0])]}" for line in lines)
    assert questions == [f"{n}|" for n in found["id"]]
    assert not {line.split("|")[0] for line in lines} & set(found["id"])
