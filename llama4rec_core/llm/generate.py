"""The LLM's second verb: write what comes next, greedily, for a batch of prompts that share a beginning."""

from collections.abc import Sequence

import torch

from llama4rec_core.llm import served
from llama4rec_core.llm.model import LLM


@torch.inference_mode()
def generate(
    llm: LLM, prefix: Sequence[int], tails: Sequence[Sequence[int]], max_tokens: int, lines: int = 1
) -> list[str]:
    """What the LLM writes, greedily, after each of B prompts `prefix + tail`: `lines` lines, or `max_tokens` tokens.

    The prefix is read once and its keys and values are shared; tails of different lengths are padded on the left.
    """
    if llm.served:
        return served.generate(llm, prefix, tails, max_tokens, lines)
    device, model = llm.model.device, llm.model
    cache = None
    if prefix:
        cache = model(torch.tensor([list(prefix)], device=device), use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(tails))
    width = max(map(len, tails))
    pads = torch.tensor([width - len(tail) for tail in tails], device=device)  # [B]
    tokens = torch.tensor([[0] * (width - len(tail)) + list(tail) for tail in tails], device=device)  # [B, L]
    mask = torch.ones(len(tails), len(prefix) + width, dtype=torch.long, device=device)
    mask[:, len(prefix) :] = (torch.arange(width, device=device) >= pads[:, None]).long()
    positions = (len(prefix) + torch.arange(width, device=device) - pads[:, None]).clamp(min=0)
    written: list[list[int]] = [[] for _ in tails]
    ended = [False] * len(tails)
    for _ in range(max_tokens):
        out = model(
            tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        cache = out.past_key_values
        tokens = out.logits[:, -1].argmax(-1, keepdim=True)  # [B, 1]
        for b, token in enumerate(tokens[:, 0].tolist()):
            if not ended[b]:
                written[b].append(token)
                ended[b] = token == llm.tokenizer.eos_token_id or llm.decode(written[b]).count("\n") >= lines
        if all(ended):
            break
        mask = torch.cat([mask, mask.new_ones(len(tails), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return ["\n".join(llm.decode(tokens).split("\n")[:lines]) for tokens in written]
