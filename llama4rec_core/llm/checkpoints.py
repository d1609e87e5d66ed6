"""The three checkpoints that a run tunes: the trunk, and LLM' and LLM'' that branch off from it.

What each is tuned on is made of files that the run has by then. Any launcher may start this, on one process or several
(`finetune.tune` says what several share).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from llama4rec_core.aggregation import most_similar_user
from llama4rec_core.backbones.predict import Predictions, read_predictions
from llama4rec_core.data.prepared import Prepared, read_prepared
from llama4rec_core.llm import examples, finetune, model
from llama4rec_core.llm.examples import Example
from llama4rec_core.llm.hints import Hints
from llama4rec_core.presets import Preset, as_dict
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run, rng

CHECKPOINTS = ("trunk", "without_hints", "with_hints")


def tune(run: Run, checkpoint: str, seed: int) -> Path:
    """Tune one of CHECKPOINTS and leave it in `llm/CHECKPOINT-sSEED`: a whole model, its curve and its record."""
    preset, settings = run.preset, run.preset.tuning
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # each process of a launcher has one of its own
    ready = read_prepared(run.path("data"), preset)
    if checkpoint == "trunk":
        drawn = seed if settings.start == "random" else None
        llm = model.load(preset.llm, dtype=torch.float32, layers=settings.layers, seed=drawn)
        rate = settings.trunk_learning_rate
    else:
        llm = model.load(preset.llm, run.path(f"llm/trunk-s{seed}"), dtype=torch.float32)
        rate = settings.learning_rate
    ranker = Ranker.of(preset, llm, ready.histories, tuned=True)
    if checkpoint == "trunk":
        told, draws = preset.instructions.trunk, rng("trunk", seed)
        pieces = examples.trunk(llm, ready.histories, ranker.titles, told, draws)
        rows = finetune.pack(pieces, settings.row_tokens, seed)
    else:
        rows = branch_rows(preset, ready, ranker, out_of_fold(run, seed), seed, checkpoint == "with_hints")
    folder = run.path(f"llm/{checkpoint}-s{seed}")
    finetune.tune(llm, rows, settings, rate, folder, seed)
    if finetune.is_first_process():
        finetune.clean(folder)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return folder


def out_of_fold(run: Run, seed: int) -> dict[str, Predictions]:
    """Of each task the predictions for the windows, by the backbone that writes hints into training prompts."""
    writers = {task: name for task, name in as_dict(run.preset)["out_of_fold"].items() if name}
    folders = {task: run.path(f"backbones/{name}-s{seed}/out_of_fold") for task, name in writers.items()}
    return {task: read_predictions(folder) for task, folder in folders.items()}


def branch_rows(
    preset: Preset, ready: Prepared, ranker: Ranker, predictions: Mapping[str, Predictions], seed: int, hinted: bool
) -> list[list[Example]]:
    """The further examples, packed into rows: those of LLM', or the same ones with hints, those of LLM''. No hint knows
    a window."""
    windows = ready.cases("sequential").query("part == 'window'")

    def by_kind(hints: Mapping[str, Hints]) -> dict[str, list[Example]]:
        writers = {task: (known, hints.get(task)) for task, known in predictions.items()}
        return examples.by_kind(ranker, writers, windows, preset.prompts.rated_history, rng("examples", seed))

    shares, draws = as_dict(preset)["instructions"]["shares"], rng("mixture of examples", seed)
    chosen = examples.mix(by_kind({}), shares, preset.instructions.tokens, draws)
    rows = finetune.pack(chosen, preset.tuning.row_tokens, seed)
    if not hinted:
        return rows
    told, length = ready.histories.n_before_window, preset.prompts.similar
    hints = {task: Hints(most_similar_user(known.embeddings), told, length) for task, known in predictions.items()}
    return examples.same_with_hints(rows, by_kind(hints))
