"""What a run asks of the LLM, and how long that takes here, before it: a sample of each step is really done and timed.

The LLM is asked about lists that hold their target. How many will is not known before the backbones are fitted, so
neighbours of a user's last items stand for them here. Fitting backbones and starting notebooks come on top.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from llama4rec_core import augmentation
from llama4rec_core.backbones import task_of
from llama4rec_core.backbones.fit import fit, training_data
from llama4rec_core.backbones.predict import Predictions, predict_cases
from llama4rec_core.data import as_set, subset_users
from llama4rec_core.data.prepared import Prepared, prepare
from llama4rec_core.llm import batches, examples, finetune, model
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.rate import rate
from llama4rec_core.presets import Preset
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import draw_users, rng
from llama4rec_core.variants import asked

SAMPLE = 40  # of lists, users, or items
Step = tuple[str, str, int, float]


def estimate(preset: Preset, folder: Path) -> pd.DataFrame:
    """Columns step, of (tokens, prompts or items), count, seconds: over all seeds. Samples are worked on in `folder`.

    Raises ValueError where a served LLM would have to be paid for its samples.
    """
    if preset.served:
        raise ValueError("an LLM behind an address is not sampled: how fast and how dear it is, its server says")
    dataset = as_set(preset.data)
    if preset.data.users is not None:
        dataset = subset_users(dataset, preset.data.users, seed=0)
    ready, tuned = prepare(dataset, preset), preset.tuning.method != "none"
    llm = model.load(preset.llm, layers=preset.tuning.layers if tuned else None)
    log_p = None if tuned else np.zeros(dataset.n_items)
    ranker = Ranker.of(preset, llm, ready.histories, tuned, log_p)
    steps = [*_asking(preset, ready, ranker, folder), *_augmentation(preset, ready, ranker, folder)]
    if tuned and not preset.tuning.taken_from:
        steps = [*_tuning(preset, ready, ranker, folder), *steps]
    table = pd.DataFrame(steps, columns=["step", "of", "count", "seconds"])
    seeds = len(preset.seeds)
    return table.assign(count=table["count"] * seeds, seconds=table["seconds"] * seeds)


def _scaled(path: Path, sample: int, count: int) -> float:
    """Seconds of `count` requests, of which a sample was answered in `path`."""
    return batches.cost(path)["seconds"] * count / sample


def _tuning(preset: Preset, ready: Prepared, ranker: Ranker, folder: Path) -> Iterator[Step]:
    """Four steps on the trunk's text say what a token costs. Hints make the examples of LLM'' longer."""
    settings, told, tokens = preset.tuning, preset.prompts, preset.instructions.tokens
    llm = model.load(preset.llm, dtype=torch.float32, layers=settings.layers)
    few = replace(preset.instructions.trunk, tokens=4 * settings.row_tokens)
    pieces = examples.trunk(llm, ready.histories, ranker.titles, few, rng("trunk", 0))
    started = time.perf_counter()
    finetune.tune(llm, finetune.pack(pieces, settings.row_tokens, 0), settings, 1e-9, folder / "tuned", 0)
    of_a_token = (time.perf_counter() - started) / sum(len(each.prompt) for each in pieces)
    longer = 1 + (told.similar + told.candidates) / max(1, told.history)
    for name, count in (
        ("tuning the trunk", preset.instructions.trunk.tokens),
        ("tuning LLM'", tokens),
        ("tuning LLM''", round(longer * tokens)),
    ):
        yield name, "tokens", count, count * of_a_token


def _augmentation(preset: Preset, ready: Prepared, ranker: Ranker, folder: Path) -> Iterator[Step]:
    settings, histories, draws = preset.augmentation, ready.histories, np.random.default_rng(0)
    users = draw_users(settings.users, ready.dataset.n_users, draws)
    few, tasks = users[:SAMPLE], {task_of(name) for name in preset.backbones}
    if "direct" in tasks:
        path = folder / "pairs.parquet"
        augmentation.pairs(ranker, few, settings.pairs, draws, path)
        yield "pairs (P1)", "users", len(users), _scaled(path, len(few), len(users))
    if "sequential" in tasks:
        path = folder / "insertions.parquet"
        augmentation.insertions(ranker, few, settings.sampled, draws, path)
        yield "insertions (P2)", "users", len(users), _scaled(path, len(few), len(users))
    if "rating" in tasks and histories.words.attributes:
        path, items = folder / "attributes.parquet", list(range(ready.dataset.n_items))[: settings.items]
        some, of_batch = items[: settings.items_per_batch], settings.items_per_batch
        augmentation.attributes(model.load(preset.llm), histories, some, settings.share, path, of_batch)
        yield "attributes (P3)", "items", len(items), _scaled(path, len(some), len(items))


def _asking(preset: Preset, ready: Prepared, ranker: Ranker, folder: Path) -> Iterator[Step]:
    """LLM' and LLM'' about validation and test; the untuned LLM's few questions are left out."""
    similar = Hints(np.roll(np.arange(ready.dataset.n_users), 1), ready.n_train, preset.prompts.similar)
    for task in dict.fromkeys(map(task_of, preset.backbones)):
        names = [name for name in preset.backbones if task_of(name) == task]
        times = Counter(llm for name in names for _, llm in asked(preset.rows_of(name), task))
        known = _stand_in(preset, ready, task)
        for llm, hints in (("without_hints", None), ("with_hints", similar)):
            path = folder / f"{task}-{llm}.parquet"
            if task == "rating":
                count, sample = _rate_some(preset, ready, ranker, known, hints, path)
            else:
                count, sample = _rank_some(ranker, known, hints, path)
            count *= min(times[llm], 1) if task == "rating" and hints is None else times[llm]  # one answer serves all
            if count:
                yield f"asking about {task}, {llm}", "prompts", count, _scaled(path, sample, count)


def _rank_some(ranker: Ranker, known: Predictions, hints: Hints | None, path: Path) -> tuple[int, int]:
    """Ask about some lists, and say how many there are and how many were asked about."""
    lists = examples.with_target(examples.candidate_lists(known.cases, known.items))
    some = lists[:: max(1, len(lists) // SAMPLE)]
    if some:
        ranker.utilities(some, [ranker.prompt(each, hints) for each in some], path, path.stem)
    return len(lists), len(some)


def _rate_some(
    preset: Preset, ready: Prepared, ranker: Ranker, known: Predictions, hints: Hints | None, path: Path
) -> tuple[int, int]:
    """The same for ratings; a user is a prompt."""
    users = known.cases["user"].unique()
    some = users[:SAMPLE]
    few = known.only(known.cases["user"].isin(some).to_numpy())
    length, scale = preset.prompts.rated_history, ready.dataset.scale
    rate(ranker.llm, ready.histories, ranker.titles, few, hints, length, scale, path, path.stem, preset.row_tokens)
    return len(users), len(some)


def _stand_in(preset: Preset, ready: Prepared, task: str) -> Predictions:
    """What a model that is fitted in seconds predicts for validation and test."""
    data = training_data(ready.dataset, ready.split.train, task)
    fitted = fit("Bias" if task == "rating" else "RecentItemKNN", data, None, 0)
    cases = ready.cases(task).query("part != 'window'").reset_index(drop=True)
    if task == "rating" and preset.evaluation.rating_users:
        few = draw_users(preset.evaluation.rating_users, ready.dataset.n_users, rng("measured users"))
        cases = cases[cases["user"].isin(few)].reset_index(drop=True)
    counts = ready.split.valid["user"].value_counts().reindex(range(ready.dataset.n_users), fill_value=0).to_numpy()
    return predict_cases(fitted, cases, ready.histories, counts, preset.prompts.candidates, data.histories)
