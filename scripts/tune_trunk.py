"""Tune the trunk from which LLM' and LLM'' branch off, on histories before the windows.

python scripts/tune_trunk.py PRESET SEED      llm/trunk-sSEED: a whole model, its curve and its record
"""

import argparse

import torch

from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.llm import examples, finetune, model
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run, rng


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    run = Run.open(asked.preset)
    settings, ready = run.preset.tuning, read_prepared(run.path("data"), run.preset)
    drawn = asked.seed if settings.start == "random" else None
    llm = model.load(run.preset.llm, dtype=torch.float32, layers=settings.layers, seed=drawn)
    titles = Ranker.of(run.preset, llm, ready.histories, tuned=True).titles
    told = examples.trunk(llm, ready.histories, titles, run.preset.instructions.trunk, rng("trunk", asked.seed))
    folder = run.path(f"llm/trunk-s{asked.seed}")
    rows = finetune.pack(told, settings.row_tokens, asked.seed)
    finetune.tune(llm, rows, settings, settings.trunk_learning_rate, folder, asked.seed)
    finetune.clean(folder)


if __name__ == "__main__":
    main()
