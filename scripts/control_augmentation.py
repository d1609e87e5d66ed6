"""Additions to the training data that no LLM made, as many as the LLM's.

    python scripts/control_augmentation.py PRESET KIND CONTROL SEED     augmentation/KIND-CONTROL-sSEED.csv

KIND: pairs, insertions or attributes. CONTROL: random, or popular (not of attributes). Notebook 02 fits a backbone on
them with `fit` random or popular.
"""

import argparse

import pandas as pd

from llama4rec_core import augmentation
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.files import write_frame
from llama4rec_core.run import Run, rng


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("kind", choices=["pairs", "insertions", "attributes"])
    parser.add_argument("control", choices=["random", "popular"])
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    run = Run.open(asked.preset)
    histories = read_prepared(run.path("data"), run.preset).histories
    made = pd.read_csv(run.path(f"augmentation/{asked.kind}-s{asked.seed}.csv"), keep_default_na=False)
    if asked.control == "random":
        found = augmentation.random_control(made, asked.kind, histories, rng("random control", asked.seed))
    else:
        found = augmentation.popularity_placebo(made, asked.kind, histories, rng("popularity placebo", asked.seed))
    write_frame(run.path(f"augmentation/{asked.kind}-{asked.control}-s{asked.seed}.csv"), found)


if __name__ == "__main__":
    main()
