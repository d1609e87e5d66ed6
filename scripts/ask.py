"""Ask an LLM about every case of a backbone's fit: the utilities of its candidates, or the ratings it predicts.

    python scripts/ask.py PRESET BACKBONE FIT LLM SEED        scores/BACKBONE-FIT-LLM-sSEED.parquet
    python scripts/ask.py PRESET BACKBONE base untuned SEED --way letters    scores/ways/BACKBONE-letters-sSEED.parquet

FIT: base, augmented or random. LLM: untuned (validation alone), without_hints (LLM') or with_hints (LLM''). Prompts of
LLM'' carry that fit's hints. Only lists that hold their target are asked about. Stopped and started again, it goes on
after the last finished batch. A rating prompt without hints says nothing of a backbone: such answers are kept once, and
the file of every rating backbone is made of them.
"""

import argparse

from llama4rec_core.aggregation import most_similar_user
from llama4rec_core.backbones import task_of
from llama4rec_core.backbones.predict import read_predictions
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.files import write_frame, write_json
from llama4rec_core.llm import batches
from llama4rec_core.llm.examples import candidate_lists, with_target
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.of_run import ranker_of
from llama4rec_core.llm.rate import rate
from llama4rec_core.presets import WAYS
from llama4rec_core.run import Run, draw_users, rng


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("preset", "backbone", "fit", "llm"):
        parser.add_argument(name)
    parser.add_argument("seed", type=int)
    parser.add_argument("--way", choices=WAYS, default="", help="rank in another way than the preset's")
    asked = parser.parse_args()
    if asked.way and (asked.fit, asked.llm) != ("base", "untuned"):
        parser.error("--way is for the untuned LLM and the fit base")
    run, task, s = Run.open(asked.preset), task_of(asked.backbone), f"s{asked.seed}"
    preset, ready = run.preset, read_prepared(run.path("data"), run.preset)

    fitted = read_predictions(run.path(f"backbones/{asked.backbone}-{s}/{asked.fit}"))
    cases = fitted.part("valid") if asked.llm == "untuned" else fitted  # the untuned LLM is compared on validation
    few = [preset.evaluation.rating_users] if task == "rating" else []
    few += [preset.evaluation.untuned_users] if asked.llm == "untuned" else []
    for count in few:
        drawn = draw_users(count, ready.dataset.n_users, rng("measured users"))
        cases = cases.only(cases.cases["user"].isin(drawn).to_numpy())
    hints = None
    if asked.llm == "with_hints":
        hints = Hints(most_similar_user(fitted.embeddings), ready.histories.n_train, preset.prompts.similar)

    ranker = ranker_of(run, ready.histories, asked.llm, asked.seed, asked.way)
    name = f"ways/{asked.backbone}-{asked.way}-{s}" if asked.way else f"{asked.backbone}-{asked.fit}-{asked.llm}-{s}"
    shared = task == "rating" and hints is None
    answers = run.path(f"scores/.answers/{f'rating-{asked.llm}-{s}' if shared else name}.parquet")
    if task == "rating":
        length, scale = preset.prompts.rated_history, ready.dataset.scale
        llm, titles = ranker.llm, ranker.titles
        found = rate(llm, ready.histories, titles, cases, hints, length, scale, answers, name, preset.row_tokens)
    else:
        lists = with_target(candidate_lists(cases.cases, cases.items))
        prompts = [ranker.prompt(each, hints) for each in lists]
        found = ranker.utilities(lists, prompts, answers, name)
    write_json(run.path(f"scores/{name}.json"), batches.cost(answers))
    write_frame(run.path(f"scores/{name}.parquet"), found)


if __name__ == "__main__":
    main()
