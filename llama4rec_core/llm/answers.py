"""What an LLM wrote, made into data. Nothing it writes can raise, and every defect is named."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from llama4rec_core.data.wording import Words

UNKNOWN = "unknown"
DECORATION = re.compile(
    r"^[\s>*#•\-–—\"'`“”‘’]*(?:\(?\d{1,3}[.):\]]\s*|[A-Ja-j][.)]\s+)?[\s*\"'`“”‘’]*|[\s*\"'`“”‘’,;.]+$"
)


def _plain(text: str) -> str:
    """A title without case, accents, punctuation and a closing year: how it is recognised."""
    text = unicodedata.normalize("NFKD", text)
    text = re.sub(r"\(\d{4}\)\s*$", "", text.strip())
    return " ".join(
        re.sub(r"[^\w\s]|_", " ", "".join(c for c in text if not unicodedata.combining(c))).casefold().split()
    )


def same_title(text: str, title: str) -> bool:
    """Whether what was written is the title, but for case, accents, punctuation and a closing year."""
    return bool(_plain(title)) and _plain(text) == _plain(title)


def ranking(text: str, candidates: Sequence[str]) -> tuple[list[int], list[str]]:
    """The written order as indices of `candidates`, always complete: what is missing follows in the given order.

    Defects: "unknown" (a line that is no candidate), "repeated", "missing". Of candidates with the same title the first
    not yet taken is meant.
    """
    places: dict[str, list[int]] = {}
    for index, title in enumerate(candidates):
        places.setdefault(_plain(title), []).append(index)
    order, defects = [], []
    for line in text.splitlines():
        if not line.strip():
            continue
        names = [_plain(line), _plain(DECORATION.sub("", line))]
        name = next((name for name in names if name in places), None)
        if name is None:
            defects.append("unknown")
        elif not places[name]:
            defects.append("repeated")
        else:
            order.append(places[name].pop(0))
    rest = [index for index in range(len(candidates)) if index not in set(order)]
    return order + rest, defects + ["missing"] * len(rest)


def attributes(text: str, words: Words) -> dict[str, str]:
    """P3: "directed by X; starring Y" to {"director": X, "star": Y}; "" for an attribute that is missing."""
    found = {name: re.search(rf"{re.escape(how)}\s+([^;\n]+)", text, re.IGNORECASE) for name, how in words.attributes}
    return {name: " ".join(match[1].strip(" .,;").split()) if match else "" for name, match in found.items()}


def consistent(first: Sequence[str], second: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """What two answers about each of M items agree on (else UNKNOWN), and what is wrong ("": nothing), both [M].

    Wrong is "missing" (an answer is empty, or says "unknown"), "differs" (as titles differ, see `same_title`), or "too
    common" (given, in either answer, for more than one item and for more than `share` of all).
    """
    folded = [(_plain(a), _plain(b)) for a, b in zip(first, second, strict=True)]
    given = Counter(answer for both in folded for answer in set(both))
    wrong = []
    for a, b in folded:
        missing, common = not {a, b}.isdisjoint(("", UNKNOWN)), given[a] > max(1, share * len(folded))
        wrong.append("missing" if missing else "differs" if a != b else "too common" if common else "")
    return [UNKNOWN if why else answer for answer, why in zip(first, wrong, strict=True)], wrong
