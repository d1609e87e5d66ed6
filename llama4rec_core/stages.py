"""The walk through the house, as files: each stage reads what earlier ones left, and leaves its own in the run's
folder.

    prepare -> backbone (base, hint) -> adapter (plain) -> pairs, insertions, attributes -> backbone (augmented)
            -> adapter (hints) -> scores -> aggregate -> tables

A stage that finds its file returns it; one that misses an earlier stage's file runs that stage first. So a notebook
can be run alone, and a run that was stopped goes on where it was. All randomness comes from (seed, stage).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from llama4rec_core import aggregation, instructions, paths, presets
from llama4rec_core.augmentation import data as made
from llama4rec_core.augmentation.prompt import HintSource, Sequences, sequences
from llama4rec_core.backbones import BACKBONES, Fitted, TrainingData, fit, top_k
from llama4rec_core.data import Dataset, Split, cases, cut_last, load, offsets, read_own, subset_users, table_1
from llama4rec_core.data.split import split as split_of
from llama4rec_core.files import once, read_frame, read_json, write_frame, write_json, write_tensors
from llama4rec_core.llm import cost, memory, prompts, ranking, recording, weights
from llama4rec_core.llm.engine import Prompt
from llama4rec_core.llm.lessons import Example
from llama4rec_core.presets import Preset

PARTS = {
    "base": ("valid", "test"),
    "augmented": ("valid", "test"),
    "hint": ("window",),
}  # what each fit of a backbone predicts
ADAPTERS = {"IFT": "plain", "Llama4Rec": "hints", "untuned": None}  # which LLM answers for which row


@dataclass(frozen=True, eq=False)
class Run:
    """A preset and the folder its results are in."""

    preset: Preset
    folder: Path

    @classmethod
    def open(cls, preset: str | Path | Preset) -> Run:
        """Raises ValueError where the folder was made with other settings: mixed results would be worth nothing."""
        preset = preset if isinstance(preset, Preset) else presets.load(preset)
        folder = paths.runs() / preset.name
        asked = _comparable(preset)
        record = folder / "preset.json"
        if record.exists():
            recorded = _flat(read_json(record))
            for key, value in _flat(asked).items():
                if recorded.get(key) != value:
                    made = f"with {key} = {recorded[key]!r}" if key in recorded else f"before there was a setting {key}"
                    raise ValueError(
                        f"results/runs/{preset.name} was made {made}, the preset now says {value!r}: "
                        "delete that folder or give the preset another name"
                    )
        else:
            write_json(record, asked)
        return cls(preset, folder)


def _comparable(preset: Preset) -> dict:
    """Settings that results depend on: seeds and backbones may be added to a run later, and prices are free."""
    content = presets.as_dict(preset)
    return {key: value for key, value in content.items() if key not in ("seeds", "backbones", "prices")}


def _flat(content: dict, before: str = "") -> dict:
    out = {}
    for key, value in content.items():
        name = f"{before}{key}"
        out |= (
            _flat(value, f"{name}.")
            if isinstance(value, dict)
            else {name: list(value) if isinstance(value, tuple) else value}
        )
    return out


# -- data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    dataset: Dataset
    split: Split
    told: Sequences
    held_out: np.ndarray  # bool [U]: users whose windows are kept out of tuning, to choose on

    @property
    def n_train(self) -> np.ndarray:
        """N(u), int64 [U]."""
        return self.told.n_train


@cache
def prepare(run: Run) -> Prepared:
    """Ratings in, split, and a record of both (`data/table_1.csv`, `data/split.json`)."""
    asked = run.preset.data
    if asked.name == "own":
        if not (asked.interactions and asked.items):
            raise ValueError("data.name is 'own', so data.interactions and data.items must name your two files")
        dataset = read_own(asked.interactions, asked.items)
    else:
        dataset = load(asked.name, asked.folder)
    once(run.folder / "data" / "table_1.csv", lambda: table_1(dataset))
    if asked.users is not None:
        dataset = subset_users(dataset, asked.users, seed=0)
    parts = split_of(dataset, asked.protocol, asked.tie_break)
    record = run.folder / "data" / "split.json"
    if not record.exists():
        sizes = {part: len(getattr(parts, part)) for part in ("train", "valid", "test")}
        write_json(
            record,
            {
                "dataset": dataset.name,
                "source": dataset.source,
                "data_sha256": dataset.sha256,
                "protocol": parts.protocol,
                "split_sha256": parts.sha256,
                "users": dataset.n_users,
                "items": dataset.n_items,
            }
            | sizes,
        )
    held_out = np.zeros(dataset.n_users, dtype=bool)
    chosen = np.random.default_rng([7, dataset.n_users]).permutation(dataset.n_users)[
        : round(run.preset.instructions.held_out * dataset.n_users)
    ]
    held_out[chosen] = True
    words = asked.words or prompts.WORDS.get(asked.name, prompts.Words())
    return Prepared(dataset, parts, sequences(dataset, parts, run.preset.instructions.window, words), held_out)


# -- backbones -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What a fitted backbone leaves: n cases with its list or its rating for each, and who is similar to whom."""

    cases: pd.DataFrame  # case, part, user, item, rating, prefix
    items: np.ndarray | None  # int64 [n, C], the top k' in order
    scores: np.ndarray | None  # float32 [n, C]
    ratings: np.ndarray | None  # float32 [n]
    similar: np.ndarray  # int64 [U], equation 4

    def part(self, *parts: str) -> Predictions:
        keep = self.cases["part"].isin(parts).to_numpy()
        return self.only(keep)

    def only(self, keep: np.ndarray) -> Predictions:
        def cut(array):
            return None if array is None else array[keep]

        return Predictions(
            self.cases[keep].reset_index(drop=True), cut(self.items), cut(self.scores), cut(self.ratings), self.similar
        )


def task_of(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: the known ones are {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name].task


def backbone(run: Run, name: str, variant: str, seed: int) -> Predictions:
    """Fit `name` on the data ("base"), on the data before the windows ("hint") or on data + what the LLM made
    ("augmented")."""
    folder = run.folder / "backbones" / f"{name}-s{seed}" / variant
    if not (folder / "predictions.parquet").exists():
        _fit_backbone(run, name, variant, seed, folder)
    frame, similar = (
        read_frame(folder / "predictions.parquet"),
        read_frame(folder / "similar.parquet")["similar"].to_numpy(),
    )
    listed = "items" in frame
    return Predictions(
        frame.drop(columns=[column for column in ("items", "scores", "predicted") if column in frame]),
        np.stack(frame["items"]).astype(np.int64) if listed else None,
        np.stack(frame["scores"]).astype(np.float32) if listed else None,
        None if listed else frame["predicted"].to_numpy(),
        similar,
    )


def _fit_backbone(run: Run, name: str, variant: str, seed: int, folder: Path) -> None:
    task, ready, started = task_of(name), prepare(run), time.time()
    n_users = ready.dataset.n_users
    if variant == "hint":  # early stopping must not look at the windows either: it watches the last item before them
        kept, _ = cut_last(ready.split.train, n_users, run.preset.instructions.window)
        train, valid = cut_last(kept, n_users, 1)
    else:
        train, valid = ready.split.train, ready.split.valid
    data = TrainingData(
        n_users,
        ready.dataset.n_items,
        train["user"].to_numpy(),
        train["item"].to_numpy(),
        train["rating"].to_numpy(),
        ready.dataset.scale,
    )
    if task == "rating":
        data = dataclasses.replace(
            data, user_features=_features(ready.dataset.users), item_features=_features(ready.dataset.items)
        )
    if variant == "augmented":
        data = _augmented(run, task, data, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these models are small: faster so, and the same result on any number of cores
    try:
        fitted = fit(name, data, valid, seed, run.preset.backbone_settings.get(name))
    finally:
        torch.set_num_threads(threads)
    frame = cases(ready.split, task, run.preset.instructions.window)
    frame = frame[frame["part"].isin(PARTS[variant])].reset_index(drop=True)
    frame, similar = predict(run, ready, fitted, frame, train)
    write_tensors(folder / "model.safetensors", fitted.state())
    write_frame(folder / "log.csv", fitted.log)
    write_frame(folder / "similar.parquet", pd.DataFrame({"user": np.arange(n_users), "similar": similar}))
    write_json(
        folder / "fit.json",
        {
            "backbone": name,
            "variant": variant,
            "seed": seed,
            "epochs": len(fitted.log),
            "seconds": round(time.time() - started, 1),
            "git_commit": paths.commit(),
        },
    )
    write_frame(folder / "predictions.parquet", frame)  # last: with it the stage is done


def predict(
    run: Run, ready: Prepared, fitted: Fitted, frame: pd.DataFrame, train: pd.DataFrame
) -> tuple[pd.DataFrame, np.ndarray]:
    """Top k' or ratings for every case, and each user's most similar user."""
    told, users = ready.told, frame["user"].to_numpy()
    known = np.split(train["item"].to_numpy(dtype=np.int64), offsets(train, ready.dataset.n_users)[1:-1])
    if hasattr(fitted.module, "user_embeddings"):
        similar = aggregation.most_similar_user(fitted.user_embeddings(known))
    else:  # a yardstick, which gives no hints
        similar = np.arange(ready.dataset.n_users)
    if fitted.task == "rating":
        return frame.assign(predicted=fitted.rate(users, frame["item"].to_numpy())), similar
    everything = np.iinfo(np.int64).max
    histories = [told.history(u, p, everything) for u, p in zip(users, frame["prefix"], strict=True)]
    n_before_test = told.n_train + np.bincount(ready.split.valid["user"], minlength=ready.dataset.n_users)
    seen = np.where(frame["part"] == "test", np.maximum(frame["prefix"], n_before_test[users]), frame["prefix"])
    exclude = [told.history(u, p, everything) for u, p in zip(users, seen, strict=True)]
    items, scores = top_k(fitted, users, histories, exclude, run.preset.prompts.candidates)
    return frame.assign(items=list(items), scores=list(scores)), similar


def _features(table: pd.DataFrame) -> pd.DataFrame:
    """What a feature model may see of users or items: not their names."""
    return table.drop(columns=[column for column in ("user_id", "item_id", "title", "zip_code") if column in table])


def _augmented(run: Run, task: str, data: TrainingData, seed: int) -> TrainingData:
    if task == "direct":
        return dataclasses.replace(data, triples=made.triples(pairs(run, seed)))
    if task == "sequential":
        return dataclasses.replace(
            data, insertions=insertions(run, seed)[["user", "item", "position"]].to_numpy(dtype=np.int64)
        )
    answers = attributes(run, seed).set_index("item").reindex(range(data.n_items))
    columns = {name: answers[name].fillna("").astype(str).to_numpy() for name, _ in prepare(run).told.words.attributes}
    return dataclasses.replace(data, item_features=data.item_features.assign(**columns))


# -- the LLM ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def llm_of(run: Run, kind: str | None, seed: int) -> weights.LLM:
    """The untuned LLM (None) or with an adapter: "plain" is LLM', "hints" is LLM''. One is kept in memory."""
    return weights.load(run.preset.llm, adapter(run, kind, seed) if kind else None)


def adapter(run: Run, kind: str, seed: int) -> Path:
    """Tune LLM' ("plain": prompts without hints) or LLM'' ("hints"): the same instructions in the same order, with
    hints added."""
    folder = run.folder / "llm" / f"{kind}-s{seed}"
    if not (folder / "tuning.json").exists():
        from llama4rec_core.llm import tuning  # takes seconds to import, and most stages do not tune

        llm = weights.load(run.preset.llm)
        tuning.tune(llm, lessons(run, llm, kind, seed), run.preset.tuning, folder, seed)
    return folder


def lessons(run: Run, llm: weights.LLM, kind: str, seed: int) -> list[Example]:
    """The instruction data of one adapter. Which targets are taught is drawn on prompts without hints, for both
    adapters."""
    plain = _lessons(run, llm, False, seed)
    rng = np.random.default_rng([seed, 31])
    chosen = instructions.mix(plain, run.preset.instructions.shares, run.preset.instructions.tokens, rng)
    if kind == "plain":
        return chosen
    hinted = {
        example.prompt.key: example for examples in _lessons(run, llm, True, seed).values() for example in examples
    }
    return [hinted[example.prompt.key] for example in chosen]


def _lessons(run: Run, llm: weights.LLM, with_hints: bool, seed: int) -> dict[str, list[Example]]:
    ready, asked, ask = prepare(run), run.preset.instructions, run.preset.prompts
    rng, before, mode = np.random.default_rng([seed, 32]), title_prior(run, True), run.preset.ranking.mode
    read = title_tokens(run, llm)
    out: dict[str, list[Example]] = {}
    for task, name in run.preset.hint_backbones.items():
        known = backbone(run, name, "hint", seed)
        known = known.only(~ready.held_out[known.cases["user"].to_numpy()])
        hints = hint_source(run, known, "hint") if with_hints else None
        if task == "rating":
            out["rating"] = instructions.rating_examples(
                llm, ready.told, known.cases.assign(predicted=known.ratings), ask.rated_history, hints
            )
        else:
            out[task] = [
                dataclasses.replace(
                    example, prompt=dataclasses.replace(example.prompt, key=f"{task}-{example.prompt.key}")
                )
                for example in instructions.ranking_examples(
                    llm,
                    ready.told,
                    instructions.lists(known.cases, known.items),
                    ask.history,
                    hints,
                    before,
                    mode,
                    read,
                )
            ]
    order = cases(ready.split, "sequential", asked.window)
    order = order[(order["part"] == "window") & ~ready.held_out[order["user"].to_numpy()]]
    users = np.flatnonzero(~ready.held_out)
    ahead, others = (asked.ahead, 0) if mode == "likelihood" else (1, asked.others)
    following = instructions.next_lists(ready.told, users, ahead, others, rng)
    following = [following[i] for i in rng.permutation(len(following))[: asked.next]]
    out["next"] = instructions.ranking_examples(llm, ready.told, following, ask.history, None, before, mode, read)
    drawn = order.iloc[np.sort(rng.permutation(len(order))[: asked.pairs])]
    out["pair"] = instructions.pair_examples(llm, ready.told, drawn, ask.history, rng)
    return out


def hint_source(run: Run, known: Predictions, variant: str) -> HintSource:
    told = prepare(run).told
    return HintSource(known.similar, told.n_kept if variant == "hint" else told.n_train, run.preset.prompts.similar)


def title_prior(run: Run, tuned: bool, mode: str | None = None) -> np.ndarray:
    """What ranking by a tuned or by the untuned LLM subtracts from a title's log-likelihood, float32 [I]: a weight
    times log p(title | no history) by the untuned LLM. For the untuned one, how likely a title is as mere words must
    not decide; a tuned one has been told what is chosen how often.

    mode: a way of ranking instead of the preset's; all but likelihood subtract nothing.
    """
    told, asked = prepare(run).told, run.preset.ranking
    weight = asked.prior_weight if tuned else asked.untuned_prior_weight
    if not weight or (mode or asked.mode) != "likelihood":
        return np.zeros(len(told.titles), dtype=np.float32)

    def make() -> pd.DataFrame:
        llm = llm_of(run, None, 0)
        chunks = np.array_split(np.arange(len(told.titles)), max(1, len(told.titles) // 40))
        alone = [instructions.List(f"prior-{chunk[0]:06d}", 0, 0, chunk, ()) for chunk in chunks]
        read = title_tokens(run, llm, "likelihood")
        asked = [instructions.ranking_prompt(llm, told, each, 0, None, title_tokens=read) for each in alone]
        scores = recording.score(
            llm, asked, run.folder / "llm" / "prior-raw.parquet", "titles without a history", run.preset.row_tokens
        )
        log_p = scores.sort_values(["key", "branch"])["log_p"].to_numpy()
        return pd.DataFrame({"item": np.arange(len(told.titles)), "title": told.titles, "log_p": log_p})

    return (weight * once(run.folder / "llm" / "prior.parquet", make)["log_p"]).to_numpy(dtype=np.float32)


def title_tokens(run: Run, llm: weights.LLM, mode: str | None = None) -> np.ndarray | None:
    """How far ranking reads each title, int64 [I] (`ranking.told_apart`); None: to its end, as all ways of ranking do
    but likelihood. mode: a way of ranking instead of the preset's."""
    further = run.preset.ranking.further_tokens
    if further is None or (mode or run.preset.ranking.mode) != "likelihood":
        return None
    return ranking.told_apart(llm, prepare(run).told.titles, further)


def llm_record(run: Run) -> dict:
    """Which LLM the run uses, and its size as `cost.size` counts it: `llm/weights.json`."""
    path = run.folder / "llm" / "weights.json"
    if not path.exists():
        llm = llm_of(run, None, 0)
        write_json(path, {"name": llm.name, "sha256": llm.sha256} | cost.size(llm))
    return read_json(path)


def memory_probe(run: Run) -> pd.DataFrame:
    """Does the untuned LLM know the data set's own item list by heart? `llm/memory.csv`."""
    table = prepare(run).dataset.items

    def make() -> pd.DataFrame:
        return memory.probe(llm_of(run, None, 0), list(table["item_id"]), list(table["title"]))

    return once(run.folder / "llm" / "memory.csv", make)


# -- data augmentation -----------------------------------------------------------------------------


def pairs(run: Run, seed: int) -> pd.DataFrame:
    """P1, `augmentation/pairs-s<seed>.csv`."""
    path = run.folder / "augmentation" / f"pairs-s{seed}.csv"
    ready, asked = prepare(run), run.preset.augmentation
    users = _draw_users(ready, asked.users, [seed, 43])
    return once(
        path,
        lambda: made.pairs(
            llm_of(run, "plain", seed),
            ready.told,
            users,
            asked.pairs,
            run.preset.prompts.history,
            seed,
            path,
            run.preset.row_tokens,
        ),
    )


def insertions(run: Run, seed: int) -> pd.DataFrame:
    """P2, `augmentation/insertions-s<seed>.csv`."""
    path = run.folder / "augmentation" / f"insertions-s{seed}.csv"
    ready, asked = prepare(run), run.preset.augmentation
    users = _draw_users(ready, asked.users, [seed, 44])

    def make() -> pd.DataFrame:
        before, llm = title_prior(run, True), llm_of(run, "plain", seed)
        return made.insertions(
            llm,
            ready.told,
            users,
            asked.sampled,
            run.preset.prompts.history,
            before,
            seed,
            path,
            run.preset.row_tokens,
            run.preset.ranking.mode,
            title_tokens(run, llm),
        )

    return once(path, make)


def attributes(run: Run, seed: int) -> pd.DataFrame:
    """P3, `augmentation/attributes-s<seed>.csv`."""
    path = run.folder / "augmentation" / f"attributes-s{seed}.csv"
    ready, asked = prepare(run), run.preset.augmentation
    table = ready.dataset.items
    if not ready.told.words.attributes:  # own data without data.words.attributes: there is nothing to ask
        return pd.DataFrame({"item": np.arange(0), "title": "", "answer": "", "defects": ""})
    items = np.arange(len(table))[: asked.items] if asked.items is not None else np.arange(len(table))
    years = table["year"].iloc[items].astype(str) if "year" in table else [""] * len(items)
    made_once = once(
        path,
        lambda: made.attributes(
            llm_of(run, "plain", seed),
            ready.told,
            items,
            list(years),
            path,
            asked.items_per_batch,
        ),
    )
    return made_once.fillna("")


def _draw_users(ready: Prepared, count: int, seed: list[int]) -> list[int]:
    return np.sort(np.random.default_rng(seed).permutation(ready.dataset.n_users)[:count]).tolist()


# -- scores ----------------------------------------------------------------------------------------


def asked_of(run: Run, name: str, method: str, seed: int) -> list[tuple[str, Predictions]]:
    """Which predictions a row's LLM is asked about: (variant, predictions) pairs, the choosing cases among them.

    Top-k: only lists that hold their target are asked about (the short cut). Rating: `evaluation.rating_users` users.
    """
    ready, ask = prepare(run), run.preset.evaluation
    variant = "augmented" if method == "Llama4Rec" else "base"
    known = backbone(run, name, variant, seed)
    out = [(variant, known.part("valid") if method == "untuned" else known)]
    if method == "Llama4Rec":
        windows = backbone(run, run.preset.hint_backbones[task_of(name)], "hint", seed)
        choosing = np.flatnonzero(ready.held_out)[: ask.choosing_users]
        out.append(("hint", windows.only(windows.cases["user"].isin(choosing).to_numpy())))
    if task_of(name) == "rating" and ask.rating_users is not None:
        users = _draw_users(ready, ask.rating_users, [51])
        out[0] = (variant, out[0][1].only(out[0][1].cases["user"].isin(users).to_numpy()))
    return out


def list_scores(run: Run, name: str, method: str, seed: int) -> pd.DataFrame:
    """Top-k: the LLM's utilities of the listed candidates (likelihoods less `title_prior`). Columns: key
    (part-user-prefix), item, utility.

    `scores/<name>-<method>-s<seed>.parquet`; the costs stand in the .json beside the raw scores.
    """
    path, mode = run.folder / "scores" / f"{name}-{method}-s{seed}.parquet", run.preset.ranking.mode

    def make() -> pd.DataFrame:
        told, kind = prepare(run).told, ADAPTERS[method]
        llm = llm_of(run, kind, seed)
        read = title_tokens(run, llm)
        lists, asked = [], []
        for variant, known in asked_of(run, name, method, seed):
            hints = hint_source(run, known, variant) if kind == "hints" else None
            some = instructions.with_target(instructions.lists(known.cases, known.items))
            lists += some
            asked += [
                instructions.ranking_prompt(llm, told, each, run.preset.prompts.history, hints, mode, read)
                for each in some
            ]
        found = _ask(run, llm, mode, lists, asked, path, f"{name} {method} lists")
        before = title_prior(run, kind is not None)
        return found.assign(utility=found["utility"] - before[found["item"].to_numpy()])

    return once(path, make)


def _ask(
    run: Run,
    llm: weights.LLM,
    mode: str,
    lists: Sequence[instructions.List],
    asked: Sequence[Prompt],
    path: Path,
    what: str,
) -> pd.DataFrame:
    """Utilities of every list's candidates, priors not yet subtracted: key, item, utility. The LLM's own answers are
    left beside `path`."""
    titles = {each.key: instructions.titles(prepare(run).told, each) for each in lists}
    raw = path.with_name(f"{path.stem}-raw.parquet")
    found = ranking.utilities(mode, llm, asked, titles, raw, what, run.preset.row_tokens)
    candidates = {each.key: each.candidates for each in lists}
    items = [candidates[key][c] for key, c in zip(found["key"], found["candidate"], strict=True)]
    return pd.DataFrame({"key": found["key"], "item": np.array(items, dtype=np.int64), "utility": found["utility"]})


def ranked(run: Run, llm: weights.LLM, known: Predictions, mode: str, path: Path, tuned: bool) -> pd.DataFrame:
    """A backbone's lists that hold their target, ranked by `llm` in one of the ways: key, item, log_p (what it gave),
    utility. Its answers are left beside `path`."""
    told, lists = prepare(run).told, instructions.with_target(instructions.lists(known.cases, known.items))
    read, length = title_tokens(run, llm, mode), run.preset.prompts.history
    asked = [instructions.ranking_prompt(llm, told, each, length, None, mode, read) for each in lists]
    found = _ask(run, llm, mode, lists, asked, path, f"{path.stem} by {mode}")
    before = title_prior(run, tuned, mode)[found["item"].to_numpy()]
    return found.assign(log_p=found["utility"], utility=found["utility"] - before)


def way_scores(run: Run, name: str, mode: str, seed: int) -> tuple[pd.DataFrame, dict]:
    """Validation lists ranked in one of the ways by the untuned LLM: key, item, log_p (what it gave), utility, cost.

    `scores/ways/<name>-<mode>-s<seed>.parquet`
    """
    path = run.folder / "scores" / "ways" / f"{name}-{mode}-s{seed}.parquet"
    known = backbone(run, name, "base", seed).part("valid")
    frame = once(path, lambda: ranked(run, llm_of(run, None, seed), known, mode, path, tuned=False))
    spent = recording.cost(path.with_name(f"{path.stem}-raw.parquet"))
    return frame, {key: spent[key] for key in ("tokens_read", "tokens_written", "seconds")}


def rating_scores(run: Run, name: str, method: str, seed: int) -> pd.DataFrame:
    """Rating: what the LLM predicts. Columns: part, user, item, rating, backbone, expected (over the scale),
    likeliest."""
    path = run.folder / "scores" / f"{name}-{method}-s{seed}.parquet"

    def make() -> pd.DataFrame:
        ready, kind = prepare(run), ADAPTERS[method]
        llm, told = llm_of(run, kind, seed), ready.told
        groups, asked = [], []
        for variant, known in asked_of(run, name, method, seed):
            hints = hint_source(run, known, variant) if kind == "hints" else None
            for key, user, prefix, rows in instructions.rating_groups(known.cases.assign(predicted=known.ratings)):
                groups.append((f"{variant}-{key}", rows))
                prompt = instructions.rating_prompt(
                    llm,
                    told,
                    f"{variant}-{key}",
                    user,
                    prefix,
                    rows["item"].to_numpy(),
                    run.preset.prompts.rated_history,
                    hints,
                    rows["predicted"].to_numpy(),
                )
                asked.append(prompt)
        scores = recording.score(
            llm, asked, path.with_name(f"{path.stem}-raw.parquet"), f"{name} {method} ratings", run.preset.row_tokens
        )
        by_key = {key: rows for key, rows in scores.groupby("key")}
        out = []
        for key, rows in groups:
            log_p = by_key[key].sort_values(["branch", "choice"])["log_p"].to_numpy().reshape(len(rows), -1)  # [M, R]
            out.append(
                pd.DataFrame(
                    {
                        "part": rows["part"].to_numpy(),
                        "user": rows["user"].to_numpy(),
                        "item": rows["item"].to_numpy(),
                        "rating": rows["rating"].to_numpy(),
                        "backbone": np.clip(rows["predicted"].to_numpy(), *ready.dataset.scale),
                        "expected": np.exp(log_p) @ told.values,
                        "likeliest": told.values[log_p.argmax(axis=1)],
                    }
                )
            )
        return pd.concat(out, ignore_index=True)

    return once(path, make)
