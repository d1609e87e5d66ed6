"""What the LLM's work cost: tokens, seconds, the share of what the machine can do, and a price.

Only needed work counts: 2 operations for each parameter of the body and token read, and 2 D V for each place at which
the vocabulary's logits are computed.
"""

import time

import pandas as pd
import torch

from llama4rec_core.backbones import task_of
from llama4rec_core.llm.model import LLM, device, number_format
from llama4rec_core.presets import Preset
from llama4rec_core.tasks import TASKS
from llama4rec_core.variants import LLMS, rows_of

COUNTS = ["prompts_sent", "tokens_read", "tokens_written", "logits", "seconds"]
LEARNING = 3  # a token that is learnt from costs as much as three that are read: the gradients take twice the reading


def size(llm: LLM) -> dict[str, int]:
    """`body`: parameters a token passes through (all but the embedding table); `head`: D V of the vocabulary's head."""
    head = llm.model.get_output_embeddings().weight.numel()
    table = llm.model.get_input_embeddings().weight.numel()
    body = sum(parameter.numel() for parameter in llm.model.base_model.parameters()) - table
    return {"body": body, "head": head}


def machine_rate(width: int = 1024, seconds: float = 1.0) -> float:
    """Operations a second that this machine sustains in a matrix product of its `number_format`, measured now: all
    products of `seconds`, not the fastest one, which a shared machine reaches for moments only."""
    a, b = (torch.randn(width, width, device=device(), dtype=number_format()) for _ in range(2))
    (a @ b)[0, 0].item()
    products, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        (a @ b)[0, 0].item()
        products += 1
    return 2 * width**3 * products / spent


def table(
    costs: dict[str, dict], sizes: dict[str, int], rate: float, price_read: float, price_written: float
) -> pd.DataFrame:
    """One row for each file of answers, and one for all that a machine answered: seconds of two do not add up.

    costs: what `batches.cost` reads; rate: `machine_rate`; prices: dollars for a million tokens read or written. Files
    made of the same answers are one: the first. Columns: what, machine, prompts, tokens_read, tokens_written, seconds,
    tokens_per_second, share_of_machine, dollars.
    """
    frame = pd.DataFrame(costs).T.rename_axis("what").reset_index()
    frame = frame[frame["asked"].isna() | ~frame["asked"].duplicated()]
    sums = frame.groupby("machine", sort=False)[COUNTS].sum().reset_index().assign(what="all")
    frame = pd.concat([frame, sums], ignore_index=True)
    work = 2 * sizes["body"] * (frame["tokens_read"] + frame["tokens_written"]) + 2 * sizes["head"] * frame["logits"]
    tokens, seconds = frame["tokens_read"] + frame["tokens_written"], frame["seconds"].where(frame["seconds"] > 0)
    return pd.DataFrame(
        {
            "what": frame["what"],
            "machine": frame["machine"],
            "prompts": frame["prompts_sent"].astype(int),
            "tokens_read": frame["tokens_read"].astype(int),
            "tokens_written": frame["tokens_written"].astype(int),
            "seconds": frame["seconds"],
            "tokens_per_second": tokens / seconds,
            "share_of_machine": work / seconds / rate,
            "dollars": (frame["tokens_read"] * price_read + frame["tokens_written"] * price_written) / 1e6,
        }
    )


def of_rows(preset: Preset, spent: dict[str, dict], tuned: dict[str, int]) -> pd.DataFrame:
    """What each row needs of an LLM for one backbone, in tokens: means over a task's backbones and seeds.

    spent: as `costs` of `table`, by file; tuned: the tokens that each checkpoint ("trunk-s0", ...) was tuned on.
    Columns task, row; tuned, of the checkpoints that answer, the trunk included; made, read and written for the
    augmentation; asked, read for its lists or ratings; read, all of it: a tuned token counts `LEARNING` times.
    """
    lines = []
    for name in preset.backbones:
        task = TASKS[task_of(name)]
        for row, variant in rows_of(preset.rows_of(name), task.name).items():
            llms = {variant.opinion} & set(LLMS)
            file = {f"{name}-{variant.fit}-{llm}" for llm in llms}
            augmented = {task.made} if variant.fit == "augmented" else set()
            if augmented and task.name != "rating":  # P3 asks the LLM that is not tuned
                llms.add("without_hints")
            for seed in preset.seeds:
                made, asked = (_tokens(spent, each, seed) for each in (augmented, file))
                learnt = sum(tuned.get(f"{each}-s{seed}", 0) for each in (llms | {"trunk"} if llms else ()))
                lines.append((task.name, row, learnt, made, asked, LEARNING * learnt + made + asked))
    frame = pd.DataFrame(lines, columns=["task", "row", "tuned", "made", "asked", "read"])
    return frame.groupby(["task", "row"], sort=False).mean().round().astype(int).reset_index()


def _tokens(spent: dict[str, dict], names: set[str], seed: int) -> int:
    found = [spent.get(f"{name}-s{seed}", {}) for name in names]
    return sum(each.get(count, 0) for each in found for count in ("tokens_read", "tokens_written"))
