"""Try settings of a backbone on validation: a preset's data, seeds that no row has. Test items are not read.

    python scripts/search_backbones.py PRESET BACKBONE ['{layers: 3}' ...] [--seeds 100 101]

Each setting is a YAML mapping; what it does not name is as the preset has it. Without any, the preset's own are tried.
Adds a line for each fit to results/search/PRESET.csv, and skips the fits that are there. `peak_mb` is the most memory
that the process has held so far.
"""

import argparse
import json
import resource
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
import yaml

from llama4rec_core import paths
from llama4rec_core.backbones import task_of
from llama4rec_core.backbones.fit import fit, settings_of, training_data
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.run import Run

COLUMNS = ["backbone", "settings", "seed", "valid_metric", "valid", "epochs", "seconds", "peak_mb"]


def searched(run: Run, name: str, tried: list[dict], seeds: list[int], path: Path) -> None:
    """Fit, and append the best validation value of each setting and seed to `path`. Raises ValueError for a setting
    that the backbone does not have."""
    run.require("data/dataset.json")
    ready = read_prepared(run.path("data"), run.preset)
    data, valid = training_data(ready.dataset, ready.split.train, task_of(name)), ready.split.valid
    own = run.preset.backbone_settings.get(name) or {}
    asked = [json.dumps(asdict(settings_of(name, own | each))) for each in tried]  # all of them: defaults may change
    path.parent.mkdir(parents=True, exist_ok=True)
    for settings, seed in ((settings, seed) for settings in asked for seed in seeds):
        done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
        if ((done["backbone"] == name) & (done["settings"] == settings) & (done["seed"] == seed)).any():
            continue
        start = time.perf_counter()
        log = fit(name, data, valid, seed, json.loads(settings)).log
        metric, best = ("rmse", min) if "rmse" in log else ("ndcg@10", max)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        line = [name, settings, seed, metric, round(best(log[metric]), 5), len(log)]
        line = pd.DataFrame([[*line, round(time.perf_counter() - start, 1), peak]], columns=COLUMNS)
        print(line.to_string(index=False, header=False), flush=True)
        # one appended line each, so that two processes may search two backbones
        line.to_csv(path, mode="a", header=not path.exists(), index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("backbone")
    parser.add_argument("settings", nargs="*", type=yaml.safe_load, default=[{}])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(asked.preset)
    searched(run, asked.backbone, asked.settings, asked.seeds, paths.results() / "search" / f"{run.preset.name}.csv")


if __name__ == "__main__":
    main()
