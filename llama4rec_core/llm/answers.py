"""What an LLM wrote, made into data. Nothing it writes can raise, and every defect is counted.

Each parser returns its answer and the names of its defects: an empty list means the answer was as asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from llama4rec_core.data.wording import Words

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


def attributes(text: str, words: Words) -> tuple[dict[str, str], list[str]]:
    """P3: "directed by X; starring Y" to {"director": X, "star": Y}. Defects: "no director" and the like (then "")."""
    out, defects = {}, []
    for name, how in words.attributes:
        found = re.search(rf"{re.escape(how)}\s+([^;\n]+)", text, flags=re.IGNORECASE)
        value = " ".join(found.group(1).strip(" .,;").split()) if found else ""
        out[name] = value
        if not value:
            defects.append(f"no {name}")
    return out, defects
