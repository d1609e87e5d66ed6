"""How fast the backbones are: against deepctr-torch's and RecBole's own training on MovieLens-100K, and as data grows.

    python tests/benchmarks/benchmark_backbones.py                     all parts, in one run on one machine
    python tests/benchmarks/benchmark_backbones.py --parts deepctr     some of: deepctr, recbole, ranking, growth

Writes results/benchmarks/backbones.csv: the rows of the parts that were run, and the others as they were. `ratio` is
the peer's time by ours. RecBole is installed into a throw-away virtual environment that this script makes.

Both sides use every core and take turns, each turn with its seed: three where the first takes under 150 seconds. Same
quality: in each turn, the time until the worse of the two best validation values is first reached. Seconds are medians
over the turns, metrics means. Training alone is timed on both sides, validation is not. A peer trains for at most LIMIT
seconds a model.
"""

import argparse
import contextlib
import io
import json
import subprocess
import tempfile
import textwrap
import time
import timeit
import venv
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import table
import torch

from llama4rec_core import data as sources
from llama4rec_core.backbones import PAPER_BACKBONES, backbone_of, task_of
from llama4rec_core.backbones.feature_models import columns_of
from llama4rec_core.backbones.features import fields_of
from llama4rec_core.backbones.fit import TrainingData, fit, settings_of
from llama4rec_core.backbones.predict import top_k

LIMIT = 180.0
COLUMNS = ["part", "what", "ours_s", "peer", "peer_s", "ratio", "ours_metric", "peer_metric", "unit"]


def ml_100k() -> tuple[TrainingData, pd.DataFrame]:
    dataset = sources.load("ml-100k")
    parts = sources.split(dataset)
    keep = lambda table: table.drop(columns=[c for c in ("user_id", "item_id", "title", "zip_code") if c in table])  # noqa: E731
    data = TrainingData(
        dataset.n_users,
        dataset.n_items,
        parts.train["user"],
        parts.train["item"],
        parts.train["rating"],
        dataset.scale,
        keep(dataset.users),
        keep(dataset.items),
    )
    return data, parts.valid


def row(part, what, ours_s, unit, peer="", peer_s=None, ours_metric=None, peer_metric=None) -> dict:
    ratio = None if peer_s is None else peer_s / ours_s
    return dict(zip(COLUMNS, (part, what, ours_s, peer, peer_s, ratio, ours_metric, peer_metric, unit), strict=True))


def reached(seconds: list[float], values: list[float], target: float, larger_is_better: bool) -> float:
    """Seconds until `target` was first reached; `seconds` are cumulative, one for each epoch."""
    sign = 1 if larger_is_better else -1
    return next(s for s, v in zip(seconds, values, strict=True) if sign * v >= sign * target)


Turns = list[tuple[pd.DataFrame, pd.DataFrame]]  # ours and the peer's: seconds and value after each epoch


def turns(ours: Callable[[int], pd.DataFrame], theirs: Callable[[int], pd.DataFrame]) -> Turns:
    """Both sides' curves, of seed 0 and, where that is quick, of seeds 1 and 2."""
    first = ours(0), theirs(0)
    more = (1, 2) if sum(curve["seconds"].iloc[-1] for curve in first) < 150 else ()
    return [first, *((ours(seed), theirs(seed)) for seed in more)]


def compare(part: str, name: str, peer: str, taken: Turns, targets: int, larger: bool) -> list[dict]:
    """Two rows: seconds a training target, and seconds to the same validation quality."""
    each, until, best = [], [], []  # a pair for each turn
    for pair in taken:
        found = [frame["value"].max() if larger else frame["value"].min() for frame in pair]
        target = min(found) if larger else max(found)
        each.append([frame["seconds"].iloc[-1] / len(frame) / targets for frame in pair])
        until.append([reached(frame["seconds"], frame["value"], target, larger) for frame in pair])
        best.append(found)
    metric = "validation NDCG@10" if larger else "validation RMSE"
    unit = f"seconds; best {metric}, " + (f"mean of {len(taken)} seeds" if len(taken) > 1 else "one seed")
    values = np.mean(best, axis=0)
    return [
        row(part, f"{name}: {what}", ours_s, unit, peer, peer_s, *values)
        for what, (ours_s, peer_s) in (
            ("a training target", np.median(each, axis=0)),
            (f"to the same {metric}", np.median(until, axis=0)),
        )
    ]


def our_curve(name: str, data: TrainingData, valid: pd.DataFrame, seed: int) -> pd.DataFrame:
    log = fit(name, data, valid, seed).log
    return pd.DataFrame({"seconds": log["seconds"], "value": log["rmse" if "rmse" in log else "ndcg@10"]})


# --- deepctr-torch's own fit -----------------------------------------------------------------------------------------


def deepctr_rows() -> Iterator[dict]:
    data, valid = ml_100k()
    for name in (name for name in PAPER_BACKBONES if task_of(name) == "rating"):
        taken = turns(partial(our_curve, name, data, valid), partial(_deepctr_fit, name, data, valid))
        yield from compare("deepctr", name, "deepctr-torch fit", taken, len(data.users), False)


def _deepctr_fit(name: str, data: TrainingData, valid: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same network with deepctr-torch's compile and fit: its data loader, its metrics; one epoch a call.

    Its fit sums a batch's squared errors where ours takes their mean: for the same objective, up to a factor that Adam
    ignores, its L2 weights are ours times the batch size.
    """
    torch.manual_seed(seed)
    settings = settings_of(name)
    l2 = {f.name: getattr(settings, f.name) * settings.batch_size for f in fields(settings) if f.name[:3] == "l2_"}
    settings = replace(settings, **l2)
    users = fields_of("user", data.n_users, data.user_features)
    items = fields_of("item", data.n_items, data.item_features)
    model = backbone_of(name)[0].network(columns_of(users + items, settings.dim), settings)
    for n, weight in enumerate((settings.l2_embedding, settings.l2_linear)):  # of V and w
        model.regularization_weight[n] = (model.regularization_weight[n][0], 0.0, weight)
    model.compile(torch.optim.Adam(model.parameters(), lr=settings.lr), "mse", metrics=["mse"])
    of_users, of_items = (np.concatenate([field.codes for field in fields], axis=1) for fields in (users, items))

    def inputs(users, items) -> dict[str, np.ndarray]:
        table = np.concatenate([of_users[users], of_items[items]], axis=1)
        return {key: table[:, slice(*at)].squeeze() for key, at in model.feature_index.items()}

    mean = float(data.ratings.mean(dtype=np.float64))
    x, y = inputs(data.users, data.items), (data.ratings - mean)[:, None]
    x_valid = inputs(valid["user"].to_numpy(), valid["item"].to_numpy())
    out, seconds, best = [], 0.0, 0
    for epoch in range(settings.epochs):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(x, y, batch_size=settings.batch_size, epochs=1, verbose=0)
        seconds += time.perf_counter() - start
        error = np.clip(model.predict(x_valid, 4096)[:, 0] + mean, *data.scale) - valid["rating"].to_numpy()
        out.append({"seconds": seconds, "value": float(np.sqrt(np.square(error).mean()))})
        best = epoch if out[epoch]["value"] < out[best]["value"] else best
        if epoch - best >= settings.patience or seconds > LIMIT:
            break
    return pd.DataFrame(out)


# --- RecBole ---------------------------------------------------------------------------------------------------------

RECBOLE = {"MF": "BPR", "LightGCN": "LightGCN", "SGL": "SGL", "SASRec": "SASRec", "BERT4Rec": "BERT4Rec"}
# the peer gets our learning rate, and for direct models our batch size (its sequential rows are one target, not fifty)
TRANSFORMER = {
    "MAX_ITEM_LIST_LENGTH": 50, "n_heads": 2, "inner_size": 256, "loss_type": "CE", "train_neg_sample_args": None,
}  # fmt: skip
PEER = """
import json, sys, time
import numpy as np, scipy.sparse
import torch
# what RecBole 1.2.1 still calls: names that numpy has dropped, a private method that scipy has dropped, and pickles
for old, new in (("float", float), ("int", int), ("bool", bool), ("object", object), ("unicode_", np.str_),
                 ("float_", np.float64), ("complex_", np.complex128)):
    if old not in np.__dict__:
        setattr(np, old, new)
def _update(self, entries):
    for (i, j), value in entries.items():
        self[i, j] = value
scipy.sparse.dok_matrix._update = _update
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
name, more = sys.argv[1], json.loads(sys.argv[2])
config = Config(model=name, dataset="ml-100k", config_dict={
    "data_path": sys.argv[3], "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "embedding_size": 64,
    "n_layers": 2, "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "metrics": ["NDCG"], "topk": [10], "valid_metric": "NDCG@10", "show_progress": False, "state": "ERROR",
    "save_dataset": False, "checkpoint_dir": sys.argv[4], "use_gpu": False, **more})
init_seed(int(sys.argv[6]), True)
dataset = create_dataset(config)
train, valid, _ = data_preparation(config, dataset)
model = get_model(name)(config, train._dataset).to("cpu")
trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
limit, seconds, best, bad = float(sys.argv[5]), 0.0, 0.0, 0
for epoch in range(300):
    start = time.perf_counter(); trainer._train_epoch(train, epoch); trained = time.perf_counter() - start
    start = time.perf_counter(); value = trainer._valid_epoch(valid)[0]; ranked = time.perf_counter() - start
    seconds += trained
    print("ROW", json.dumps({"seconds": seconds, "value": float(value), "ranking": ranked}), flush=True)
    bad = 0 if value > best else bad + 1
    best = max(best, value)
    if bad >= 10 or seconds > limit:
        break
"""


def recbole_rows() -> Iterator[dict]:
    """RecBole's own loop on the same ratings."""
    data, valid = ml_100k()
    all_histories = data.histories
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        python = _recbole_environment(folder / "venv")
        _recbole_file(folder / "data" / "ml-100k" / "ml-100k.inter")
        (folder / "peer.py").write_text(textwrap.dedent(PEER), encoding="utf-8")
        for ours, theirs in RECBOLE.items():
            settings = settings_of(ours)
            more = {"learning_rate": settings.lr}
            more |= TRANSFORMER if ours in ("SASRec", "BERT4Rec") else {"train_batch_size": settings.batch_size}
            places = [str(folder / "data"), str(folder / "saved")]
            command = [python, "peer.py", theirs, json.dumps(more), *places, str(LIMIT)]
            try:
                taken = turns(partial(our_curve, ours, data, valid), partial(_recbole_fit, command, folder))
            except RuntimeError as error:
                print(error, flush=True)
                continue
            yield from compare("recbole", ours, f"RecBole {theirs}", taken, len(data.users), True)
            fitted, users = fit(ours, data, None, 0, {"epochs": 1}), valid["user"].to_numpy()
            histories = [all_histories[u] for u in users]
            ranked = partial(top_k, fitted, users, histories, histories, 10)
            seconds = float(np.median(timeit.repeat(ranked, number=1, repeat=5)))
            peer_s = float(pd.concat([peer for _, peer in taken])["ranking"].median())
            what = f"{ours}: full ranking of {len(users)} users"
            yield row("recbole", what, seconds, "seconds", f"RecBole {theirs}", peer_s)


def _recbole_fit(command: list[str], folder: Path, seed: int) -> pd.DataFrame:
    found = subprocess.run([*command, str(seed)], cwd=folder, capture_output=True, text=True)
    rows = [json.loads(line[4:]) for line in found.stdout.splitlines() if line.startswith("ROW ")]
    if not rows:
        raise RuntimeError(f"RecBole's {command[2]} did not run: {found.stderr.strip().splitlines()[-1:]}")
    return pd.DataFrame(rows)


def _recbole_file(path: Path) -> None:
    """The same interactions in RecBole's format, with each one's place in its user's history for a time."""
    parts = sources.split(sources.load("ml-100k"))
    order = pd.concat([parts.train, parts.valid, parts.test]).sort_values("user", kind="stable")
    frame = pd.DataFrame({"user_id:token": order["user"], "item_id:token": order["item"]})
    path.parent.mkdir(parents=True)
    frame.assign(**{"timestamp:float": order.groupby("user").cumcount()}).to_csv(path, sep="\t", index=False)


def _recbole_environment(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    packages = ["recbole==1.2.1", "ray", f"torch=={torch.__version__.split('+')[0]}"]
    subprocess.run([python, "-m", "pip", "install", "-qq", *packages], check=True)
    return python


# --- ranking and growth ----------------------------------------------------------------------------------------------

SHAPES = {"ML-1M": (6_040, 3_706, 1_000_000), "ML-20M": (138_000, 27_000, 20_000_000)}  # users, items, interactions


def made_up(n_users: int, n_items: int, n: int, seed: int = 0) -> TrainingData:
    """Users with log-normal activity, items with Zipf popularity: the shape of a data set and nothing else."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, 1, n_users)
    users = np.sort(rng.choice(n_users, n, p=activity / activity.sum()))
    popularity = 1 / (np.arange(n_items) + 10.0)
    items = rng.choice(n_items, n, p=popularity / popularity.sum())
    return TrainingData(n_users, n_items, users, items, np.ones(n, dtype=np.float32))


def ranking_rows() -> Iterator[dict]:
    data = made_up(*SHAPES["ML-1M"])
    fitted = fit("MF", data, None, 0, {"epochs": 1})
    users, histories = np.arange(data.n_users), data.histories
    seconds = timeit.timeit(lambda: top_k(fitted, users, None, histories, 10), number=1)
    yield row("ranking", f"full ranking of {data.n_users} users, {data.n_items} items", seconds, "seconds")


GRAPHS = ("LightGCN", "MixGCF", "SGL")
GROWTH = {  # settings under which a step costs the same on any data: sampled softmax, batches that grow with the data
    "MF": {},
    "SASRec": {"negatives": 50},
    "BERT4Rec": {"negatives": 50},
    "CL4SRec": {"negatives": 50},
    "LightGCN": {},
    "MixGCF": {},
    "SGL": {},
}


def growth_rows() -> Iterator[dict]:
    """Seconds of training a target (graph models: a step and edge); peer_s: the same on the smaller data. The two take
    steps in turn, and medians count, so that what else the machine does at a moment meets both."""
    data = [made_up(*size) for size in SHAPES.values()]
    for name, overrides in GROWTH.items():
        pair = [_steps(name, each, overrides) for each in data]
        warm, counted = (1, 5) if name in GRAPHS else (2, 15)
        taken = [[next(steps) for steps in pair] for _ in range(warm + counted)][warm:]
        small, large = np.median(taken, axis=0)
        unit = "seconds a step and edge" if name in GRAPHS else "seconds a target"
        yield row("growth", f"{name}, shape of ML-1M", small, unit)
        found = row("growth", f"{name}, shape of ML-20M", large, unit, "the same on ML-1M's shape", small)
        yield found | {"ratio": large / small}


def _steps(name: str, data: TrainingData, overrides: dict) -> Iterator[float]:
    """Optimiser steps: seconds a target of each, or, of a graph model, seconds an edge."""
    batch = len(data.users) // 500 if name == "MF" else settings_of(name).batch_size
    settings = settings_of(name, {**overrides, "batch_size": batch})
    torch.manual_seed(0)
    module = backbone_of(name)[0](data, settings)
    examples = [torch.from_numpy(x) for x in module.examples(np.random.default_rng(0))]
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    for rows in torch.from_numpy(np.random.default_rng(1).permutation(len(examples[0]))).split(batch):
        if name in GRAPHS:
            units = len(data.users)
        elif name == "MF":
            units = len(rows)
        elif name == "BERT4Rec":
            units = int((examples[1][rows] < data.n_items).sum())
        else:
            units = int((examples[0][rows][:, 1:] < data.n_items).sum())
        start = time.perf_counter()
        loss = module.loss(*(x[rows] for x in examples))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield (time.perf_counter() - start) / units


PARTS = {"deepctr": deepctr_rows, "recbole": recbole_rows, "ranking": ranking_rows, "growth": growth_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    table.run({part: PARTS[part] for part in PARTS if part in asked.parts}, COLUMNS, "backbones.csv")


if __name__ == "__main__":
    main()
