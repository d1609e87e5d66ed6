"""Search the backbones' settings: ML-100K, validation only, seeds 100 and 101.

    python scripts/search_backbones.py --wheel recbole-1.2.1-py3-none-any.whl [--only MF] [--protocol rolling]

Adds a row for each fit to results/search/backbones.csv (rolling: backbones_rolling.csv) and skips the fits that are
there already. The test items, a user's last, are dropped while reading: no line below can see them.
"""

import argparse
import io
import json
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llama4rec_core.backbones import BASELINES, FEATURE_MODELS  # noqa: E402
from llama4rec_core.backbones.fit import TrainingData, fit, settings_of  # noqa: E402
from llama4rec_core.data.split import HELD_OUT  # noqa: E402

SEEDS = (100, 101)
GRID = {  # the names of settings, then the values of each fit; what a fit does not name is the default
    "Popularity": [(), ()],
    "Bias": [("user_ridge", "item_ridge"), (5.0, 5.0), (2.0, 5.0), (10.0, 5.0), (5.0, 2.0), (5.0, 10.0)],
    "MF": [("l2", "dropout"), (0.01, 0.0), (0.003, 0.0), (0.01, 0.3)],
    "LightGCN": [("layers",), (2,), (3,)],
    "MixGCF": [("negatives", "lr", "batch_size"), (8, 0.01), (16, 0.01), (4, 0.01), (8, 0.005), (16, 0.005, 2048)]
    + [(32, 0.01), (64, 0.01)],
    "SGL": [("contrast", "lr", "temperature", "drop", "epochs", "patience")]
    + [(0.1, 0.01, 0.2, 0.1, 60, 8), (0.03, 0.01, 0.2, 0.1, 60, 8), (0.1, 0.01, 0.5, 0.3, 60, 8)]
    + [(0.03, 0.01, 0.5, 0.3, 60, 8), (0.01, 0.01, 0.5, 0.3, 60, 8), (0.1, 0.005, 0.5, 0.3, 60, 8)]
    + [(0.03, 0.005, 0.5, 0.3, 60, 8), (0.3, 0.01, 1.0, 0.3, 60, 8), (0.1, 0.01, 1.0, 0.3, 60, 8)]
    + [(0.1, 0.01, 0.5, 0.5, 60, 8), (0.1,), (0.03,), (0.01,)],
    "SASRec": [("epochs", "dropout"), (16, 0.3), (16, 0.5), (10, 0.3)],
    "BERT4Rec": [(), ()],
    "CL4SRec": [("contrast",), (0.1,), ()],
    "DeepFM": [("l2_linear", "l2_embedding"), (1e-5, 1e-4), (1e-5, 3e-5), (5e-5,), (2e-4,)],
    "NFM": [("l2_linear", "l2_embedding", "dropout_pooling"), (1e-5,), (5e-5,), (2e-4,), (1e-5, 1e-5, 0.0)],
    "DCN": [("l2_linear", "l2_embedding", "dropout", "lr", "epochs", "patience"), (1e-5,), (5e-5,), (2e-4,), (5e-4,)]
    + [(1e-5, 3e-5), (1e-5, 1e-5), (1e-5, 3e-5, 0.5), (1e-5, 1e-4, 0.2, 0.005), (2e-4, 1e-4, 0.2, 0.002, 40, 5)],
    "AFM": [("l2_linear", "l2_embedding", "dropout", "epochs", "patience"), (1e-5,), (5e-5,), (2e-4,), (1e-5, 3e-5)]
    + [(1e-5, 1e-5, 0.0), (2e-4, 1e-4, 0.2, 40, 5)],
    "xDeepFM": [("l2_linear", "l2_embedding", "patience"), (1e-5, 3e-5, 3), (1e-5, 1e-5, 3), (5e-5, 1e-5, 3), ()],
    "AutoInt": [("l2_linear", "l2_embedding", "patience", "lr", "layers", "dropout")]
    + [(1e-5, 1e-5, 3), (1e-5, 3e-5, 3), (1e-5, 1e-4, 3), (1e-5, 3e-4, 3), (5e-5, 1e-4, 3), (2e-4, 1e-4, 3)]
    + [(1e-5, 1e-4, 3, 0.005), (1e-5, 1e-4, 3, 0.002, 1, 0.5), ()],
}
for _rating in FEATURE_MODELS:  # as good as none, as in deepctr-torch's own fit
    GRID[_rating].append((1e-7, 1e-7))
ROLLING = {  # the same under the rolling protocol
    "LightGCN": [("layers", "l2", "lr", "batch_size", "dim"), (), (1,), (3,), (2, 1e-3), (2, 1e-2)]
    + [(2, 1e-4, 0.005, 2048), (2, 1e-4, 0.01, 4096, 128)],
    "SASRec": [("epochs", "layers", "length", "dropout"), (10, 2), (60, 2), (60, 1), (60, 2, 50, 0.4)],
}
GRIDS = {"leave-one-out": (GRID, "backbones.csv"), "rolling": (ROLLING, "backbones_rolling.csv")}


def read(wheel: str, protocol: str) -> tuple[TrainingData, pd.DataFrame]:
    """ML-100K's training and validation parts out of the RecBole wheel: stable sort by user, time, file order."""
    tables = []
    with zipfile.ZipFile(wheel) as archive:
        for end in ("inter", "user", "item"):
            text = io.BytesIO(archive.read(f"recbole/dataset_example/ml-100k/ml-100k.{end}"))
            tables.append(pd.read_csv(text, sep="\t", dtype=str, keep_default_na=False))
            tables[-1].columns = [column.split(":")[0] for column in tables[-1].columns]
    rows, users, items = tables
    items["genres"] = items["class"].str.replace(" ", "|")
    for name, table in (("user", users), ("item", items)):
        rows[name] = rows[f"{name}_id"].map({key: n for n, key in enumerate(table[f"{name}_id"])})
    rows[["rating", "time"]] = rows[["rating", "timestamp"]].astype(float)
    rows = rows.sort_values(["user", "time"], kind="stable")
    from_end = rows.groupby("user").cumcount(ascending=False)
    n_valid, n_test = HELD_OUT[protocol]
    train, valid = rows[from_end >= n_test + n_valid], rows[(from_end >= n_test) & (from_end < n_test + n_valid)]
    features = users[["age", "gender", "occupation"]], items[["genres"]].assign(year=items["release_year"])
    data = TrainingData(len(users), len(items), train["user"], train["item"], train["rating"], (1, 5), *features)
    return data, valid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", required=True, help="the RecBole wheel with ML-100K in it")
    parser.add_argument("--protocol", choices=GRIDS, default="leave-one-out")
    parser.add_argument("--only", choices=GRID, nargs="+", default=list(GRID), help="these backbones instead of all")
    parser.add_argument("--seeds", type=int, choices=SEEDS, nargs="+", default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, valid = read(options.wheel, options.protocol)
    grid, file = GRIDS[options.protocol]
    path = ROOT / "results" / "search" / file
    done = pd.read_csv(path)
    for name in filter(grid.get, options.only):
        names, *fits = grid[name]
        for values in fits:
            overrides = dict(zip(names, values, strict=False))
            settings = json.dumps(asdict(settings_of(name, overrides)))  # all of them, defaults may change later
            now = json.loads(settings).items()  # a row may hold settings that are gone since
            same = done["settings"].map(lambda text, now=now: now <= json.loads(text).items())
            seen = set(done["seed"][same & (done["backbone"] == name)])
            for seed in options.seeds if name not in BASELINES else SEEDS[:1]:
                if seed in seen:
                    continue
                start = time.perf_counter()
                log = fit(name, data, valid, seed, overrides).log
                metric = "rmse" if "rmse" in log else "ndcg@10"
                best = log[metric].min() if metric == "rmse" else log[metric].max()
                seconds = round(time.perf_counter() - start, 1)
                row = [name, settings, seed, metric, round(float(best), 5), len(log), seconds]
                print(row, flush=True)
                # one appended line each, so that two processes may search two backbones
                pd.DataFrame([row]).to_csv(path, mode="a", header=False, index=False)


if __name__ == "__main__":
    main()
