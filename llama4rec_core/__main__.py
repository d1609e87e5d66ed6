"""Before a run: is the data as it must be, and what is in it?

    python -m llama4rec_core check PRESET

PRESET: a preset's name, or the path of a YAML file. Lists every problem of the user's own files at once, each with what
mends it, and ends with status 1. Where there is none, it shows what the data are.
"""

import argparse
import sys

import numpy as np

from llama4rec_core import presets
from llama4rec_core.data import Dataset, as_set, table_1
from llama4rec_core.data.check import mending, problems
from llama4rec_core.data.split import HELD_OUT


def check(preset: presets.Preset) -> tuple[str, bool]:
    """What is printed, and whether all is well."""
    found = problems(preset.data) if preset.data.name == "own" else []
    if found:
        said = "\n".join(f"- {each}" for each in found)
        yaml = mending(found)
        return f"{len(found)} problem(s):\n{said}\n" + (f"\nIn the preset:\n\n{yaml}" if yaml else ""), False
    return survey(as_set(preset.data)), True


def survey(dataset: Dataset) -> str:
    """Table 1, the long tail, the ratings, and what each protocol needs."""
    users, items = (np.bincount(dataset.interactions[name]) for name in ("user", "item"))
    top = np.sort(items)[::-1][: max(1, len(items) // 10)].sum() / items.sum()
    ratings = dataset.interactions["rating"].value_counts().sort_index()
    lines = [
        table_1(dataset).T.to_string(header=False),
        f"the most popular tenth of the items has {top:.0%} of the interactions",
        "ratings: " + ", ".join(f"{rating:g}: {count:,}" for rating, count in ratings.items()),
    ]
    for protocol, held in HELD_OUT.items():
        few = (users < sum(held) + 1).sum()
        lines.append(f"{protocol}: {few} of {len(users)} users have too few interactions (it needs {sum(held) + 1})")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llama4rec_core", description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["check"])
    parser.add_argument("preset")
    asked = parser.parse_args(arguments)
    try:
        said, well = check(presets.load(asked.preset))
    except (ValueError, OSError) as error:
        said, well = str(error), False
    print(said)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
