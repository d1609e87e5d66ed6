"""A baseline's opinion in place of an LLM's: its scores of a backbone's candidates, or the ratings it predicts.

    python scripts/second_opinion.py PRESET BACKBONE FIT OPINION SEED    scores/BACKBONE-FIT-OPINION-sSEED.parquet

OPINION: Popularity, ItemKNN, EASE or RecentItemKNN about lists, Bias about ratings. It is fitted on the training part
and reads what the LLM may read, the history of each case. The file is as those of scripts/ask.py: only lists that hold
their target, ratings of the same users.
"""

import argparse

import numpy as np
import pandas as pd

from llama4rec_core.backbones import BASELINES, task_of
from llama4rec_core.backbones.fit import Fitted, fit, training_data
from llama4rec_core.backbones.predict import Predictions, candidate_scores, read_predictions
from llama4rec_core.data.histories import Histories
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.files import write_frame, write_json
from llama4rec_core.llm.examples import candidate_lists, rating_groups, with_target
from llama4rec_core.run import Run, draw_users, rng

NO_COST = dict.fromkeys(("prompts", "prompts_sent", "tokens_read", "tokens_written", "logits", "batches", "seconds"), 0)
NO_COST |= {"asked": None, "machine": "none"}


def of_lists(baseline: Fitted, known: Predictions, histories: Histories) -> pd.DataFrame:
    """What a top-k baseline says about the lists that hold their target: columns key, item, log_p, utility."""
    part, user, prefix = (known.cases[name].astype(str) for name in ("part", "user", "prefix"))
    key = part + "-" + user + "-" + prefix  # that of `candidate_lists`
    asked = [each.key for each in with_target(candidate_lists(known.cases, known.items))]
    once = (key.isin(asked) & ~key.duplicated()).to_numpy()  # cases of one history share their list
    lists = known.only(once)
    score = candidate_scores(baseline, lists, histories).ravel()
    key = key[once].repeat(lists.items.shape[1]).to_numpy()
    return pd.DataFrame({"key": key, "item": lists.items.ravel(), "log_p": score, "utility": score})


def of_ratings(baseline: Fitted, known: Predictions, histories: Histories, scale: tuple[float, float]) -> pd.DataFrame:
    """What a rating baseline says about every case: columns as those of `llm.rate.rate`, clipped to the same scale."""
    rows = pd.concat([rows for _, rows in rating_groups(known.cases, known.ratings)], ignore_index=True)
    expected = baseline.rate(rows["user"], rows["item"]).clip(*scale)
    likeliest = histories.values[np.abs(histories.values - expected[:, None]).argmin(axis=1)]
    frame = rows[["part", "user", "item", "rating"]]
    return frame.assign(backbone=rows["predicted"].clip(*scale), expected=expected, likeliest=likeliest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("preset", "backbone", "fit"):
        parser.add_argument(name)
    parser.add_argument("opinion", choices=BASELINES)
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    if (task_of(asked.backbone) == "rating") != (task_of(asked.opinion) == "rating"):
        parser.error(f"{asked.opinion} has no opinion about {asked.backbone}'s {task_of(asked.backbone)} predictions")
    run = Run.open(asked.preset)
    ready = read_prepared(run.path("data"), run.preset)
    data = training_data(ready.dataset, ready.split.train, task_of(asked.opinion))
    baseline = fit(asked.opinion, data, None, asked.seed, run.preset.backbone_settings.get(asked.opinion))
    known = read_predictions(run.path(f"backbones/{asked.backbone}-s{asked.seed}/{asked.fit}")).part("valid", "test")
    if baseline.task == "rating":
        n_users = ready.dataset.n_users
        users = draw_users(run.preset.evaluation.rating_users or n_users, n_users, rng("measured users"))
        known = known.only(known.cases["user"].isin(users).to_numpy())
        said = of_ratings(baseline, known, ready.histories, ready.dataset.scale)
    else:
        said = of_lists(baseline, known, ready.histories)
    name = f"{asked.backbone}-{asked.fit}-{asked.opinion}-s{asked.seed}"
    write_json(run.path(f"scores/{name}.json"), NO_COST)
    write_frame(run.path(f"scores/{name}.parquet"), said)


if __name__ == "__main__":
    main()
