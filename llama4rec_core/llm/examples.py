"""Training examples (4.5): the prompts that are asked, with their right answers.

The LLM learns in two steps. Its trunk reads histories, in which every title is a target. From it LLM' and LLM'' branch
off, with the same further examples, without and with hints:

    direct, sequential   the out-of-fold backbone's real top k'; a list without the target is dropped, not patched
    next                 the windows' titles, each a target after those before it
    rating               the windows' ratings
    pair                 P1: a window item against a random one, asked in both orders

Their targets are the windows' items (the last part of some users' training sequences). The trunk reads only what comes
before the windows, and the out-of-fold backbone was fitted on just that.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.data.histories import Histories, unseen
from llama4rec_core.llm import prompts
from llama4rec_core.llm.hints import Hints
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Prompt
from llama4rec_core.presets import TrunkSettings


@dataclass(frozen=True)
class ChoiceSet:
    """Alternatives and the index of the right one: among a prompt's branches by their answers, among branches that each
    have two choices (yes, no), among one branch's choices, or among `ways`."""

    branches: tuple[int, ...]
    right: int
    ways: tuple[tuple[tuple[int, int], ...], ...] = ()  # to each alternative: (branch, choice), ...


@dataclass(frozen=True)
class Example:
    """A prompt, its choice sets, and the right answer to each."""

    prompt: Prompt
    choice_sets: tuple[ChoiceSet, ...]


@dataclass(frozen=True)
class CandidateList:
    """One list to be ranked: the cases it serves share user, history and candidates."""

    key: str
    user: int
    prefix: int
    candidates: np.ndarray  # int64 [C], in the backbone's order
    targets: tuple[int, ...]  # the cases' target items


def trunk(
    llm: LLM, histories: Histories, titles: Titles, settings: TrunkSettings, rng: np.random.Generator
) -> list[Example]:
    """About `settings.tokens` tokens of histories before the windows, in pieces of `settings.history` items.

    Every item is a target after those before it. The training sequences are read as often as the tokens last, each
    time cut at other places. Of a share `settings.rated` of the pieces the ratings are told, and are the targets.
    """
    out: list[Example] = []
    spent = reading = 0
    while spent < settings.tokens:
        pieces = list(_pieces(histories, settings.history, rng))
        if not pieces:
            raise ValueError("no user has an interaction before the window: the trunk has nothing to read")
        for n in rng.permutation(len(pieces)):
            user, begin, end = pieces[n]
            key = f"trunk-{reading}-{user}-{end}"
            rated = histories.rated(user, end, end - begin) if rng.random() < settings.rated else []
            if rated and len(histories.scale) > 1:
                prompt = prompts.rating(llm, key, titles, rated, [], histories.scale, histories.words)
            else:
                items = histories.history(user, end, end - begin)
                prompt = prompts.with_history(llm, histories.words, titles, items, learn=True).prompt(key, [])
            out.append(Example(prompt, ()))
            spent += len(prompt)
            if spent >= settings.tokens:
                break
        reading += 1
    return out


def _pieces(histories: Histories, length: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Every user's sequence before the window, cut into pieces of `length` items at places drawn anew: (user, begin,
    end)."""
    for user, n in enumerate(histories.n_before_window.tolist()):
        cuts = [0, *range(int(rng.integers(1, length + 1)), n, length), n]
        yield from ((user, begin, end) for begin, end in zip(cuts[:-1], cuts[1:], strict=True) if end > begin)


def candidate_lists(cases: pd.DataFrame, candidates: np.ndarray) -> list[CandidateList]:
    """Group cases (rows) with their candidates [n, C] by part, user and history."""
    out: dict[str, CandidateList] = {}
    for row, items in zip(cases.itertuples(index=False), candidates, strict=True):
        key = f"{row.part}-{row.user}-{row.prefix}"
        before = out[key].targets if key in out else ()
        out[key] = CandidateList(key, int(row.user), int(row.prefix), items, (*before, int(row.item)))
    return list(out.values())


def with_target(lists: Sequence[CandidateList]) -> list[CandidateList]:
    """Lists that hold a target: for the others no order of the candidates can change a top-k metric."""
    return [each for each in lists if set(each.targets) & set(each.candidates.tolist())]


def pair_prompt(
    llm: LLM, histories: Histories, titles: Titles, key: str, user: int, prefix: int, couples: np.ndarray, length: int
) -> Prompt:
    """P1: couples [M, 2] of items, each asked in both orders (four branches a couple)."""
    history = histories.history(user, prefix, length)
    return prompts.pairs(llm, key, titles, history, couples.tolist(), histories.words)


def pair_examples(
    llm: LLM, histories: Histories, titles: Titles, cases: pd.DataFrame, length: int, rng: np.random.Generator
) -> list[Example]:
    """Of a window item and a random one, the window item is the answer, whichever stands first."""
    out = []
    for row in cases.itertuples(index=False):
        (other,) = unseen(histories, row.user, 1, rng)
        couple, key = np.array([[row.item, other]]), f"pair-{row.user}-{row.item}"
        prompt = pair_prompt(llm, histories, titles, key, row.user, row.prefix, couple, length)
        out.append(Example(prompt, (ChoiceSet((0, 1), 0), ChoiceSet((2, 3), 0))))
    return out


def next_examples(ranker, known: Sequence[tuple[Predictions, Hints | None]]) -> list[Example]:
    """Every window in pieces of at most NEXT_TOGETHER titles, told after the history before them.

    known: of each ranking task the out-of-fold backbone's window cases, and `Hints` or None. The tasks take turns in a
    window; the list that a piece's hints tell is the latest one made up to where the piece begins.
    """
    histories, out = ranker.histories, []
    by_user: list[dict[int, list[CandidateList]]] = [{} for _ in known]
    for lists, (predictions, _) in zip(by_user, known, strict=True):
        for each in candidate_lists(predictions.cases, predictions.items):
            lists.setdefault(each.user, []).append(each)
    for user in sorted(set().union(*by_user)):
        begins = range(int(histories.n_before_window[user]), int(histories.n_train[user]), NEXT_TOGETHER)
        for n, begin in enumerate(begins):
            task = n % len(known)
            hints = known[task][1]
            made = max((each for each in by_user[task][user] if each.prefix <= begin), key=lambda each: each.prefix)
            hint = hints.ranking(histories, user, made.candidates) if hints else None
            told = histories.history(user, begin, ranker.length)
            text = prompts.with_history(ranker.llm, histories.words, ranker.titles, told, hint)
            end = min(begin + NEXT_TOGETHER, int(histories.n_train[user]))
            text.titles(ranker.titles, histories.history(user, end, end - begin), learn=True)
            out.append(Example(text.prompt(f"next-{user}-{begin}", []), ()))
    return out


NEXT_TOGETHER = 20  # titles that are learnt in one example


def rating_groups(cases: pd.DataFrame, ratings: np.ndarray, most: int | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Cases that share user and history, each with the backbone's `predicted` rating [n]: (key, rows).

    most: at most so many cases stand in a group (None: all of them)."""
    out = []
    for (user, prefix), rows in cases.assign(predicted=ratings).groupby(["user", "prefix"], sort=True):
        for n in range(0, len(rows), most or len(rows)):
            key = f"rating-{user}-{prefix}"
            out.append((f"{key}-{n}" if n else key, rows.iloc[n : n + (most or len(rows))]))
    return out


def rating_prompt(
    llm: LLM, histories: Histories, titles: Titles, key: str, rows: pd.DataFrame, length: int, hints: Hints | None
) -> Prompt:
    """A group's items, each in a branch of its own; with hints, the similar user's ratings and the predicted ones."""
    user, prefix = int(rows["user"].iloc[0]), int(rows["prefix"].iloc[0])
    return prompts.rating(
        llm,
        key,
        titles,
        histories.rated(user, prefix, length),
        rows["item"].tolist(),
        histories.scale,
        histories.words,
        hints.rating(histories, user) if hints else None,
        rows["predicted"].to_numpy() if hints else None,
        learn=False,  # the trunk has learnt the history's own
    )


def rating_examples(
    llm: LLM,
    histories: Histories,
    titles: Titles,
    groups: Sequence[tuple[str, pd.DataFrame]],
    length: int,
    hints: Hints | None,
) -> list[Example]:
    """A choice set for each item: which of the scale's ratings the user gave."""
    scale, out = prompts.Scale.of(llm, histories.scale), []
    nodes = len(scale.nodes)
    for key, rows in groups:
        sets = []
        for first, value in zip(range(0, nodes * len(rows), nodes), rows["rating"], strict=True):
            ways = tuple(tuple((first + node, choice) for node, choice in way) for way in scale.ways)
            sets.append(ChoiceSet(tuple(range(first, first + nodes)), histories.rating_number(value), ways))
        out.append(Example(rating_prompt(llm, histories, titles, key, rows, length, hints), tuple(sets)))
    return out


def by_kind(
    ranker, out_of_fold: Mapping[str, tuple], windows: pd.DataFrame, rated_history: int, rng: np.random.Generator
) -> dict[str, list[Example]]:
    """All that the LLM could be tuned on after its trunk, by kind.

    ranker: a `rankers.Ranker`. out_of_fold: for each task the out-of-fold backbone's `Predictions` of window cases, and
    `Hints` or None. windows: the window cases with their true prefix.
    """
    llm, histories, titles = ranker.llm, ranker.histories, ranker.titles
    out: dict[str, list[Example]] = {}
    for task, (known, hints) in out_of_fold.items():
        if task == "rating":
            groups = rating_groups(known.cases, known.ratings, most=RATED_TOGETHER)
            out[task] = rating_examples(llm, histories, titles, groups, rated_history, hints)
        else:
            examples = (ranker.example(each, hints) for each in with_target(candidate_lists(known.cases, known.items)))
            out[task] = [_named(task, each) for each in examples if each is not None]
    ranking = [known for task, known in out_of_fold.items() if task != "rating"]
    out["next"] = next_examples(ranker, ranking) if ranking else []
    out["pair"] = pair_examples(llm, histories, titles, windows, ranker.length, rng)
    return out


RATED_TOGETHER = 20  # items whose ratings are asked for in one example


def _named(task: str, each: Example) -> Example:
    """A list's key does not say for which task it was made; an example's does."""
    return dataclasses.replace(each, prompt=dataclasses.replace(each.prompt, key=f"{task}-{each.prompt.key}"))


def mix(
    kinds: Mapping[str, Sequence[Example]], shares: Mapping[str, float], tokens: int, rng: np.random.Generator
) -> list[Example]:
    """About `tokens` tokens of examples, divided among the kinds as `shares` says while each lasts; repeated prompts
    are dropped, and a kind without a share is left out."""
    queues = {
        kind: [examples[i] for i in rng.permutation(len(examples))]
        for kind, examples in kinds.items()
        if shares.get(kind)
    }
    spent = dict.fromkeys(queues, 0)
    chosen: list[Example] = []
    asked: set[tuple] = set()
    while sum(spent.values()) < tokens and any(queues.values()):
        kind = min((kind for kind in queues if queues[kind]), key=lambda kind: spent[kind] / shares[kind])
        example = queues[kind].pop()
        content = (example.prompt.prefix, tuple(branch.tokens for branch in example.prompt.branches))
        if content in asked:
            continue
        asked.add(content)
        spent[kind] += len(example.prompt)
        chosen.append(example)
    return chosen


def same_with_hints(rows: Sequence[Sequence[Example]], hinted: Mapping[str, Sequence[Example]]) -> list[list[Example]]:
    """The rows of LLM' with the same examples in the same places, each as it is among the hinted ones: what LLM'' is
    tuned on, in as many steps."""
    by_key = {example.prompt.key: example for examples in hinted.values() for example in examples}
    return [[by_key[example.prompt.key] for example in row] for row in rows]
