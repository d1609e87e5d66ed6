"""Beside the workflow: are the data and the machine as they must be? Tuning by a launcher; the tuned LLM elsewhere.

    python -m llama4rec_core check PRESET                      every problem of your own files at once, or what they are
    python -m llama4rec_core doctor                            what this machine has and lacks
    python -m llama4rec_core estimate PRESET                   what the LLM will take on this machine: a minute or two
    python -m llama4rec_core tune PRESET LLM SEED              tune it, as the workflow does; also by torchrun
    python -m llama4rec_core export PRESET LLM SEED FOLDER     a tuned LLM as a plain Hugging Face folder

PRESET: a preset's name, or the path of a YAML file. LLM: trunk, without_hints (LLM') or with_hints (LLM''). Where
something is wrong or missing, the status is 1.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from llama4rec_core import doctor, presets
from llama4rec_core.data import Dataset, as_set, table_1
from llama4rec_core.data.check import mending, problems
from llama4rec_core.data.split import HELD_OUT, split
from llama4rec_core.llm.checkpoints import CHECKPOINTS, tune
from llama4rec_core.llm.estimate import estimate
from llama4rec_core.llm.export import export
from llama4rec_core.llm.model import load_tokenizer
from llama4rec_core.llm.titles import lengths
from llama4rec_core.run import Run


def check(preset: presets.Preset) -> tuple[str, bool]:
    """What is printed, and whether all is well."""
    found = problems(preset.data) if preset.data.name == "own" else []
    if found:
        said = "\n".join(f"- {each}" for each in found)
        yaml = mending(found)
        return f"{len(found)} problem(s):\n{said}\n" + (f"\nIn the preset:\n\n{yaml}" if yaml else ""), False
    return survey(as_set(preset.data), preset.llm), True


def survey(dataset: Dataset, llm: str) -> str:
    """Table 1, the long tail, the ratings, what each protocol needs and holds out, and the titles as `llm` reads
    them."""
    users, items = (np.bincount(dataset.interactions[name]) for name in ("user", "item"))
    top = np.sort(items)[::-1][: max(1, len(items) // 10)].sum() / items.sum()
    ratings = dataset.interactions["rating"].value_counts().sort_index()
    lines = [
        table_1(dataset).T.to_string(header=False),
        f"the most popular tenth of the items has {top:.0%} of the interactions",
        "ratings: " + ", ".join(f"{rating:g}: {count:,}" for rating, count in ratings.items()),
        f"without a rating: {len(dataset.interactions) - ratings.sum():,}",
        _titles(list(dataset.items["title"]), llm),
    ]
    for protocol, held in HELD_OUT.items():
        few = (users < sum(held) + 1).sum()
        lines.append(f"{protocol}: {few} of {len(users)} users have too few interactions (it needs {sum(held) + 1})")
        if not few:
            lines.append(f"{protocol}: SHA-256 of the split is {split(dataset, protocol).sha256}")
    return "\n".join(lines)


def _titles(titles: list[str], llm: str) -> str:
    """How long they are for a tokenizer, and how much of them tells one from the others."""
    try:
        tokenizer = load_tokenizer(llm)
    except (OSError, ValueError) as error:
        return f"titles were not counted in tokens: {str(error).splitlines()[0]}"
    tokens = list(map(tuple, tokenizer([title + "\n" for title in titles], add_special_tokens=False).input_ids))
    tables = {"title": [len(each) for each in tokens], "part that no other begins with": lengths(tokens)}
    said = [f"{what}: {np.median(counts):g} (at most {max(counts)})" for what, counts in tables.items()]
    twice = sum(count for count in Counter(tokens).values() if count > 1)
    return f"tokens of a {', of the '.join(said)}; {twice:,} of {len(titles):,} titles are another's too"


def told(preset: presets.Preset) -> str:
    """The estimate as text."""
    with tempfile.TemporaryDirectory() as folder:
        table = estimate(preset, Path(folder))
    lines = table.assign(minutes=(table["seconds"] / 60).round(1)).drop(columns="seconds").to_string(index=False)
    whole = f"about {table['seconds'].sum() / 60:.0f} minutes of the LLM's work on this machine"
    return f"{lines}\n{whole}; fitting the backbones comes on top"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llama4rec_core", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check").add_argument("preset")
    verbs.add_parser("doctor")
    verbs.add_parser("estimate").add_argument("preset")
    tuning = verbs.add_parser("tune")
    tuning.add_argument("preset")
    tuning.add_argument("llm", choices=CHECKPOINTS)
    tuning.add_argument("seed", type=int)
    exporting = verbs.add_parser("export")
    exporting.add_argument("preset")
    exporting.add_argument("llm", choices=CHECKPOINTS)
    exporting.add_argument("seed", type=int)
    exporting.add_argument("folder", type=Path)
    asked = parser.parse_args(arguments)
    try:
        if asked.verb == "check":
            said, well = check(presets.load(asked.preset))
        elif asked.verb == "doctor":
            said, well = doctor.report()
        elif asked.verb == "estimate":
            said, well = told(presets.load(asked.preset)), True
        elif asked.verb == "tune":
            said, well = f"{tune(Run.open(asked.preset), asked.llm, asked.seed)} is tuned", True
        else:
            said, well = f"{export(Run.open(asked.preset), asked.llm, asked.seed, asked.folder)} is written", True
    except (ValueError, OSError) as error:
        said, well = str(error), False
    print(said)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
