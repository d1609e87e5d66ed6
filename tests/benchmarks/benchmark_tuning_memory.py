"""What gradient checkpointing saves in memory and costs in time: a few steps of the trunk, each way in its own process.

python tests/benchmarks/benchmark_tuning_memory.py [LAYERS ...]       by default 10 and 30
"""

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

STEPS = 4


def measured(layers: int, again: bool) -> str:
    import torch

    from llama4rec_core import presets
    from llama4rec_core.data import as_set
    from llama4rec_core.data.prepared import prepare
    from llama4rec_core.llm import examples, finetune, model
    from llama4rec_core.rankers import Ranker
    from llama4rec_core.run import rng

    preset = presets.load("quick")
    settings = replace(preset.tuning, layers=layers, gradient_checkpointing=again)
    ready = prepare(as_set(preset.data), preset)
    llm = model.load(preset.llm, dtype=torch.float32, layers=layers)
    titles = Ranker.of(preset, llm, ready.histories, tuned=True).titles
    few = replace(preset.instructions.trunk, tokens=STEPS * settings.row_tokens)
    pieces = examples.trunk(llm, ready.histories, titles, few, rng("trunk", 0))
    rows = finetune.pack(pieces, settings.row_tokens, 0)[:STEPS]
    before, started = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        finetune.tune(llm, rows, settings, 1e-9, Path(folder) / "tuned", 0)
    seconds = (time.perf_counter() - started) / len(rows)
    return f"{layers} layers, computed again: {again}: {seconds:.1f} s a step, {peak()} MB at most ({before} before)"


def peak() -> int:
    """Megabytes that this process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(measured(int(sys.argv[2]), sys.argv[3] == "True"))
    else:
        for layers in sys.argv[1:] or ("10", "30"):
            for again in ("False", "True"):
                subprocess.run([sys.executable, __file__, "--one", layers, again], check=True)
