"""The search for the backbones' settings: ML-100K, leave-one-out, validation only, seeds 100 and 101.

    python results/search/search_backbones.py --wheel recbole-1.2.1-py3-none-any.whl [--only MF]

Adds a row for each fit to backbones.csv beside this file and skips the fits that are there already. The last item of
a user, the test, is dropped while reading: no line below can see it.
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

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from llama4rec_core.backbones import TrainingData, fit, settings_of  # noqa: E402

SEEDS = (100, 101)
GRID = {
    "Popularity": [{}],
    "Bias": [
        {"user_ridge": user, "item_ridge": item}
        for user, item in ((5.0, 5.0), (2.0, 5.0), (10.0, 5.0), (5.0, 2.0), (5.0, 10.0))
    ],
    "MF": [
        {"lr": 0.005, "patience": 12, "l2": 0.01},
        {"lr": 0.005, "patience": 12, "l2": 0.003},
        {"lr": 0.005, "patience": 12, "dropout": 0.3},
    ],
    "LightGCN": [{"lr": 0.01, "layers": 2}, {"lr": 0.01, "layers": 3}],
    "MixGCF": [{"negatives": 8, "lr": 0.01}, {"negatives": 16, "lr": 0.01}, {"negatives": 4, "lr": 0.01}]
    + [{"negatives": 8, "lr": 0.005}, {"negatives": 16, "lr": 0.005, "batch_size": 2048}]
    + [{"negatives": m, "lr": 0.01} for m in (32, 64)],
    "SGL": [
        {"temperature": t, "drop": drop, "contrast": contrast, "lr": lr, "epochs": 60, "patience": 8}
        for t, drop, contrast, lr in (
            (0.2, 0.1, 0.1, 0.01),
            (0.2, 0.1, 0.03, 0.01),
            (0.5, 0.3, 0.1, 0.01),
            (0.5, 0.3, 0.03, 0.01),
            (0.5, 0.3, 0.01, 0.01),
            (0.5, 0.3, 0.1, 0.005),
            (0.5, 0.3, 0.03, 0.005),
            (1.0, 0.3, 0.3, 0.01),
            (1.0, 0.3, 0.1, 0.01),
            (0.5, 0.5, 0.1, 0.01),
        )
    ]
    + [{"contrast": contrast} for contrast in (0.1, 0.03, 0.01)],
    "SASRec": [
        {"batch_size": 64, "lr": 0.002, "epochs": 16, "patience": 4, "dropout": 0.3},
        {"batch_size": 64, "lr": 0.002, "epochs": 16, "patience": 4, "dropout": 0.5},
        {"batch_size": 64, "lr": 0.002, "epochs": 10, "patience": 4, "dropout": 0.3},
    ],
    "BERT4Rec": [{}],
    "CL4SRec": [{"contrast": 0.1}, {}],
    "DeepFM": [{"l2_embedding": l2} for l2 in (1e-4, 3e-5)] + [{"l2_linear": l2} for l2 in (5e-5, 2e-4)],
    "NFM": [{"l2_linear": l2} for l2 in (1e-5, 5e-5, 2e-4)]
    + [{"l2_linear": 1e-5, "l2_embedding": 1e-5, "dropout_pooling": 0.0}],
    "DCN": [{"l2_linear": l2} for l2 in (1e-5, 5e-5, 2e-4, 5e-4)]
    + [{"l2_linear": 1e-5, "l2_embedding": l2} for l2 in (3e-5, 1e-5)]
    + [{"l2_linear": 1e-5, "l2_embedding": 3e-5, "dropout": 0.5}, {"l2_linear": 1e-5, "lr": 0.005}],
    "AFM": [{"l2_linear": l2} for l2 in (1e-5, 5e-5, 2e-4)]
    + [{"l2_linear": 1e-5, "l2_embedding": 3e-5}]
    + [{"l2_linear": 1e-5, "l2_embedding": 1e-5, "dropout": 0.0}],
    "xDeepFM": [
        {"patience": 3, **each} for each in ({"l2_embedding": 3e-5}, {"l2_embedding": 1e-5}, {"l2_linear": 5e-5})
    ]
    + [{}],
    "AutoInt": [
        {"patience": 3, "l2_linear": 1e-5, "l2_embedding": 1e-4, **each}
        for each in (
            *({"l2_embedding": l2} for l2 in (1e-5, 3e-5, 1e-4, 3e-4)),
            *({"l2_linear": l2} for l2 in (5e-5, 2e-4)),
            {"lr": 0.005},
            {"layers": 1, "dropout": 0.5},
        )
    ]
    + [{}],
}
for _rating in ("DCN", "AFM"):  # fits that went to the last of their 20 epochs
    GRID[_rating].append({"epochs": 40, "patience": 5})
for _rating in ("DeepFM", "NFM", "DCN", "AFM", "xDeepFM", "AutoInt"):  # as good as none, as in deepctr-torch's own fit
    GRID[_rating].append({"l2_linear": 1e-7, "l2_embedding": 1e-7})


def read(wheel: str) -> tuple[TrainingData, pd.DataFrame]:
    """ML-100K's training and validation parts out of the RecBole wheel: stable sort by user, time, file order."""
    tables = []
    with zipfile.ZipFile(wheel) as archive:
        for end in ("inter", "user", "item"):
            text = io.BytesIO(archive.read(f"recbole/dataset_example/ml-100k/ml-100k.{end}"))
            tables.append(pd.read_csv(text, sep="\t", dtype=str, keep_default_na=False))
            tables[-1].columns = [column.split(":")[0] for column in tables[-1].columns]
    rows, users, items = tables
    items["genres"] = items["class"].str.replace(" ", "|")
    rows["user"] = rows["user_id"].map({key: n for n, key in enumerate(users["user_id"])})
    rows["item"] = rows["item_id"].map({key: n for n, key in enumerate(items["item_id"])})
    rows[["rating", "time"]] = rows[["rating", "timestamp"]].astype(float)
    rows = rows.sort_values(["user", "time"], kind="stable")
    from_end = rows.groupby("user").cumcount(ascending=False)
    train, valid = rows[from_end > 1], rows[from_end == 1]
    features = users[["age", "gender", "occupation"]], items[["genres"]].assign(year=items["release_year"])
    data = TrainingData(len(users), len(items), train["user"], train["item"], train["rating"], (1, 5), *features)
    return data, valid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", required=True, help="the RecBole wheel with ML-100K in it")
    parser.add_argument("--only", choices=GRID, nargs="+", default=list(GRID), help="these backbones instead of all")
    parser.add_argument("--seeds", type=int, choices=SEEDS, nargs="+", default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, valid = read(options.wheel)
    path = HERE / "backbones.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["backbone", "settings", "seed"])
    seen = set(zip(done["backbone"], done["settings"], done["seed"], strict=True))
    for name in options.only:
        for overrides in GRID[name]:
            settings = json.dumps(asdict(settings_of(name, overrides)))  # all of them, defaults may change later
            for seed in options.seeds if name not in ("Popularity", "Bias") else SEEDS[:1]:
                if (name, settings, seed) in seen:
                    continue
                start = time.perf_counter()
                log = fit(name, data, valid, seed, overrides).log
                metric = "rmse" if "rmse" in log else "ndcg@10"
                row = {
                    "backbone": name,
                    "settings": settings,
                    "seed": seed,
                    "valid_metric": metric,
                    "valid": round(float(log[metric].min() if metric == "rmse" else log[metric].max()), 5),
                    "epochs": len(log),
                    "seconds": round(time.perf_counter() - start, 1),
                }
                print(row, flush=True)
                # one appended line each, so that two processes may search two backbones
                pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)


if __name__ == "__main__":
    main()
