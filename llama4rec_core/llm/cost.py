"""What the LLM's work cost: tokens, seconds, the share of what the machine can do, and a price.

Only needed work counts: 2 operations for each parameter of the body and token read, and 2 D V for each place at which
the vocabulary's logits are computed.
"""

import time

import pandas as pd
import torch

from llama4rec_core.llm.model import LLM, device, number_format

COUNTS = ["prompts_sent", "tokens_read", "tokens_written", "logits", "seconds"]


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
