"""How well does an LLM rank the whole catalogue, without candidates? On validation cases only.

    python scripts/catalogue.py PRESET LLM TASK SEED [--users N]     llm/catalogue-LLM-TASK-sSEED.csv

LLM: trunk, without_hints. TASK: direct or sequential. One pass over the trie of titles gives every item's exact
likelihood. Beside it stand the baselines and the preset's backbones on the same cases, all over all unseen items.
Stopped and started again, it goes on after the last finished batch.
"""

import argparse

import numpy as np
import pandas as pd

from llama4rec_core import evaluation
from llama4rec_core.backbones import BASELINES, task_of
from llama4rec_core.backbones.fit import fit, training_data
from llama4rec_core.backbones.predict import predict_cases, read_predictions
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.files import write_frame
from llama4rec_core.llm import batches, model, prompts
from llama4rec_core.llm.titles import Catalogue
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run, draw_users, rng


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("llm", choices=["trunk", "without_hints"])
    parser.add_argument("task", choices=["direct", "sequential"])
    parser.add_argument("seed", type=int)
    parser.add_argument("--users", type=int, default=None, help="only this many, drawn at random")
    asked = parser.parse_args()
    run, s = Run.open(asked.preset), f"s{asked.seed}"
    ready = read_prepared(run.path("data"), run.preset)
    histories, n_users = ready.histories, ready.dataset.n_users
    drawn = draw_users(asked.users, n_users, rng("measured users"))
    known = ready.cases(asked.task).query("part == 'valid' and user in @drawn")
    known = known.reset_index(drop=True)

    llm = model.load(run.preset.llm, run.path(f"llm/{asked.llm}-{s}"))
    ranker = Ranker.of(run.preset, llm, histories, tuned=True)
    every, length = Catalogue.of(ranker.titles), run.preset.prompts.history
    places = known[["user", "prefix"]].drop_duplicates()
    asks = []
    for user, prefix in places.itertuples(index=False):
        text = prompts.with_history(llm, histories.words, ranker.titles, histories.history(user, prefix, length))
        asks.append(text.prompt(f"{user}-{prefix}", every.branches))
    name = f"catalogue-{asked.llm}-{asked.task}-{s}"
    scores = batches.score(llm, asks, run.path(f"llm/.answers/{name}.parquet"), name, 4096)
    found = {}
    for key, rows in scores.groupby("key", sort=False):
        found[key] = every.log_p([rows.sort_values(["branch", "choice"])["log_p"].to_numpy()])

    rows = [of_ranks("LLM", known, [_rank(found[f"{c.user}-{c.prefix}"], c, histories) for c in known.itertuples()])]
    counts = ready.split.valid["user"].value_counts().reindex(range(n_users), fill_value=0).to_numpy()
    for baseline in BASELINES:
        if task_of(baseline) != "rating":
            data = training_data(ready.dataset, ready.split.train, task_of(baseline))
            fitted = fit(baseline, data, ready.split.valid, asked.seed)
            lists = predict_cases(fitted, known, histories, counts, 20, data.histories)
            rows.append(of_ranks(baseline, known, evaluation.target_rank(lists.items, known["item"].to_numpy())))
    for backbone in run.preset.backbones:
        folder = f"backbones/{backbone}-{s}/base"
        if task_of(backbone) == asked.task and run.has(f"{folder}/predictions.parquet"):
            lists = read_predictions(run.path(folder)).part("valid")
            lists = lists.only(lists.cases["user"].isin(drawn).to_numpy())
            rank = evaluation.target_rank(lists.items, lists.cases["item"].to_numpy())
            rows.append(of_ranks(backbone, lists.cases, rank))
    table = pd.DataFrame(rows)
    write_frame(run.path(f"llm/{name}.csv"), table)
    print(table.round(4).to_string(index=False))


def _rank(log_p: np.ndarray, case, histories) -> int:
    """The target's place among all items that the user has not had; behind those that are as likely."""
    unseen = np.ones(len(log_p), dtype=bool)
    unseen[histories.history(case.user, case.prefix, case.prefix)] = False
    return int((log_p[unseen] >= log_p[case.item]).sum())


def of_ranks(name: str, known: pd.DataFrame, rank) -> dict:
    values = evaluation.per_user(evaluation.ndcg(np.asarray(rank), 5), known["user"].to_numpy())
    return {"name": name} | vars(evaluation.estimate(values.to_numpy()))


if __name__ == "__main__":
    main()
