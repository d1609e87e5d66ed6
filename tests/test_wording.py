"""The words of a data set: those that are built in, and those of a preset's `data.words` section."""

import pytest
import yaml
from pydantic import TypeAdapter

from llama4rec_core.data import BOOKS, FILMS, WORDS, Words

SECTION = """
items: songs
user: listener
chose: played
chooses: plays
attributes: [[year, from the year]]
examples: [[Bohemian Rhapsody, '', '1975'], [One, '', '1991']]
"""


def test_built_in_words():
    assert WORDS["ml-100k"] == FILMS and WORDS["bookcrossing"] == BOOKS
    assert all(int(year) > 2000 for _, year, *_ in WORDS["ml-1m"].examples)  # MovieLens-1M ends in 2000
    assert (FILMS.items, FILMS.user, FILMS.chose, FILMS.chooses) == ("films", "viewer", "watched", "watches")
    assert [len(words.examples) for words in (FILMS, BOOKS, Words())] == [4, 3, 0]


def test_a_preset_s_section_is_words():
    words = TypeAdapter(Words).validate_python(yaml.safe_load(SECTION))
    assert words == Words(
        "songs", "listener", "played", "plays", (("year", "from the year"),),
        (("Bohemian Rhapsody", "", "1975"), ("One", "", "1991")),
    )  # fmt: skip
    assert hash(words) == hash(TypeAdapter(Words).validate_python(yaml.safe_load(SECTION)))


@pytest.mark.parametrize(
    "section, message",
    [
        ("items: songs\nplural: songs", "plural"),
        ("items: 3", "items"),
        ("attributes: [[director]]", "attributes"),
        (
            "{attributes: [[a, b]], examples: [[Song, '1999']]}",
            "the P3 example 'Song' has 2 entries: it needs a title, a year and 1 attributes",
        ),
        ("examples: [[]]", r"the P3 example \(\) has 0 entries"),
    ],
)
def test_a_wrong_section_is_named(section, message):
    with pytest.raises(ValueError, match=message):
        TypeAdapter(Words).validate_python(yaml.safe_load(section))


def test_every_field_says_what_it_is():
    schema = TypeAdapter(Words).json_schema()["properties"]
    assert set(schema) == {"items", "user", "chose", "chooses", "attributes", "examples"}
    assert all(field["description"] for field in schema.values())
