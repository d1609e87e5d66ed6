"""How fast the LLM engine is: against `transformers`' own generate and Trainer, and against the machine.

    python tests/benchmarks/benchmark_engine.py        all parts, in one run on one machine, same weights, same users
    python tests/benchmarks/benchmark_engine.py --parts ranking --peer-users 4 --users 20        a look in a minute

Writes results/benchmarks/llm_engine.csv: the rows of the parts that were run, and the others as they were. The peer is
given the same prompts, greedy decoding, a stop at the list's end, its best batch size and all threads. Speeds do not
depend on which films are asked about, so candidates are drawn from the popular ones.
"""

import argparse
import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import table
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from llama4rec_core import data as sources
from llama4rec_core import evaluation, figures, paths, stages
from llama4rec_core.augmentation.prompt import Sequences, sequences
from llama4rec_core.files import write_frame
from llama4rec_core.instructions import List, ranking_prompt, titles, with_target
from llama4rec_core.instructions import lists as instruction_lists
from llama4rec_core.llm import cost, prompts, ranking, recording, tuning, weights
from llama4rec_core.llm.engine import Branch, Prompt, rows, score_row
from llama4rec_core.llm.lessons import Example, TuningSettings

COLUMNS = ["part", "what", "ours", "peer", "peer_value", "ratio", "ours_metric", "peer_metric", "unit"]


def row(part, what, ours, unit, peer="", peer_value=None, ours_metric=None, peer_metric=None) -> dict:
    """`ratio` is ours by the peer's: all values are rates, larger is better."""
    ratio = None if peer_value is None else ours / peer_value
    return dict(zip(COLUMNS, (part, what, ours, peer, peer_value, ratio, ours_metric, peer_metric, unit), strict=True))


def told() -> Sequences:
    dataset = sources.load("ml-100k")
    return sequences(dataset, sources.split(dataset), 5, prompts.WORDS["ml-100k"])


def lists(known: Sequences, count: int, k: int) -> list[List]:
    """`count` users with k popular candidates each, drawn once."""
    rng = np.random.default_rng(0)
    popular = np.argsort(-np.bincount(known.items, minlength=len(known.titles)), kind="stable")[:300]
    users = rng.choice(len(known.n_train), count, replace=False)
    return [List(f"b{u}", int(u), int(known.n_train[u]), rng.choice(popular, k, replace=False), ()) for u in users]


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- ranking ---------------------------------------------------------------------------------------------------------


def ranking_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    for k in (10, 20):
        ours = lists(known, asked.users, k)
        tree = [ranking_prompt(llm, known, each, 20, None) for each in ours]
        score_row(llm, tree[:1])
        rate = len(tree) / seconds(lambda tree=tree: _score(llm, tree))
        few = ours[: asked.peer_users]
        written = [ranking_prompt(llm, known, each, 20, None, "list") for each in few]
        alone = len(few) / seconds(lambda written=written, few=few: _generate(llm, known, written, few, 1))
        batched = max(
            (
                len(few)
                / seconds(lambda size=size, written=written, few=few: _generate(llm, known, written, few, size)),
                size,
            )
            for size in asked.batches
        )
        one_each = [
            Prompt(f"{p.key}-{b}", p.prefix, (branch,))
            for p in tree[: asked.peer_users]
            for b, branch in enumerate(p.branches)
        ]
        apart = len(few) / seconds(lambda one_each=one_each: _score(llm, one_each))
        what = f"likelihood of {k} candidates in one tree"
        yield from [
            row("ranking", what, rate, "users/s", "transformers generate, the list, one prompt at a time", alone),
            row(
                "ranking",
                what,
                rate,
                "users/s",
                f"transformers generate, the list, batches of {batched[1]}",
                batched[0],
            ),
            row("ranking", what, rate, "users/s", "one prompt per candidate, packed by our engine", apart),
        ]


def _score(llm, given: list[Prompt]) -> None:
    for packed in rows(given, 512):
        score_row(llm, [given[i] for i in packed])


@torch.inference_mode()
def _generate(llm, known: Sequences, written: list[Prompt], few: list[List], size: int) -> None:
    """The peer: a padded batch of prompts through `generate`, as many tokens as the longest list needs."""
    order = sorted(range(len(written)), key=lambda i: len(written[i].prefix))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(len(written[i].prefix) for i in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for line, i in enumerate(batch):
            prefix = torch.tensor(written[i].prefix)
            tokens[line, width - len(prefix) :], mask[line, width - len(prefix) :] = prefix, 1
        longest = max(len(llm.encode("\n".join(titles(known, few[i])))) for i in batch)
        llm.model.generate(tokens, attention_mask=mask, max_new_tokens=longest + 1, do_sample=False)


# --- the machine -----------------------------------------------------------------------------------------------------


def machine_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    """Needed operations a second of reading and tuning, as a share of the measured matrix-product rate."""
    rate, size = cost.machine_rate(seconds=3.0), cost.size(llm)
    given = [ranking_prompt(llm, known, each, 20, None) for each in lists(known, asked.users, 10)]
    tokens, places = sum(map(len, given)), sum(map(recording.logits_of, given))
    _score(llm, given[:8])
    spent = seconds(lambda: _score(llm, given))
    needed = 2 * size["body"] * tokens + 2 * size["head"] * places
    sum_of = f"(2 x {size['body']} x {tokens} + 2 x {size['head']} x {places}) / {spent:.2f} s / {rate:.4g}"
    yield from [
        row("machine", "float32 matrix product", rate / 1e9, "Gflop/s"),
        row("machine", f"reading: share = {sum_of}", needed / spent / rate, "share of the matrix-product rate"),
        row("machine", "reading", tokens / spent, "tokens/s"),
    ]
    settings = TuningSettings()
    tokens, places, spent = _tune(known, asked.tuned, settings)
    # forward through all; backward to the activations of the tuned layers; logits forward and backward
    upper = 2 * size["body"] * settings.layers
    needed = (2 * size["body"] + upper) * tokens + 4 * size["head"] * places
    work = f"(2 + {2 * settings.layers:g}) x {size['body']} x {tokens} + 4 x {size['head']} x {places}"
    sum_of = f"({work}) / {spent:.2f} s / {rate:.4g}"
    yield from [
        row("machine", f"tuning: share = {sum_of}", needed / spent / rate, "share of the matrix-product rate"),
        row(
            "machine",
            "tuning",
            tokens / spent,
            "useful tokens/s",
            "transformers Trainer, padded, LoRA on all layers",
            _peer_tune(known, asked.tuned),
        ),
    ]


def _lessons(llm, known: Sequences, count: int):
    rng = np.random.default_rng(1)
    out = []
    for each in lists(known, count, 10):
        right = [int(rng.integers(10))]
        asked = ranking_prompt(llm, known, each, 20, None)
        out.append(ranking.lesson("likelihood", llm, asked, titles(known, each), right, np.zeros(10)))
    return out


def _tune(known: Sequences, count: int, settings: TuningSettings) -> tuple[int, int, float]:
    """Tokens, places at which logits are computed, and seconds of tuning `count` lists."""
    llm = weights.load(weights.SMOLLM2)
    lessons = _lessons(llm, known, count)
    places = sum(recording.logits_of(each.prompt) + len(each.prompt.learn) for each in lessons)
    with tempfile.TemporaryDirectory() as folder:
        spent = seconds(lambda: tuning.tune(llm, lessons, settings, Path(folder) / "adapter", 0))
    return sum(len(each.prompt) for each in lessons), places, spent


def _peer_tune(known: Sequences, count: int) -> float:
    """Useful tokens a second of `_trainer`."""
    llm = weights.load(weights.SMOLLM2)
    lessons = _lessons(llm, known, count)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(llm, lessons, Path(folder))
        spent = seconds(trainer.train)
    return sum(map(len, trainer.train_dataset)) / spent


def _trainer(llm, lessons: list[Example], folder: Path) -> Trainer:
    """Plain Trainer: each prompt with its right answer in a padded row of its own, cross-entropy and logits
    everywhere, LoRA on all layers."""
    texts = []
    for each in lessons:
        question = each.questions[0]
        answer: Branch = each.prompt.branches[question.branches[question.right]]
        texts.append(each.prompt.prefix + answer.tokens)

    def collate(batch):
        width = max(map(len, batch))
        ids = torch.tensor([list(text) + [0] * (width - len(text)) for text in batch])
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in batch])
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    model = get_peft_model(
        llm.model, LoraConfig(r=16, lora_alpha=32, target_modules=tuning.LINEAR, task_type="CAUSAL_LM")
    )
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=8, num_train_epochs=1, save_strategy="no", report_to="none",
        remove_unused_columns=False, disable_tqdm=True, dataloader_pin_memory=False,
        learning_rate=TuningSettings().learning_rate, label_names=["labels"],
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=texts, data_collator=collate)


# --- quality ---------------------------------------------------------------------------------------------------------


def quality_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    """Each way of ranking, untuned and tuned for the same minutes: NDCG@5 within validation lists that hold their
    target, half of them LightGCN's and half SASRec's. Its peer is the written list, tuned as long."""
    run = stages.Run.open("quick")
    drawn = [
        each
        for name in ("LightGCN", "SASRec")
        for each in _with_target(stages.backbone(run, name, "base", 0).part("valid"))[: asked.lists // 2]
    ]
    curve, peer = [], None
    for mode in ("list", *(mode for mode in ranking.MODES if mode != "list")):
        mine = dataclasses.replace(
            run, preset=dataclasses.replace(run.preset, ranking=dataclasses.replace(run.preset.ranking, mode=mode))
        )
        taught = _taught(mine, llm)
        for minutes in (0.0, asked.minutes / 2, asked.minutes):
            with tempfile.TemporaryDirectory() as folder:
                model = _tuned(taught, minutes, Path(folder)) if minutes else llm
                found, rate = _within_lists(mine, mode, model, drawn, Path(folder))
            curve.append({"mode": mode, "minutes": minutes, "rate": rate} | dataclasses.asdict(found))
            print(curve[-1], flush=True)
        peer = peer or curve[-1]
    with tempfile.TemporaryDirectory() as folder:
        rest = dataclasses.replace(
            run,
            preset=dataclasses.replace(run.preset, ranking=dataclasses.replace(run.preset.ranking, mode="likelihood")),
        )
        model = _peer_tuned(_taught(rest, llm), asked.minutes, Path(folder))
        plain, rate = _within_lists(rest, "likelihood", model, drawn, Path(folder))
    curve.append({"mode": "likelihood, by Trainer", "minutes": asked.minutes, "rate": rate} | dataclasses.asdict(plain))
    shown = pd.DataFrame(curve)
    write_frame(paths.results() / "benchmarks" / "tuning_minutes.csv", shown)
    random = evaluation.random_order_ndcg(10, 5)
    picture = figures.by_minute(shown, random)
    figures.save(picture, paths.results() / "figures" / "tuning_minutes.png")
    yield from [
        row(
            "quality",
            f"{each['mode']}, tuned for {each['minutes']:g} minutes; [{each['ci_low']:.3f}, {each['ci_high']:.3f}]",
            each["rate"],
            "users/s; NDCG@5 within validation lists",
            f"the written list, tuned for {peer['minutes']:g} minutes",
            peer["rate"],
            each["value"],
            peer["value"],
        )
        for each in curve
    ]


def _with_target(known: stages.Predictions) -> list[List]:
    return with_target(instruction_lists(known.cases, known.items))


def _taught(run: stages.Run, llm) -> list[Example]:
    """Ranking lessons of the preset's own kind, real lists and next items in turn, as many as there are."""
    asked = dataclasses.replace(
        run.preset.instructions, tokens=10**9, shares={"direct": 1.0, "sequential": 1.0, "next": 1.0}
    )
    return stages.lessons(
        dataclasses.replace(run, preset=dataclasses.replace(run.preset, instructions=asked)), llm, "plain", 0
    )


def _first(taught: list[Example], tokens: float) -> list[Example]:
    total = np.cumsum([len(each.prompt) for each in taught])
    if total[-1] < tokens:
        raise ValueError(
            f"there are only {total[-1]} tokens of lessons, {tokens:.0f} can be read in the time asked for"
        )
    return taught[: int(np.searchsorted(total, tokens))]


def _tuned(taught: list[Example], minutes: float, folder: Path):
    """The LLM after as many lessons as can be read in `minutes`; the rate is measured on the first few."""
    few = _first(taught, 6_000)
    rate = sum(len(each.prompt) for each in few) / seconds(
        lambda: tuning.tune(weights.load(weights.SMOLLM2), few, TuningSettings(), folder / "few", 0)
    )
    chosen = _first(taught, rate * minutes * 60)
    tuning.tune(weights.load(weights.SMOLLM2), chosen, TuningSettings(), folder / "adapter", 0)
    return weights.load(weights.SMOLLM2, folder / "adapter")


def _peer_tuned(taught: list[Example], minutes: float, folder: Path):
    """The same for `transformers.Trainer` as it comes: see `_trainer`."""
    few = _first(taught, 6_000)
    llm = weights.load(weights.SMOLLM2)
    rate = sum(len(each.prompt) for each in few) / seconds(_trainer(llm, few, folder / "few").train)
    llm = weights.load(weights.SMOLLM2)
    trainer = _trainer(llm, _first(taught, rate * minutes * 60), folder / "peer")
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter")
    return weights.load(weights.SMOLLM2, folder / "adapter")


def _within_lists(
    run: stages.Run, mode: str, llm, drawn: list[List], folder: Path
) -> tuple[evaluation.Estimate, float]:
    """NDCG@5 over the lists with its interval, and lists a second."""
    told, prior = stages.prepare(run).told, stages.title_prior(run)
    prompted = [ranking_prompt(llm, told, each, run.preset.prompts.history, None, mode) for each in drawn]
    titled = {each.key: titles(told, each) for each in drawn}
    start = time.perf_counter()
    found = ranking.utilities(mode, llm, prompted, titled, folder / "scores.parquet", mode, run.preset.row_tokens)
    spent = time.perf_counter() - start
    table = found.pivot(index="key", columns="candidate", values="utility").loc[[each.key for each in drawn]]  # [n, C]
    items = np.stack([each.candidates for each in drawn])
    utility = table.to_numpy() - prior[items]
    order = np.take_along_axis(items, np.argsort(-utility, axis=1, kind="stable"), axis=1)
    rank = evaluation.target_rank(order, np.array([each.targets[0] for each in drawn]))
    return evaluation.estimate(evaluation.ndcg(rank, 5)), len(drawn) / spent


# --- memory ----------------------------------------------------------------------------------------------------------


def memory_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    """Peak memory of a process of its own, for two numbers of users: flat where nothing is kept for each user."""
    for what, small, large in (("scoring", 20, 200), ("tuning", 8, 40)):
        peaks = [_peak(what, count) for count in (small, large)]
        yield row("memory", f"{what} {large} users", peaks[1], "GB at most") | {
            "peer": f"{small} users",
            "peer_value": peaks[0],
            "ratio": peaks[1] / peaks[0],
        }


def _peak(what: str, count: int) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(what, count, queue))
    process.start()
    peak = queue.get()
    process.join()
    return peak


def _measured(what: str, count: int, queue) -> None:
    known = told()
    if what == "scoring":
        llm = weights.load(weights.SMOLLM2)
        _score(llm, [ranking_prompt(llm, known, each, 20, None) for each in lists(known, count, 10)])
    else:
        _tune(known, count, TuningSettings())
    # not getrusage: its peak is inherited from the process that started this one
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    queue.put(int(status.split("VmHWM:")[1].split()[0]) / 2**20)


PARTS = {"ranking": ranking_rows, "machine": machine_rows, "memory": memory_rows, "quality": quality_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--users", type=int, default=200, help="for us")
    parser.add_argument("--peer-users", type=int, default=40, help="for the peer")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16], help="batch sizes the peer may choose from")
    parser.add_argument("--tuned", type=int, default=120, help="lists to tune on")
    parser.add_argument("--minutes", type=float, default=3.0, help="of tuning, for each way of ranking")
    parser.add_argument("--lists", type=int, default=150, help="validation lists to measure quality on")
    asked = parser.parse_args()
    llm, known = weights.load(weights.SMOLLM2), told()
    parts = {part: partial(PARTS[part], llm, known, asked) for part in asked.parts}
    table.run(parts, COLUMNS, "llm_engine.csv")


if __name__ == "__main__":
    main()
