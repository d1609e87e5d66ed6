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
import re
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
from llama4rec_core import rows as rows_of
from llama4rec_core.augmentation.prompt import Sequences, sequences
from llama4rec_core.backbones import BACKBONES, YARDSTICKS
from llama4rec_core.instructions import List, ranking_prompt, titles
from llama4rec_core.llm import cost, prompts, ranking, recording, tuning, weights
from llama4rec_core.llm.engine import Branch, Prompt, rows, score_row, tokens_read
from llama4rec_core.llm.lessons import Example, TuningSettings
from llama4rec_core.presets import Preset

ALL = 10**6  # times the minutes: all lessons there are
# what plain Trainer is compared with token by token
LORA = TuningSettings(method="lora", row_tokens=512).filled()
PRESET = Preset("defaults")  # how much of a history and of a title a prompt tells, and how long a row is
COLUMNS = ["part", "what", "ours", "peer", "peer_value", "ratio", "ours_metric", "peer_metric", "unit"]


def row(part, what, ours, unit, peer="", peer_value=None, ours_metric=None, peer_metric=None) -> dict:
    """`ratio` is ours by the peer's: all values are rates, larger is better."""
    ratio = None if peer_value is None else ours / peer_value
    return dict(zip(COLUMNS, (part, what, ours, peer, peer_value, ratio, ours_metric, peer_metric, unit), strict=True))


def told() -> Sequences:
    dataset = sources.load("ml-100k")
    return sequences(dataset, sources.split(dataset), 5, prompts.WORDS["ml-100k"])


def question(llm, known: Sequences, each: List) -> Prompt:
    """What ranking by likelihood asks by default."""
    further = PRESET.ranking.further_tokens
    read = None if further is None else ranking.told_apart(llm, known.titles, further)
    return ranking_prompt(llm, known, each, PRESET.prompts.history, None, title_tokens=read)


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
        tree = [question(llm, known, each) for each in ours]
        score_row(llm, tree[:1])
        rate = len(tree) / seconds(lambda tree=tree: _score(llm, tree))
        few = ours[: asked.peer_users]
        length = PRESET.prompts.history
        written = [ranking_prompt(llm, known, each, length, None, "list") for each in few]
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
    for packed in rows(given, PRESET.row_tokens):
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
    """Needed operations a second of reading and tuning, as a share of the matrix-product rate, which is measured right
    before and right after each of the two."""
    size, before = cost.size(llm), cost.machine_rate(seconds=5.0)
    given = [question(llm, known, each) for each in lists(known, asked.users, 10)]
    packed = rows(given, PRESET.row_tokens)
    tokens = sum(sum(tokens_read([given[i] for i in row])) for row in packed)
    places = sum(map(recording.logits_of, given))
    _score(llm, given[:8])
    spent = seconds(lambda: _score(llm, given))
    between = cost.machine_rate(seconds=5.0)
    rate = (before + between) / 2
    needed = 2 * size["body"] * tokens + 2 * size["head"] * places
    sum_of = f"(2 x {size['body']} x {tokens} + 2 x {size['head']} x {places}) / {spent:.2f} s / {rate:.4g}"
    yield from [
        row("machine", "float32 matrix product", rate / 1e9, "Gflop/s"),
        row("machine", f"reading: share = {sum_of}", needed / spent / rate, "share of the matrix-product rate"),
        row("machine", "reading", tokens / spent, "tokens/s"),
    ]
    tokens, places, spent = _tune(known, asked.tuned, LORA)
    rate = (between + cost.machine_rate(seconds=5.0)) / 2
    # forward through all; backward to the activations of the tuned layers; logits forward and backward
    upper = 2 * size["body"] * LORA.layers
    needed = (2 * size["body"] + upper) * tokens + 4 * size["head"] * places
    work = f"(2 + {2 * LORA.layers:g}) x {size['body']} x {tokens} + 4 x {size['head']} x {places}"
    sum_of = f"({work}) / {spent:.2f} s / {rate:.4g}"
    peer_tokens, peer_spent = _peer_tune(known, asked.tuned)
    yield from [
        row("machine", f"tuning: share = {sum_of}", needed / spent / rate, "share of the matrix-product rate"),
        row(
            "machine",
            "tuning",
            tokens / spent,
            "useful tokens/s; lists/s",
            "transformers Trainer, padded, LoRA on all layers",
            peer_tokens / peer_spent,
            asked.tuned / spent,
            asked.tuned / peer_spent,
        ),
    ]


def _lessons(llm, known: Sequences, count: int):
    rng = np.random.default_rng(1)
    out = []
    for each in lists(known, count, 10):
        right = [int(rng.integers(10))]
        asked = question(llm, known, each)
        out.append(ranking.lesson("likelihood", llm, asked, titles(known, each), right, np.zeros(10)))
    return out


def _tune(known: Sequences, count: int, settings: TuningSettings) -> tuple[int, int, float]:
    """Tokens, places at which logits are computed, and seconds of tuning `count` lists."""
    llm = weights.load(weights.SMOLLM2)
    lessons = _lessons(llm, known, count)
    places = sum(recording.logits_of(each.prompt) for each in lessons)
    with tempfile.TemporaryDirectory() as folder:
        spent = seconds(lambda: tuning.tune(llm, lessons, settings, Path(folder) / "adapter", 0))
    packed = tuning.pack(lessons, settings.row_tokens, 0)
    tokens = sum(sum(tokens_read([each.prompt for each in row])) for row in packed)
    return tokens, places, spent


def _peer_tune(known: Sequences, count: int) -> tuple[int, float]:
    """Tokens that are no padding, and seconds, of `_trainer`: it reads a list's right answer, ours all candidates."""
    llm = weights.load(weights.SMOLLM2)
    lessons = _lessons(llm, known, count)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(llm, lessons, Path(folder))
        spent = seconds(trainer.train)
    return sum(map(len, trainer.train_dataset)), spent


def _trainer(llm, lessons: list[Example], folder: Path) -> Trainer:
    """Plain Trainer: each prompt with its right answer in a padded row of its own, cross-entropy and logits
    everywhere, LoRA on all layers."""
    texts = []
    for each in lessons:
        question = each.questions[0]  # of several the next item
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
        learning_rate=LORA.learning_rate, label_names=["labels"],
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=texts, data_collator=collate)


# --- quality ---------------------------------------------------------------------------------------------------------


def quality_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    """Likelihood, and the untuned written list."""
    tries = [("list", "list", _ours, 0), *(("likelihood", "likelihood", _ours, share) for share in (0, 0.5, 1, ALL))]
    yield from _qualities("quality", llm, asked, tries)


def other_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    """Plain Trainer's tuning, and the other ways of ranking."""
    tries = [("likelihood, by Trainer", "likelihood", _theirs, 1)]
    tries += [(mode, mode, _ours, share) for mode in ("labels", "relevance") for share in (0, 1)]
    tries.append(("list", "list", _ours, 1))
    yield from _qualities("others", llm, asked, tries)


def _qualities(part: str, llm, asked: argparse.Namespace, tries: list[tuple]) -> Iterator[dict]:
    """Ways of ranking, untuned and tuned for about the same minutes: NDCG@5 within LightGCN's and SASRec's lists that
    hold their target, for validation items and for the windows of held-out users. Likelihood is also tuned for half
    the minutes and on all lessons there are (judged on the lists of every top-k backbone, too). A tuned row is compared
    with the untuned one of its part on the same users."""
    run = stages.Run.open(asked.preset)
    stages.title_prior(run, False)  # made once, not in the time of the row that needs it first
    held_out, lists = stages.prepare(run).held_out, {}
    for of in (name for name, each in BACKBONES.items() if each.task != "rating" and name not in YARDSTICKS):
        windows = stages.backbone(run, of, "hint", 0)
        lists[of, "valid"] = stages.backbone(run, of, "base", 0).part("valid")
        lists[of, "window"] = windows.only(held_out[windows.cases["user"].to_numpy()])
    few = [which for which in lists if which[0] in ("LightGCN", "SASRec")]
    untuned, wide = {}, []
    for name, mode, train, share in tries:
        mine = _by(run, mode)
        with tempfile.TemporaryDirectory() as folder:
            model, minutes = llm, 0.0
            if share:
                lessons = stages.lessons(mine, llm, "plain", 0)
                model, minutes = _tuned(train, lessons, asked.minutes * share, Path(folder))
            start = time.perf_counter()
            scored = {
                which: stages.ranked(mine, model, lists[which], mode, _beside(folder, which), share > 0)
                for which in few
            }
            rate = sum(each["key"].nunique() for each in scored.values()) / (time.perf_counter() - start)
            if name == "likelihood" and share in (0, ALL):
                more = {
                    which: stages.ranked(mine, model, lists[which], mode, _beside(folder, which), share > 0)
                    for which in lists
                    if which not in few
                }
                everything = _judged(mine, f"{name}, lists of all {len(lists) // 2} backbones", lists, scored | more)
                wide.append(everything)
                yield _quality(part, *everything, wide[0][1] if share else None, minutes, rate)
        found, ndcg = _judged(mine, name, lists, scored)
        if not share:
            untuned[mode] = ndcg
        yield _quality(part, found, ndcg, untuned.get(mode) if share else None, minutes, rate)


def _beside(folder: str, which: tuple[str, str]) -> Path:
    return Path(folder) / f"{' '.join(which)}.parquet"


def _judged(run: stages.Run, name: str, lists: dict, scored: dict) -> tuple[dict, pd.Series]:
    """`rows.alone` over the lists that were scored, and each user's NDCG@5."""
    pairs = [(lists[which], each) for which, each in scored.items()]
    return rows_of.alone(run, name, *pairs), rows_of.ndcg_alone(*pairs)


def _quality(part: str, found: dict, ndcg: pd.Series, untuned: pd.Series | None, minutes: float, rate: float) -> dict:
    said = ""
    if untuned is not None:
        gain = evaluation.estimate((ndcg - untuned).to_numpy())
        said = f"; less untuned {gain.value:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}]"
    return row(
        part,
        f"{found['name']}, tuned for {minutes:.2f} minutes [{found['ci_low']:.4f}, {found['ci_high']:.4f}]{said}",
        rate,
        f"lists/s; NDCG@5 within {found['lists']} validation and window lists of {len(ndcg)} users",
        ours_metric=found["value"],
    )


ROW = re.compile(r"(?P<mode>.+), tuned for (?P<minutes>[\d.]+) minutes \[(?P<ci_low>[\d.]+), (?P<ci_high>[\d.]+)\]")


def minutes_figure() -> None:
    """`figures/tuning_minutes.png` of the rows that `_qualities` left, all on the same lists."""
    rows_left = pd.read_csv(paths.results() / "benchmarks" / "llm_engine.csv")
    rows_left = rows_left[rows_left["part"].isin(["quality", "others"])].drop_duplicates("what", keep="last")
    curve = rows_left["what"].str.extract(ROW).assign(value=rows_left["ours_metric"])
    curve = curve[~curve["mode"].str.contains("lists of all")]
    curve[["minutes", "ci_low", "ci_high"]] = curve[["minutes", "ci_low", "ci_high"]].astype(float)
    picture = figures.by_minute(curve, evaluation.random_order_ndcg(PRESET.prompts.candidates, 5))
    figures.save(picture, paths.results() / "figures" / "tuning_minutes.png")


def _by(run: stages.Run, mode: str) -> stages.Run:
    """The run with another way of ranking, and all its ranking lessons as instructions."""
    shares = {kind: share for kind, share in run.preset.instructions.shares.items() if kind not in ("rating", "pair")}
    told = dataclasses.replace(run.preset.instructions, tokens=10**9, shares=shares)
    how = dataclasses.replace(run.preset.ranking, mode=mode)
    return dataclasses.replace(run, preset=dataclasses.replace(run.preset, ranking=how, instructions=told))


def _tuned(train, taught: list[Example], minutes: float, folder: Path):
    """The LLM after as many lessons as can be read in `minutes`, or all there are, and the minutes it took. The rate is
    measured on the first few."""
    total = np.cumsum([len(each.prompt) for each in taught])
    few = int(np.searchsorted(total, 6_000))
    rate = total[few - 1] / seconds(lambda: train(taught[:few], folder / "few"))
    many = max(1, int(np.searchsorted(total, rate * minutes * 60)))
    spent = seconds(lambda: train(taught[:many], folder / "adapter"))
    return weights.load(weights.SMOLLM2, folder / "adapter"), spent / 60


def _ours(lessons: list[Example], folder: Path) -> None:
    tuning.tune(weights.load(weights.SMOLLM2), lessons, PRESET.tuning, folder, 0)


def _theirs(lessons: list[Example], folder: Path) -> None:
    trainer = _trainer(weights.load(weights.SMOLLM2), lessons, folder)
    trainer.train()
    trainer.model.save_pretrained(folder)


# --- memory ----------------------------------------------------------------------------------------------------------


def memory_rows(llm, known: Sequences, asked: argparse.Namespace) -> Iterator[dict]:
    """Peak memory of a process of its own, for two numbers of users: flat where nothing is kept for each user."""
    for what, small, large in (("scoring", 20, 200), ("tuning", 8, 40)):
        peaks = [_peak(what, count) for count in (small, large)]
        yield row("memory", f"{what} {large} users", peaks[1], "GiB at most") | {
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
        _score(llm, [question(llm, known, each) for each in lists(known, count, 10)])
    else:
        _tune(known, count, LORA)
    # not getrusage: its peak is inherited from the process that started this one
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    queue.put(int(status.split("VmHWM:")[1].split()[0]) / 2**20)


PARTS = {
    "ranking": ranking_rows,
    "machine": machine_rows,
    "memory": memory_rows,
    "quality": quality_rows,
    "others": other_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--users", type=int, default=200, help="for us")
    parser.add_argument("--peer-users", type=int, default=40, help="for the peer")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[8, 16, 32, 40], help="batch sizes the peer may choose from"
    )
    parser.add_argument("--tuned", type=int, default=120, help="lists to tune on")
    parser.add_argument(
        "--minutes",
        type=float,
        default=2.0,
        help="of tuning, for each way of ranking; likelihood also half as long, and on all lessons",
    )
    parser.add_argument("--preset", default="quick", help="the run whose lists and lessons quality is measured with")
    asked = parser.parse_args()
    llm, known = weights.load(weights.SMOLLM2), told()
    parts = {part: partial(PARTS[part], llm, known, asked) for part in asked.parts}
    table.run(parts, COLUMNS, "llm_engine.csv")
    if {"quality", "others"} & set(asked.parts):
        minutes_figure()


if __name__ == "__main__":
    main()
