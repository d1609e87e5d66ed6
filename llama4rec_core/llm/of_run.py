"""The LLM that a run asks: a local one with or without a checkpoint of its own, or one behind an address."""

from __future__ import annotations

from transformers import AutoTokenizer

from llama4rec_core.llm import model
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.served import Served
from llama4rec_core.run import Run


def llm_of(run: Run, which: str = "untuned", seed: int = 0) -> LLM:
    """which: "untuned", "without_hints" (LLM') or "with_hints" (LLM''). Where the preset does not tune, all of these
    are the untuned LLM, which is told hints or not."""
    preset = run.preset
    if preset.served:
        tokenizer = AutoTokenizer.from_pretrained(model.source(preset.llm), trust_remote_code=False)
        server = Served(preset.served, preset.prices, run.path("llm/dollars.txt"))
        how = f"served {preset.served.model} {preset.served.api}"
        return LLM(preset.served.model, None, tokenizer, how, served=server)
    tuned = which != "untuned" and preset.tuning.method != "none"
    return model.load(preset.llm, run.path(f"llm/{which}-s{seed}") if tuned else None)


def is_tuned(run: Run, which: str) -> bool:
    """Whether that LLM has learnt the titles, so that it is told them by the tokens that tell them apart."""
    return which != "untuned" and run.preset.tuning.method != "none"
