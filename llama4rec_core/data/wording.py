"""How prompts call a data set's users and items. A preset's `data.words` section has these fields."""

from dataclasses import replace

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Words:
    """Raises ValueError (pydantic's ValidationError) for an unknown field, a wrong type, or an example's length."""

    items: str = "items"
    """The items, in the plural: "films"."""
    user: str = "user"
    """One user: "viewer"."""
    chose: str = "chose"
    """What the user did with an item, in the past: "watched"."""
    chooses: str = "chooses"
    """The same in the present: "watches"."""
    attributes: tuple[tuple[str, str], ...] = ()
    """P3: each attribute that the LLM is asked for, and the words that ask for it. None: P3 is left out."""
    examples: tuple[tuple[str, ...], ...] = ()
    """P3's in-context examples: title, year (may be ""), then the value of each attribute."""

    def __post_init__(self):
        for example in self.examples:
            if len(example) != 2 + len(self.attributes):
                raise ValueError(
                    f"the P3 example {example[0] if example else example!r} has {len(example)} entries: it needs a "
                    f"title, a year and {len(self.attributes)} attributes"
                )


FILMS = Words(
    "films", "viewer", "watched", "watches", (("director", "directed by"), ("star", "starring")),
    # not one of these films is in MovieLens-100K: an example must not answer a question that will be asked
    (
        ("Spirited Away", "2001", "Hayao Miyazaki", "Rumi Hiiragi"),
        ("Gladiator", "2000", "Ridley Scott", "Russell Crowe"),
        ("The Departed", "2006", "Martin Scorsese", "Leonardo DiCaprio"),
        ("Lost in Translation", "2003", "Sofia Coppola", "Bill Murray"),
    ),
)  # fmt: skip
LATER_FILMS = replace(  # Gladiator is in MovieLens-1M
    FILMS, examples=(FILMS.examples[0], ("Collateral", "2004", "Michael Mann", "Tom Cruise"), *FILMS.examples[2:])
)
BOOKS = Words(
    "books", "reader", "read", "reads", (("genre", "a book of the genre"), ("pages", "with a page count of")),
    (
        ("The Road", "2006", "science fiction", "287"),
        ("Gone Girl", "2012", "thriller", "432"),
        ("The Goldfinch", "2013", "literary fiction", "784"),
    ),
)  # fmt: skip
WORDS = {"ml-100k": FILMS, "ml-1m": LATER_FILMS, "bookcrossing": BOOKS}  # a preset's data.words come before these
