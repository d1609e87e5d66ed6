"""The LLM's first verb: how likely is each branch of some prompts? One forward pass for a packed row."""

from collections.abc import Sequence

import numpy as np
import torch

from llama4rec_core.llm import served
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.tree import Among, PackedRow, Prompt, allowed

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
    if llm.served:
        return served.score_row(llm, prompts)
    row = PackedRow.of(prompts)
    hidden = hidden_states(llm.model, row).float()  # [T, D]
    asked: list[tuple[int, int, Among | None]] = []  # (place, token, among)
    answers = []  # (prompt, branch, how many of them, are they one answer)
    for p, prompt in enumerate(prompts):
        for b, branch in enumerate(prompt.branches):
            places = row.before_branch(prompts, p, b)
            if branch.choices:
                tokens = branch.choices.tokens
                places, among = places[-1:] * len(tokens), [branch.choices] * len(tokens)
            else:
                skip = len(branch.tokens) - branch.answer
                places, tokens = places[skip:], branch.tokens[skip:]
                among = branch.among or [None] * len(tokens)
            asked += zip(places, tokens, among, strict=True)
            answers.append((p, b, len(tokens), branch.choices is None))
    out: list[list[np.ndarray]] = [[np.empty(0)] * len(prompt.branches) for prompt in prompts]
    log_p = token_log_p(hidden, llm.head, asked).cpu()
    for (p, b, _, whole), part in zip(answers, torch.split(log_p, [n for *_, n, _ in answers]), strict=True):
        out[p][b] = (part.sum(0, keepdim=True) if whole else part).numpy()
    return out


def token_log_p(hidden: torch.Tensor, head: torch.Tensor, asked: Sequence[tuple[int, int, Among | None]]):
    """log p of n tokens, each asked as (place of `hidden` [T, D] that predicts it, token, the set it is among).

    A place and set are looked at once, however many tokens are asked of them. Where the set is the whole vocabulary,
    the table of logits is worked on in place and a few places at a time: larger ones are slow to get from the system,
    again for every row.
    """
    out = hidden.new_empty(len(asked), dtype=torch.float32)
    number = {None: 0}
    sets = torch.tensor([number.setdefault(among, len(number)) for *_, among in asked], dtype=torch.long)
    places, tokens = (torch.tensor([each[n] for each in asked], dtype=torch.long) for n in (0, 1))
    vocabulary, held = allowed(list(number)[1:], len(head))
    some = sets > 0
    if some.any():
        pairs, inverse = torch.unique(torch.stack([places[some], sets[some] - 1]), dim=1, return_inverse=True)
        logits = hidden[pairs[0]] @ head[vocabulary].T  # [pairs, V']
        table = logits.masked_fill(~held[pairs[1]].to(logits.device), -torch.inf).log_softmax(dim=-1)
        out[some] = table[inverse, torch.searchsorted(vocabulary, tokens[some])]
    if not some.all():
        at, wanted = places[~some], tokens[~some]
        unique, inverse = torch.unique(at, return_inverse=True)
        found = hidden.new_empty(len(at), dtype=torch.float32)
        for begin in range(0, len(unique), PLACES):
            logits = hidden[unique[begin : begin + PLACES]] @ head.T  # [places, V]
            here = (inverse >= begin) & (inverse < begin + PLACES)
            index = inverse[here] - begin
            chosen, top = logits[index, wanted[here]], logits.amax(dim=-1, keepdim=True)
            total = logits.sub_(top).exp_().sum(dim=-1).log() + top[:, 0]  # log sum exp
            found[here] = chosen - total[index]
        out[~some] = found
    return out
