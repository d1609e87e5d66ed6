"""The LLM behind two verbs: `score` what could come next, `generate` what comes next.

Prompts that share a beginning are read as a tree. A prompt is one prefix (the user's history, say) and
several branches (one per candidate) that continue it and cannot see each other:

            ┌── prefix ──┬── branch 1
    root ───┤            └── branch 2          one row of tokens, one forward pass
            └── prefix ──┬── branch 1
                         └── branch 2

Several prompts are packed into one row, so nothing is padded; what all of them begin with (the instruction) is the
row's root. Every token from which another is predicted is read once, a branch's positions restart where the prefix
ends, and a mask lets a token see the root, its own prefix and its own branch up to itself. A branch's score is
therefore what it would be alone, in any order and in any company.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llama4rec_core.llm.weights import LLM

PLACES = 96  # whose logits are computed together


@dataclass(frozen=True)
class Branch:
    """A continuation of a prompt's prefix.

    Scored either as a likelihood (`answer` = how many of the last tokens are the answer: a title, say) or as a
    choice (`choices` = token ids that could come next: the digits of a rating, say). In tuning the answer's
    tokens are the labels.
    """

    tokens: tuple[int, ...]
    answer: int = 0
    choices: tuple[int, ...] = ()

    def cut(self, length: int) -> Branch:
        """Of an answer only its first `length` tokens; what stands before the answer stays."""
        before = len(self.tokens) - self.answer
        return Branch(self.tokens[: before + length], min(length, self.answer))

    @property
    def read(self) -> tuple[int, ...]:
        """The tokens the LLM has to read: all, but an answer's last, which is only ever predicted."""
        return self.tokens[:-1] if self.answer else self.tokens


@dataclass(frozen=True)
class Prompt:
    """One prefix and the branches that continue it; `key` names the request in every file it leads to."""

    key: str
    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]
    learn: tuple[int, ...] = ()  # places in the prefix whose tokens tuning learns (the ratings in a history)

    def __len__(self) -> int:
        """Tokens to be read by a prompt alone."""
        return len(self.prefix) + sum(len(branch.read) for branch in self.branches)


def shared(prompts: Sequence[Prompt]) -> int:
    """How many tokens all prompts of a row begin with, of which each keeps at least one of its own; none of one."""
    if len(prompts) < 2:
        return 0
    prefixes = [prompt.prefix for prompt in prompts]
    return max(0, min(len(os.path.commonprefix(prefixes)), min(map(len, prefixes)) - 1))


def tokens_read(prompts: Sequence[Prompt]) -> list[int]:
    """How many tokens each prompt of a row adds to it: the root is counted with the first."""
    root = shared(prompts)
    return [len(prompt) - (root if p else 0) for p, prompt in enumerate(prompts)]


@dataclass(frozen=True)
class Row:
    """Several prompts packed into one row of T tokens, without padding: the root, then each prompt's own."""

    tokens: torch.Tensor  # [T]
    positions: torch.Tensor  # [T], restarting after the root at each prompt, and after its prefix at each branch
    mask: torch.Tensor  # [T, T] bool, True where the row's token may look at the column's
    root: int  # the tokens all prompts begin with, read once
    starts: list[tuple[int, list[int]]]  # per prompt: where its own prefix and each of its branches begin

    @property
    def trees(self) -> list[tuple[int, int, int]]:
        """Per prompt: where its own prefix begins, where that ends and its branches begin, where they end."""
        begins = [begin for begin, _ in self.starts]
        ends = [*begins[1:], len(self.tokens)]
        return [
            (begin, branches[0] if branches else end, end)
            for (begin, branches), end in zip(self.starts, ends, strict=True)
        ]

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> Row:
        root, starts = shared(prompts), []
        tokens, positions = list(prompts[0].prefix[:root]), list(range(root))
        owner, twig = [-1] * root, [0] * root
        for p, prompt in enumerate(prompts):
            begin, branch_begins = len(tokens), []
            for b, part in enumerate([prompt.prefix[root:], *(branch.read for branch in prompt.branches)]):
                if b:
                    branch_begins.append(len(tokens))
                first = len(prompt.prefix) if b else root
                tokens.extend(part)
                positions.extend(range(first, first + len(part)))
                owner.extend([p] * len(part))
                twig.extend([b] * len(part))
            starts.append((begin, branch_begins))
        owner, twig = torch.tensor(owner), torch.tensor(twig)
        same_prompt = (owner[:, None] == owner[None, :]) | (owner[None, :] == -1)
        visible = (twig[None, :] == 0) | (twig[:, None] == twig[None, :])
        mask = torch.tril(same_prompt & visible)
        return cls(torch.tensor(tokens), torch.tensor(positions), mask, root, starts)

    def place(self, p: int, at: int) -> int:
        """Where token `at` of prompt p's prefix stands."""
        return at if at < self.root else self.starts[p][0] + at - self.root

    def before_branch(self, prompts: Sequence[Prompt], p: int, b: int) -> list[int]:
        """The places whose next-token predictions are the tokens of branch b of prompt p: the prefix's last, then its
        own."""
        begin = self.starts[p][1][b]
        length = len(prompts[p].branches[b].read)
        return [self.place(p, len(prompts[p].prefix) - 1), *range(begin, begin + length)]


def rows(prompts: Sequence[Prompt], row_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts, row by row: like lengths together, as many as fit in `row_tokens` (at least one).

    The rows depend on the prompts alone, so a run that is stopped and started again forms the same ones.
    """
    row, length = [], 0
    for index in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i].key)):
        if row and length + len(prompts[index]) > row_tokens:
            yield row
            row, length = [], 0
        row.append(index)
        length += len(prompts[index])
    if row:
        yield row


def hidden_states(model, row: Row) -> torch.Tensor:
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
    row = Row.of(prompts)
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


@torch.inference_mode()
def generate(
    llm: LLM, prefix: Sequence[int], tails: Sequence[Sequence[int]], max_tokens: int, lines: int = 1
) -> list[str]:
    """What the LLM writes, greedily, after each of B prompts `prefix + tail`: `lines` lines, or `max_tokens` tokens.

    The prefix is read once and its keys and values are shared; tails of different lengths are padded on the left.
    """
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
