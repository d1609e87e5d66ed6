"""The LLM's first verb: how likely is each branch of some prompts? One forward pass for a packed row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import PackedRow, Prompt

PLACES = 96  # whose logits are computed together


def hidden_states(model, row: PackedRow) -> torch.Tensor:
    """Last hidden states [T, D] of a packed row, by the model without its vocabulary head."""
    body = model.base_model
    return body(
        input_ids=row.tokens[None].to(model.device),
        position_ids=row.positions[None].to(model.device),
        attention_mask=row.mask[None, None].to(model.device),  # [1, 1, T, T]: used as it is
        trees=row.trees,
        root=row.root,
        use_cache=False,
    ).last_hidden_state[0]


@torch.inference_mode()
def score_row(llm: LLM, prompts: Sequence[Prompt]) -> list[list[np.ndarray]]:
    """One forward pass; for each prompt and branch, `[log p(answer)]` or the log-probabilities of `choices` among
    themselves."""
    row = PackedRow.of(prompts)
    hidden = hidden_states(llm.model, row)  # [T, D]
    head = llm.model.get_output_embeddings().weight  # [V, D]
    likelihoods, choices = [], []  # (prompt, branch, places, tokens)
    for p, prompt in enumerate(prompts):
        for b, branch in enumerate(prompt.branches):
            if branch.choices:
                choices.append((p, b, row.before_branch(prompts, p, b)[-1], branch.choices))
            else:
                places = row.before_branch(prompts, p, b)[len(branch.tokens) - branch.answer :]
                likelihoods.append((p, b, places, branch.tokens[len(branch.tokens) - branch.answer :]))
    out: list[list[np.ndarray]] = [[np.empty(0)] * len(prompt.branches) for prompt in prompts]
    if likelihoods:
        places = torch.tensor([place for *_, at, _ in likelihoods for place in at], device=hidden.device)
        tokens = torch.tensor([token for *_, answer in likelihoods for token in answer], device=hidden.device)
        chosen = _token_log_p(hidden, head, places, tokens)
        sizes = [len(at) for *_, at, _ in likelihoods]
        for (p, b, *_), part in zip(likelihoods, torch.split(chosen, sizes), strict=True):
            out[p][b] = part.sum(0, keepdim=True).cpu().numpy()
    for p, b, last, ids in choices:
        out[p][b] = torch.log_softmax((hidden[last] @ head[list(ids)].T).float(), dim=-1).cpu().numpy()
    return out


def _token_log_p(hidden: torch.Tensor, head: torch.Tensor, places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log p of n tokens, each predicted at a place of `hidden` [T, D]. A place is looked at once, however many branches
    begin there, and its table of logits, as wide as the vocabulary, is worked on in place and a few places at a time:
    larger ones are slow to get from the system, again for every row."""
    unique, inverse = torch.unique(places, return_inverse=True)
    out = hidden.new_empty(len(places), dtype=torch.float32)
    for begin in range(0, len(unique), PLACES):
        logits = (hidden[unique[begin : begin + PLACES]] @ head.T).float()  # [places, V]
        here = (inverse >= begin) & (inverse < begin + PLACES)
        at = inverse[here] - begin
        found, top = logits[at, tokens[here]], logits.amax(dim=-1, keepdim=True)
        total = logits.sub_(top).exp_().sum(dim=-1).log() + top[:, 0]  # log sum exp
        out[here] = found - total[at]
    return out
