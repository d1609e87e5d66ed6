"""The LLM that a run asks: a local one with or without a checkpoint of its own, or one behind an address."""

from llama4rec_core.data.histories import Histories
from llama4rec_core.files import read_frame
from llama4rec_core.llm import model
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.served import Served
from llama4rec_core.presets import Preset, needs_prior
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run

PRIOR = "llm/prior.parquet"


def is_tuned(preset: Preset, which: str) -> bool:
    """Whether that LLM has learnt the titles. Where a preset does not tune, LLM' and LLM'' are the untuned LLM, which
    is told hints or not."""
    return which != "untuned" and preset.tuning.method != "none"


def llm_of(run: Run, which: str = "untuned", seed: int = 0) -> LLM:
    """which: "untuned", "without_hints" (LLM') or "with_hints" (LLM'')."""
    preset = run.preset
    if preset.served:
        server = Served(preset.served, preset.prices, run.path("llm/dollars.txt"))
        how = f"served {preset.served.model} {preset.served.api}"
        return LLM(preset.served.model, None, model.load_tokenizer(preset.llm), how, served=server)
    return model.load(preset.llm, run.path(f"llm/{which}-s{seed}") if is_tuned(preset, which) else None)


def needs_of(preset: Preset, which: str, seed: int, way: str = "") -> list[str]:
    """The files of a run that `ranker_of` reads."""
    if is_tuned(preset, which):
        return [f"llm/{which}-s{seed}/tuning.json"]
    return [PRIOR] if needs_prior(preset, way) else []


def ranker_of(run: Run, histories: Histories, which: str = "untuned", seed: int = 0, way: str = "") -> Ranker:
    """That LLM, set to rank as the preset says, or in another `way`."""
    tuned = is_tuned(run.preset, which)
    log_p = read_frame(run.path(PRIOR))["log_p"].to_numpy() if PRIOR in needs_of(run.preset, which, seed, way) else None
    return Ranker.of(run.preset, llm_of(run, which, seed), histories, tuned, log_p, way)
