"""What is an LLM worth beside a backbone? On validation alone, before anything is augmented: to compare ways of tuning.

    python scripts/validate_llm.py PRESET LLM BACKBONE SEED [--users N] [--shuffled] [--into FILE]
                                                                            llm/validated-LLM-BACKBONE-sSEED.csv

LLM: trunk, without_hints or with_hints, which is shown the hints of M_c; or a baseline whose opinion the run has.
BACKBONE: one that ranks, fitted on the data (fit base). Only lists that hold their target are asked about. Another way
of tuning is another preset. Stopped and started again, it goes on after the last finished batch. --shuffled is a
control: each history is told in a random order (the file's name then ends so). --into adds the line to a CSV, in place
of an older one of the same run, LLM, backbone and seed.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core import evaluation, experiment
from llama4rec_core.aggregation import most_similar_user
from llama4rec_core.backbones import BASELINES, task_of
from llama4rec_core.backbones.predict import Predictions, read_predictions
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.experiment import Lists
from llama4rec_core.files import read_json, write_frame, write_text
from llama4rec_core.llm import model
from llama4rec_core.llm.examples import candidate_lists, with_target
from llama4rec_core.llm.hints import Hints
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run, draw_users, rng
from llama4rec_core.variants import VARIANTS

OF = ["preset", "opinion", "backbone", "seed"]  # what a line is of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("llm", choices=["trunk", "without_hints", "with_hints", *BASELINES])
    parser.add_argument("backbone")
    parser.add_argument("seed", type=int)
    parser.add_argument("--users", type=int, default=None, help="only this many, drawn at random")
    parser.add_argument("--shuffled", action="store_true", help="tell each history in a random order")
    parser.add_argument("--into", type=Path, help="a CSV of several such lines")
    asked = parser.parse_args()
    if task_of(asked.backbone) == "rating":
        parser.error(f"{asked.backbone} predicts ratings and ranks nothing: name a backbone that ranks")
    run, s = Run.open(asked.preset), f"s{asked.seed}"
    ready = read_prepared(run.path("data"), run.preset)
    known = read_predictions(run.path(f"backbones/{asked.backbone}-{s}/base")).part("valid")
    drawn = draw_users(asked.users, ready.dataset.n_users, rng("measured users"))
    known = known.only(known.cases["user"].isin(drawn).to_numpy())

    name = f"validated-{asked.llm}-{asked.backbone}-{s}" + "-shuffled" * asked.shuffled
    if asked.llm in BASELINES:
        scores, tokens = pd.read_parquet(run.path(f"scores/{asked.backbone}-base-{asked.llm}-{s}.parquet")), 0
    else:
        llm = model.load(run.preset.llm, run.path(f"llm/{asked.llm}-{s}"))
        ranker = replace(Ranker.of(run.preset, llm, ready.histories, tuned=True), shuffled=asked.shuffled)
        hints = None
        if asked.llm == "with_hints":
            hints = Hints(most_similar_user(known.embeddings), ready.histories.n_train, run.preset.prompts.similar)
        lists = with_target(candidate_lists(known.cases, known.items))
        prompts = [ranker.prompt(each, hints) for each in lists]
        scores = ranker.utilities(lists, prompts, run.path(f"llm/.answers/{name}.parquet"), name)
        tuned = dict.fromkeys(["trunk", asked.llm])
        tokens = sum(read_json(run.path(f"llm/{each}-{s}/tuning.json"))["tokens"] for each in tuned)
    opinion = asked.llm + "-shuffled" * asked.shuffled
    about = dict(zip(OF, (run.preset.name, opinion, asked.backbone, asked.seed), strict=True)) | {"tokens": tokens}
    table = pd.DataFrame([about | worth(known, scores, run.preset.aggregation.utilities, ready.n_train)])
    write_frame(run.path(f"llm/{name}.csv"), table)
    if asked.into:
        add(table, asked.into)
    print(table.round(4).T.to_string(header=False))


def add(line: pd.DataFrame, file: Path) -> None:
    """Into a CSV of such lines, sorted; an older one of the same `OF` goes."""
    lines = pd.concat([pd.read_csv(file), line]) if file.exists() else line
    lines = lines.drop_duplicates(OF, keep="last").sort_values(OF, ignore_index=True)
    write_text(file, lines.round(6).to_csv(index=False, lineterminator="\n"))


def worth(known: Predictions, scores: pd.DataFrame, utilities: str, n_train: np.ndarray) -> dict:
    """Means over users of what is found in the lists that hold their target. NDCG@5: the LLM's alone, the backbone's
    alone, and how much the blend of both gains over the latter (`diff`, by weights chosen on other users), with 95%
    intervals. nats: what the blend gains in the target's log-likelihood, with its standard error."""
    lists = Lists.of(known, scores, utilities)
    lists = lists.only(lists.rank(1.0) > 0)
    blend = VARIANTS["w/o DA"]
    choice = experiment.choose_weights(blend, lists, n_train)
    chosen = experiment.weights_of(blend, choice, n_train)

    def of_users(values: np.ndarray) -> np.ndarray:
        return evaluation.per_user(values, lists.users).to_numpy()

    llm, backbone, both = (
        of_users(values)
        for values in (lists.metric(1.0), lists.metric(0.0), experiment.cross_fitted(blend, lists, n_train))
    )
    gains = of_users(lists.log_likelihood(chosen) - lists.log_likelihood(0.0))
    difference, alone = evaluation.compare(both, backbone), evaluation.estimate(llm)
    return {
        "users": len(gains),
        "lists": len(lists.users),
        "alone": alone.value,
        "alone_ci_low": alone.ci_low,
        "alone_ci_high": alone.ci_high,
        "backbone_alone": float(backbone.mean()),
        "diff": difference.diff,
        "diff_ci_low": difference.ci_low,
        "diff_ci_high": difference.ci_high,
        "alpha_1": choice.alpha_1,
        "alpha_2": choice.alpha_2,
        "nats": float(gains.mean()),
        "nats_se": float(gains.std() / np.sqrt(len(gains))),
    }


if __name__ == "__main__":
    main()
