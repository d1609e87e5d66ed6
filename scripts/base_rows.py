"""Base rows: a backbone alone, measured on test, also under another protocol or order of ties. No LLM is needed.

    python scripts/base_rows.py PRESET VARIANT BACKBONE SEED    base/VARIANT/BACKBONE-sSEED.parquet, its curve (.csv)
                                                                and the record of this look at test (.json)
    python scripts/base_rows.py PRESET tables                   Tables 2-4 of all Base rows made so far, in base/

VARIANT: as-set (the preset's own split), leave-one-out or rolling (whichever that is not), ties-reverse or ties-random.
"""

import argparse
from dataclasses import replace

import pandas as pd
import torch

from llama4rec_core import evaluation, figures, paths, tables
from llama4rec_core.backbones import BASELINES, task_of
from llama4rec_core.backbones.fit import fit, training_data
from llama4rec_core.backbones.predict import predict_cases
from llama4rec_core.data.dataset import read_dataset
from llama4rec_core.data.prepared import prepare
from llama4rec_core.files import write_frame, write_json
from llama4rec_core.looks import look
from llama4rec_core.run import Run
from llama4rec_core.tasks import TASKS

VARIANTS = {  # what differs from the preset's data settings
    "as-set": {},
    "leave-one-out": {"protocol": "leave-one-out"},
    "rolling": {"protocol": "rolling"},
    "ties-reverse": {"tie_break": "reverse"},
    "ties-random": {"tie_break": "random"},
}


def row(run: Run, variant: str, name: str, seed: int) -> None:
    """Fit a backbone, measure it on test, write the per-user metrics, the curve of training and the look at test.

    Raises ValueError for a variant that is the preset's own split: its rows are those of "as-set".
    """
    preset = replace(run.preset, data=replace(run.preset.data, **VARIANTS[variant]))
    if variant != "as-set" and preset == run.preset:
        raise ValueError(f"preset {run.preset.name} is {variant} as set: ask for the variant as-set")
    ready, task = prepare(read_dataset(run.path("data")), preset), TASKS[task_of(name)]
    torch.set_num_threads(1)
    data = training_data(ready.dataset, ready.split.train, task.name)
    fitted = fit(name, data, ready.split.valid, seed, preset.backbone_settings.get(name))
    asked = ready.cases(task.name).query("part == 'test'").reset_index(drop=True)
    counts = ready.split.valid["user"].value_counts().reindex(range(ready.dataset.n_users), fill_value=0).to_numpy()
    known = predict_cases(fitted, asked, ready.histories, counts, preset.prompts.candidates, data.histories)
    if task.root:
        rated = known.ratings.clip(*ready.dataset.scale)
        frame = evaluation.rating_metrics(rated, known.cases["rating"], known.cases["user"])
    else:
        rank = evaluation.target_rank(known.items, known.cases["item"].to_numpy())
        frame = evaluation.ranking_metrics(rank, known.cases["user"])
    about = {"dataset": ready.dataset.name, "protocol": ready.protocol, "backbone": name, "row": "Base", "seed": seed}
    place = run.path(f"base/{variant}/{name}-s{seed}")
    counted = frame["user"].map(known.cases["user"].value_counts())
    write_json(place.with_suffix(".json"), look(run, f"{name}-s{seed} Base, {ready.protocol}", "Base rows"))
    write_frame(place.with_suffix(".csv"), fitted.log)
    write_frame(place.with_suffix(".parquet"), frame.assign(**about, cases=counted))


def all_tables(run: Run) -> None:
    """Tables 2-4 of the Base rows, their training curves in one figure, and a record of what made them."""
    frames: dict[str, list[pd.DataFrame]] = {}
    logs: dict[str, list[pd.DataFrame]] = {}
    for path in sorted(run.path("base").glob("*/*.parquet")):
        name = path.stem.rsplit("-s", 1)[0]
        frames.setdefault(task_of(name), []).append(pd.read_parquet(path))
        if path.parent.name == "as-set" and name not in BASELINES:
            logs.setdefault(name, []).append(pd.read_csv(path.with_suffix(".csv")))
    for name, found in frames.items():
        task, per_user = TASKS[name], pd.concat(found, ignore_index=True)
        table = tables.build(per_user, run.preset, llm=False)
        caption = tables.caption(task, run.preset, per_user["dataset"].iloc[0], "", per_user["user"].nunique())
        tables.write(table, run.path(f"base/{task.table}.csv"), caption)
        print(run.path(f"base/{task.table}.md").read_text(encoding="utf-8"), flush=True)
    if logs:
        figures.save(figures.all_curves(logs), run.path("figures/base_curves.png"))
    write_json(run.path("base/record.json"), run.record())
    print(f"All files behind these tables: {run.path('base').relative_to(paths.results())}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("variant", choices=[*VARIANTS, "tables"])
    parser.add_argument("of", nargs="*", help="backbone and seed")
    asked = parser.parse_args()
    if asked.variant != "tables" and len(asked.of) != 2:
        parser.error(f"{asked.variant} needs a backbone and a seed")
    run = Run.open(asked.preset)
    if asked.variant == "tables":
        all_tables(run)
    else:
        row(run, asked.variant, asked.of[0], int(asked.of[1]))


if __name__ == "__main__":
    main()
