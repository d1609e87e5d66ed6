"""A lesson: a prompt, its questions, and the right answer to each. What `tuning` is given, and how it is set."""

from __future__ import annotations

from dataclasses import dataclass

from llama4rec_core.llm.engine import Prompt


@dataclass(frozen=True)
class Question:
    """Alternatives and the index of the right one: among a prompt's branches by their answers, among branches that each
    have two choices (yes, no), or among one branch's choices.

    prior: what is subtracted from each alternative's log-likelihood before they are compared, as it is in ranking.
    """

    branches: tuple[int, ...]
    right: int
    prior: tuple[float, ...] = ()


@dataclass(frozen=True)
class Example:
    prompt: Prompt
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class TuningSettings:
    """How the LLM is tuned."""

    # "head" (rows of the vocabulary's head, the body as it is), "lora", or "full" (all parameters, as the paper does)
    method: str = "head"
    rank: int = 16  # LoRA rank r; the update is scaled by 2
    # LoRA: the share of layers (at least one), from the top, that is tuned: below them nothing is back-propagated
    layers: float = 0.25
    learning_rate: float = 1e-2  # of "head"; "lora" wants about a tenth of it, "full" less
    warmup_steps: int = 5
    epochs: int = 16  # "head" reads lessons once however many there are; "lora" and "full" in every epoch
    row_tokens: int = 1024  # a row holds as many prompts as fit
    rows_per_step: int = 1  # gradient accumulation
    choice_weight: float = 1.0  # of the choice loss beside cross-entropy
    temperature: float = 3.0  # T of the choice loss among texts: what their scores are divided by
    save_steps: int = 25  # a kill loses at most this many steps ("head": a row of reading, or an epoch of seconds)
