"""A lesson: a prompt, its questions, and the right answer to each. What `tuning` is given, and how it is set."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


RATES = {"head": (1e-2, 16), "lora": (1e-3, 1), "full": (2e-5, 1)}  # each method's own learning rate and epochs


@dataclass(frozen=True)
class TuningSettings:
    """How the LLM is tuned."""

    # "head" (rows of the vocabulary's head, the body as it is), "lora", or "full" (all parameters, as the paper does)
    method: str = "head"
    rank: int = 16  # LoRA rank r; the update is scaled by 2
    # LoRA: the share of layers (at least one), from the top, that is tuned: below them nothing is back-propagated
    layers: float = 0.25
    learning_rate: float | None = None  # None: the method's own (`RATES`)
    warmup_steps: int = 5
    epochs: int | None = None  # the same; "head" reads lessons once however many there are, the others in every epoch
    row_tokens: int = 1024  # a row holds as many prompts as fit
    rows_per_step: int = 1  # gradient accumulation
    choice_weight: float = 1.0  # of the choice loss beside cross-entropy
    temperature: float = 3.0  # T of the choice loss among texts: what their scores are divided by
    save_steps: int = 25  # a kill loses at most this many steps ("head": a row of reading, or an epoch of seconds)

    def filled(self) -> TuningSettings:
        """With the method's own learning rate and epochs where none are given; raises ValueError for an unknown
        method."""
        if self.method not in RATES:
            raise ValueError(f"tuning method {self.method!r} is unknown: the known ones are {', '.join(RATES)}")
        rate, epochs = RATES[self.method]
        return replace(
            self,
            learning_rate=rate if self.learning_rate is None else self.learning_rate,
            epochs=epochs if self.epochs is None else self.epochs,
        )
