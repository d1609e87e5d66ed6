"""How fast the LLM engine is: against `transformers`' own generate and Trainer, and against the machine.

    python tests/benchmarks/benchmark_engine.py        all parts, in one run on one machine, same weights, same users
    python tests/benchmarks/benchmark_engine.py --parts ranking --peer-users 4 --users 20        a look in a minute

Writes results/benchmarks/llm_engine.csv: the rows of the parts that were run, and the others as they were. The peer is
given the same prompts, greedy decoding, a stop at the list's end, its best batch size and all threads. Speeds do not
depend on which films are asked about, so candidates are drawn from the popular ones.
"""

import argparse
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import table
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from llama4rec_core import data as sources
from llama4rec_core import evaluation, experiment, figures, paths
from llama4rec_core.backbones import BACKBONES, BASELINES
from llama4rec_core.backbones.predict import Predictions, read_predictions
from llama4rec_core.data.prepared import Prepared, prepare, read_prepared
from llama4rec_core.llm import cost, finetune, model
from llama4rec_core.llm.batches import logits_of
from llama4rec_core.llm.examples import CandidateList, Example, by_kind, candidate_lists, mix, with_target
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.tree import Prompt, packed_rows, tokens_read
from llama4rec_core.presets import Preset, TuningSettings, as_dict
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run, rng
from llama4rec_core.tasks import TASKS

ALL = 10**6  # times the minutes: all examples there are
FEW = 6_000  # tokens that the speed of tuning is measured on
LORA = TuningSettings(method="lora", row_tokens=512)  # what plain Trainer is compared with token by token
PRESET = Preset("defaults")  # how much of a history and of a title a prompt tells, and how long a row is
COLUMNS = ["part", "what", "ours", "peer", "peer_value", "ratio", "ours_metric", "peer_metric", "unit"]


def row(part, what, ours, unit, peer="", peer_value=None, ours_metric=None, peer_metric=None) -> dict:
    """`ratio` is ours by the peer's: all values are rates, larger is better."""
    ratio = None if peer_value is None else ours / peer_value
    return dict(zip(COLUMNS, (part, what, ours, peer, peer_value, ratio, ours_metric, peer_metric, unit), strict=True))


def default_ranker() -> Ranker:
    """Ranks by likelihood in MovieLens-100K, as the defaults say."""
    histories = prepare(sources.load("ml-100k"), PRESET).histories
    return Ranker.of(PRESET, model.load(model.SMOLLM2), histories, tuned=True)


def untouched(ranker: Ranker) -> Ranker:
    """The same with an LLM of its own, to be tuned."""
    return replace(ranker, llm=model.load(model.SMOLLM2, dtype=torch.float32))


def lists(ranker: Ranker, count: int, k: int) -> list[CandidateList]:
    """`count` users with k popular candidates each, drawn once; the first is the target."""
    draws, known = np.random.default_rng(0), ranker.histories
    popular = np.argsort(-np.bincount(known.items, minlength=len(known.titles)), kind="stable")[:300]
    users, n_train = draws.choice(len(known.n_train), count, replace=False), known.n_train
    drawn = [(int(user), draws.choice(popular, k, replace=False)) for user in users]
    return [CandidateList(f"b{u}", u, int(n_train[u]), items, (int(items[0]),)) for u, items in drawn]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _score(llm: LLM, prompts: Sequence[Prompt]) -> None:
    for packed in packed_rows(prompts, PRESET.row_tokens):
        score_row(llm, [prompts[i] for i in packed])


# -- ranking -----------------------------------------------------------------------------------------------------------


def ranking_rows(ranker: Ranker, asked: argparse.Namespace) -> Iterator[dict]:
    llm = ranker.llm
    listwise = Ranker.of(PRESET, llm, ranker.histories, tuned=True, way="listwise")
    for k in (10, 20):
        ours = lists(ranker, asked.users, k)
        tree, few = [ranker.prompt(each) for each in ours], ours[: asked.peer_users]
        _score(llm, tree[:1])
        rate = len(tree) / seconds(partial(_score, llm, tree))
        written = [(listwise.prompt(each).prefix, len(llm.encode("\n".join(ranker.named(each))))) for each in few]
        peer = {size: len(few) / seconds(partial(_generate, llm, written, size)) for size in (1, *asked.batches)}
        best = max(asked.batches, key=peer.get)
        one_each = [Prompt(f"{p.key}-{b}", p.prefix, (x,)) for p in tree[: len(few)] for b, x in enumerate(p.branches)]
        apart = len(few) / seconds(partial(_score, llm, one_each))
        for name, value in (
            ("transformers generate, the list, one prompt at a time", peer[1]),
            (f"transformers generate, the list, batches of {best}", peer[best]),
            ("one prompt per candidate, packed by our engine", apart),
        ):
            yield row("ranking", f"likelihood of {k} candidates in one tree", rate, "users/s", name, value)


@torch.inference_mode()
def _generate(llm: LLM, written: Sequence[tuple[tuple[int, ...], int]], size: int) -> None:
    """The peer: padded batches of prompts through `generate`, as many tokens as the batch's longest list needs.
    written: each prompt's tokens, and how many its list has."""
    written = sorted(written, key=lambda each: len(each[0]))
    for start in range(0, len(written), size):
        prefixes, lengths = zip(*written[start : start + size], strict=True)
        tokens = torch.zeros(len(prefixes), len(prefixes[-1]), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for line, prefix in enumerate(prefixes):
            tokens[line, -len(prefix) :], mask[line, -len(prefix) :] = torch.tensor(prefix), 1
        llm.model.generate(tokens, attention_mask=mask, max_new_tokens=max(lengths) + 1, do_sample=False)


# -- the machine -------------------------------------------------------------------------------------------------------


def machine_rows(ranker: Ranker, asked: argparse.Namespace) -> Iterator[dict]:
    """Needed operations a second of reading and tuning, as a share of the matrix-product rate, which is measured right
    before and right after each of the two."""
    llm, size, before = ranker.llm, cost.size(ranker.llm), cost.machine_rate(seconds=5.0)
    given = [ranker.prompt(each) for each in lists(ranker, asked.users, 10)]
    tokens = sum(sum(tokens_read([given[i] for i in packed])) for packed in packed_rows(given, PRESET.row_tokens))
    places = sum(map(logits_of, given))
    _score(llm, given[:8])
    spent = seconds(lambda: _score(llm, given))
    between = cost.machine_rate(seconds=5.0)
    rate = (before + between) / 2
    needed = 2 * size["body"] * tokens + 2 * size["head"] * places
    sum_of = f"(2 x {size['body']} x {tokens} + 2 x {size['head']} x {places}) / {spent:.2f} s / {rate:.4g}"
    yield row("machine", "float32 matrix product", rate / 1e9, "Gflop/s")
    yield row("machine", f"reading: share = {sum_of}", needed / spent / rate, "share of the matrix-product rate")
    yield row("machine", "reading", tokens / spent, "tokens/s")
    tokens, places, spent = _tune(untouched(ranker), asked.tuned)
    rate = (between + cost.machine_rate(seconds=5.0)) / 2
    passes = 4  # forward, and backward to the activations; logits forward and backward
    needed = passes * size["body"] * tokens + 4 * size["head"] * places
    sum_of = f"({passes} x {size['body']} x {tokens} + 4 x {size['head']} x {places}) / {spent:.2f} s / {rate:.4g}"
    yield row("machine", f"tuning: share = {sum_of}", needed / spent / rate, "share of the matrix-product rate")
    peer_tokens, peer_spent = _peer_tune(untouched(ranker), asked.tuned)
    peer = "transformers Trainer, padded, LoRA on all layers"
    rates = (tokens / spent, "useful tokens/s; lists/s", peer, peer_tokens / peer_spent)
    yield row("machine", "tuning", *rates, asked.tuned / spent, asked.tuned / peer_spent)


def _tune(ranker: Ranker, count: int) -> tuple[int, int, float]:
    """Tokens, places at which logits are computed, and seconds of tuning the ranker's LLM on `count` lists."""
    examples = [ranker.example(each) for each in lists(ranker, count, 10)]
    packed = finetune.pack(examples, LORA.row_tokens, 0)
    with tempfile.TemporaryDirectory() as folder:
        spent = seconds(
            lambda: finetune.tune(ranker.llm, packed, LORA, LORA.learning_rate, Path(folder) / "checkpoint", 0)
        )
    tokens = sum(sum(tokens_read([each.prompt for each in row])) for row in packed)
    return tokens, sum(logits_of(each.prompt) for each in examples), spent


def _peer_tune(ranker: Ranker, count: int) -> tuple[int, float]:
    """Tokens that are no padding, and seconds, of `_trainer`: it reads a list's right answer, ours all candidates."""
    examples = [ranker.example(each) for each in lists(ranker, count, 10)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(ranker.llm, examples, Path(folder))
        spent = seconds(trainer.train)
    return sum(map(len, trainer.train_dataset)), spent


def _trainer(llm: LLM, examples: Sequence[Example], folder: Path) -> Trainer:
    """Plain Trainer: each prompt with its right answer in a padded row of its own, cross-entropy and logits
    everywhere, LoRA on all layers."""
    texts = []
    for each in examples:
        first = each.choice_sets[0]  # of several the next item
        texts.append(each.prompt.prefix + each.prompt.branches[first.branches[first.right]].tokens)

    def collate(batch):
        width = max(map(len, batch))
        ids = torch.tensor([list(text) + [0] * (width - len(text)) for text in batch])
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in batch])
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    learnt = LoraConfig(r=16, lora_alpha=32, target_modules=finetune.LINEAR, task_type="CAUSAL_LM")
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=8, num_train_epochs=1, save_strategy="no", report_to="none",
        remove_unused_columns=False, disable_tqdm=True, dataloader_pin_memory=False,
        learning_rate=LORA.learning_rate, label_names=["labels"],
    )  # fmt: skip
    with model.quiet_peft():
        tuned = get_peft_model(llm.model, learnt)
    return Trainer(tuned, arguments, train_dataset=texts, data_collator=collate)


# -- quality -----------------------------------------------------------------------------------------------------------


def quality_rows(ranker: Ranker, asked: argparse.Namespace) -> Iterator[dict]:
    """Likelihood, and the untuned written list."""
    tries = [("listwise", "listwise", _ours, 0), *(("likelihood", "likelihood", _ours, s) for s in (0, 0.5, 1, ALL))]
    yield from _qualities("quality", ranker.llm, asked, tries)


def other_rows(ranker: Ranker, asked: argparse.Namespace) -> Iterator[dict]:
    """Plain Trainer's tuning, and the other ways of ranking."""
    tries = [("likelihood, by Trainer", "likelihood", _theirs, 1)]
    tries += [(way, way, _ours, share) for way in ("letters", "yes_no") for share in (0, 1)]
    tries.append(("listwise", "listwise", _ours, 1))
    yield from _qualities("others", ranker.llm, asked, tries)


def _qualities(part: str, llm: LLM, asked: argparse.Namespace, tries: list[tuple]) -> Iterator[dict]:
    """Ways of ranking, untuned and tuned for about the same minutes: NDCG@5 within LightGCN's and SASRec's lists of
    validation cases that hold their target. Likelihood is also tuned for half the minutes and on all examples there are
    (judged on the lists of every top-k backbone, too). A tuned row is compared with the untuned one of its part on the
    same users."""
    run = Run.open(asked.preset)
    names = [name for name, each in BACKBONES.items() if each.task != "rating" and name not in BASELINES]
    folders = {name: f"backbones/{name}-s0/base" for name in names}
    run.require("llm/prior.parquet", *(f"{folder}/predictions.parquet" for folder in folders.values()))
    ready = read_prepared(run.path("data"), run.preset)
    log_p = pd.read_parquet(run.path("llm/prior.parquet"))["log_p"].to_numpy()
    known = {name: read_predictions(run.path(folder)).part("valid") for name, folder in folders.items()}
    few, untuned = ["LightGCN", "SASRec"], {}
    wide = [name for name in names if name not in few]
    for name, way, train, share in tries:
        with tempfile.TemporaryDirectory() as folder:
            tuned, minutes = llm, 0.0
            if share:
                examples = _examples(run, ready, Ranker.of(run.preset, llm, ready.histories, True, log_p, way))
                tuned, minutes = _tuned(train, examples, asked.minutes * share, Path(folder))
            ranker = Ranker.of(run.preset, tuned, ready.histories, share > 0, log_p, way)
            judge = partial(_judged, run, ranker, Path(folder), known)
            start = time.perf_counter()
            *judged, count = judge(few)
            rate = count / (time.perf_counter() - start)
            results = [(name, judged)]
            if name == "likelihood" and share in (0, ALL):
                more = [np.concatenate(both) for both in zip(judged, judge(wide)[:2], strict=True)]
                results.insert(0, (f"{name}, lists of all {len(names)} backbones", more))
        for label, (users, values) in results:
            if not share:
                untuned[label] = evaluation.per_user(values, users)
            before = untuned.get(label) if share else None
            yield _quality(part, label, users, values, before, minutes, rate, run.preset.evaluation.draws)


def _examples(run: Run, ready: Prepared, ranker: Ranker) -> list[Example]:
    """All ranking examples there are, as notebook 03 mixes them."""
    writers = as_dict(run.preset)["out_of_fold"]
    out_of_fold = {
        task: (read_predictions(run.path(f"backbones/{writers[task]}-s0/out_of_fold")), None)
        for task in ("direct", "sequential")
    }
    windows = sources.cases(ready.split, "sequential", ready.window).query("part == 'window'")
    length, draws = run.preset.prompts.rated_history, rng("examples", 0)
    kinds = by_kind(ranker, out_of_fold, windows, length, draws)
    shares = as_dict(run.preset)["instructions"]["shares"] | {"rating": 0, "pair": 0}
    return mix(kinds, shares, 10**9, rng("mixture of examples", 0))


def _judged(
    run: Run, ranker: Ranker, folder: Path, known: dict[str, Predictions], which: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Users and NDCG@5 of the cases whose lists hold their target, by the LLM alone, and how many lists it read."""
    found, count = [], 0
    for each in which:
        asked = with_target(candidate_lists(known[each].cases, known[each].items))
        path, count = folder / f"{each}.parquet", count + len(asked)
        scores = ranker.utilities(asked, [ranker.prompt(one) for one in asked], path, path.stem)
        found.append(experiment.Lists.of(known[each], scores, run.preset.aggregation.utilities).alone(1.0))
    users, values = (np.concatenate(both) for both in zip(*found, strict=True))
    return users, values, count


def _quality(part, name, users, values, untuned: pd.Series | None, minutes: float, rate: float, draws: int) -> dict:
    found, said = experiment.alone(TASKS["direct"], name, users, values, draws), ""
    ndcg = evaluation.per_user(values, users)
    if untuned is not None:
        gain = evaluation.estimate((ndcg - untuned).to_numpy())
        said = f"; less untuned {gain.value:+.4f} [{gain.ci_low:+.4f}, {gain.ci_high:+.4f}]"
    return row(
        part,
        f"{name}, tuned for {minutes:.2f} minutes [{found['ci_low']:.4f}, {found['ci_high']:.4f}]{said}",
        rate,
        f"lists/s; NDCG@5 within {found['lists']} validation lists of {len(ndcg)} users",
        ours_metric=found["value"],
    )


ROW = re.compile(r"(?P<mode>.+), tuned for (?P<minutes>[\d.]+) minutes \[(?P<ci_low>[\d.]+), (?P<ci_high>[\d.]+)\]")


def minutes_figure() -> None:
    """`figures/tuning_minutes.png`: NDCG@5 by minutes of tuning, a line for each way of ranking, of the rows that
    `_qualities` left, all on the same lists."""
    left = pd.read_csv(paths.results() / "benchmarks" / "llm_engine.csv")
    left = left[left["part"].isin(["quality", "others"])].drop_duplicates("what", keep="last")
    curve = left["what"].str.extract(ROW).assign(value=left["ours_metric"])
    curve = curve[~curve["mode"].str.contains("lists of all")]
    curve[["minutes", "ci_low", "ci_high"]] = curve[["minutes", "ci_low", "ci_high"]].astype(float)
    fig, (ax,) = figures._panels(1)
    names = list(dict.fromkeys(curve["mode"]))
    step = 0.01 * max(curve["minutes"].max(), 1e-9)
    for n, (name, colour) in enumerate(zip(names, figures.PALETTE, strict=False)):
        rows = curve[curve["mode"] == name].sort_values("minutes")
        reach = [rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]]
        at = rows["minutes"] + step * (n - len(names) / 2)  # side by side, so that whiskers can be told apart
        ax.errorbar(at, rows["value"], yerr=reach, color=colour, marker="o", linewidth=2, capsize=3, label=name)
    random = evaluation.random_order_ndcg(PRESET.prompts.candidates, 5)
    ax.axhline(random, color="0.25", linestyle="--", linewidth=1.5, label="random order")
    ax.set(xlabel="minutes of tuning", ylabel="NDCG@5 within the list (0 to 1)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))  # beside the whiskers, not on them
    best = curve.loc[curve["value"].idxmax()]
    finding = f"Best after {best['minutes']:.0f} minutes of tuning: {best['mode']}, NDCG@5 {best['value']:.3f}"
    note = "lists that hold their target, none of them tuned on;  95% intervals over users"
    figures.save(figures._finish(fig, finding, note), paths.results() / "figures" / "tuning_minutes.png")


def _tuned(train: Callable, examples: list[Example], minutes: float, folder: Path) -> tuple[LLM, float]:
    """The LLM after as many examples as can be read in `minutes`, or all there are, and the minutes it took. The speed
    is measured on the first few."""
    total = np.cumsum([len(each.prompt) for each in examples])
    few = min(max(1, int(np.searchsorted(total, FEW))), len(total))
    speed = total[few - 1] / seconds(lambda: train(examples[:few], folder / "few"))
    many = max(1, int(np.searchsorted(total, speed * minutes * 60)))
    spent = seconds(lambda: train(examples[:many], folder / "checkpoint"))
    return model.load(model.SMOLLM2, folder / "checkpoint"), spent / 60


def _ours(examples: list[Example], folder: Path) -> None:
    settings = PRESET.tuning
    llm = model.load(model.SMOLLM2, dtype=torch.float32, layers=settings.layers)
    rows = finetune.pack(examples, settings.row_tokens, 0)
    finetune.tune(llm, rows, settings, settings.learning_rate, folder, 0)


def _theirs(examples: list[Example], folder: Path) -> None:
    trainer = _trainer(model.load(model.SMOLLM2, dtype=torch.float32), examples, folder)
    trainer.train()
    trainer.model.merge_and_unload().save_pretrained(folder)


# -- memory ------------------------------------------------------------------------------------------------------------


def memory_rows(ranker: Ranker, asked: argparse.Namespace) -> Iterator[dict]:
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
    ranker = default_ranker()
    if what == "scoring":
        _score(ranker.llm, [ranker.prompt(each) for each in lists(ranker, count, 10)])
    else:
        _tune(ranker, count)
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
        help="of tuning, for each way of ranking; likelihood also half as long, and on all examples",
    )
    parser.add_argument("--preset", default="quick", help="the run whose lists and examples quality is measured with")
    asked = parser.parse_args()
    ranker = default_ranker()
    table.run({part: partial(PARTS[part], ranker, asked) for part in asked.parts}, COLUMNS, "llm_engine.csv")
    if {"quality", "others"} & set(asked.parts):
        minutes_figure()


if __name__ == "__main__":
    main()
