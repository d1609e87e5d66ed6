"""The rows of the tables: which fit of the backbone and whose second opinion each puts together, and how.

    row                backbone                  opinion                              final order
    Base               M_c, on the data          none                                 M_c's
    IFT                M_c                       LLM', tuned without hints            the LLM's alone
    Llama4Rec          M_c', on augmented data   LLM'', the same examples with hints  equation 6 of both
    w/o DA, w/o PA     one part left out: M_c for M_c', LLM' for LLM''                equation 6
    w/o AA             M_c'                      LLM''                                one weight for all users
    random DA          M_c on random additions   LLM''                                equation 6
    Base + ...         M_c                       a baseline that costs nothing        equation 6

Importing this module imports neither torch nor pandas, for Snakemake reads it at every start.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

LLMS = ("untuned", "without_hints", "with_hints")
TOP_K = ("direct", "sequential")
RATING = ("rating",)
SECOND_OPINION = "Base + "  # how the names of rows begin that blend the backbone with a model that is no LLM
STACKS = ("stack", "stack + LLM")  # rows that no preset names: Base and all second opinions at once


@dataclass(frozen=True)
class Variant:
    """One row of the tables."""

    fit: str  # of the backbone: "base" (M_c), "augmented" (M_c') or "random"
    opinion: str | None  # one of LLMS, or a baseline's name
    weight: Literal["backbone", "opinion", "adaptive", "one"]  # of both: one alone, equation 7, one for all users
    tasks: tuple[str, ...] = TOP_K + RATING

    @property
    def blended(self) -> bool:
        """Whether equation 6 joins both, so that weights are chosen."""
        return self.weight in ("adaptive", "one")


VARIANTS = {
    "Base": Variant("base", None, "backbone"),
    "IFT": Variant("base", "without_hints", "opinion"),
    "Llama4Rec": Variant("augmented", "with_hints", "adaptive"),
    "w/o DA": Variant("base", "with_hints", "adaptive"),
    "w/o PA": Variant("augmented", "without_hints", "adaptive"),
    "w/o AA": Variant("augmented", "with_hints", "one"),
    "random DA": Variant("random", "with_hints", "adaptive"),
    "Base + popularity": Variant("base", "Popularity", "adaptive", TOP_K),
    "Base + item-kNN": Variant("base", "ItemKNN", "adaptive", TOP_K),
    "Base + recent item-kNN": Variant("base", "RecentItemKNN", "adaptive", TOP_K),
    "Base + EASE": Variant("base", "EASE", "adaptive", TOP_K),
    "Base + biases": Variant("base", "Bias", "adaptive", RATING),
}
NEEDED = ("Base", "IFT", "Llama4Rec")
ABLATIONS = ("w/o DA", "w/o PA", "w/o AA", "random DA")
SECOND_OPINIONS = tuple(name for name in VARIANTS if name.startswith(SECOND_OPINION))
DEFAULT = (*NEEDED, "w/o AA", *SECOND_OPINIONS)


def check(names: Iterable[str]) -> None:
    """Raises ValueError for a row that is not among VARIANTS, and where one of NEEDED is missing."""
    names = list(names)
    if unknown := [name for name in names if name not in VARIANTS]:
        raise ValueError(f"rows names {unknown[0]!r}: the known ones are {', '.join(VARIANTS)}")
    if missing := [name for name in NEEDED if name not in names]:
        raise ValueError(f"rows lacks {missing[0]!r}: {', '.join(NEEDED)} are always there")


def rows_of(names: Iterable[str], task: str) -> dict[str, Variant]:
    """Those of the rows that the task ("direct", "sequential", "rating") has, in the order of VARIANTS."""
    names = set(names)
    return {name: variant for name, variant in VARIANTS.items() if name in names and task in variant.tasks}


def asked(names: Iterable[str], task: str) -> list[tuple[str, str]]:
    """(fit, opinion) of every file of opinions that the task's rows need, each once.

    The untuned LLM comes first: it has no row, but is compared on validation.
    """
    found = [(each.fit, each.opinion) for each in rows_of(names, task).values() if each.opinion is not None]
    return list(dict.fromkeys([("base", "untuned"), *found]))


def stacks(names: Iterable[str], task: str) -> dict[str, list[str]]:
    """The opinions about M_c's lists that each of STACKS joins. No second opinion, no stack.

    The LLM is LLM', which is asked about them for the row IFT.
    """
    others = [opinion for fit, opinion in asked(names, task) if fit == "base" and opinion not in LLMS]
    return dict(zip(STACKS, (others, [*others, "without_hints"]), strict=True)) if others else {}
