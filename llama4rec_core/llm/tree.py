"""Prompts as trees, packed into rows without padding: what the LLM reads in one forward pass.

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
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import torch


@dataclass(frozen=True, eq=False, repr=False)
class Among:
    """The tokens that can stand at a place; log p there is among them. Two are the same only where they are one object,
    and it is told, in fingerprints too, by a digest of its tokens."""

    tokens: tuple[int, ...]

    @cached_property
    def digest(self) -> str:
        return sha256(repr(self.tokens).encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return self.digest


@dataclass(frozen=True)
class Branch:
    """A continuation of a prompt's prefix.

    Scored either as a likelihood (`answer` = how many of the last tokens are the answer: a title, say) or as a
    choice (`choices` = tokens that could come next: the digits of a rating, say). In tuning the answer's tokens are
    the labels. among: for each of the answer's tokens, the ones that could stand there; none: any of the vocabulary.
    """

    tokens: tuple[int, ...]
    answer: int = 0
    choices: Among | None = None
    among: tuple[Among, ...] = ()

    def cut(self, length: int) -> Branch:
        """Of an answer only its first `length` tokens; what stands before the answer stays."""
        before = len(self.tokens) - self.answer
        return Branch(self.tokens[: before + length], min(length, self.answer), among=self.among[:length])

    def after(self, tokens: tuple[int, ...]) -> Branch:
        """The same answer after more tokens of the branch's own."""
        return replace(self, tokens=tokens + self.tokens)

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
    learn: tuple[tuple[int, Among | None], ...] = ()  # places in the prefix whose tokens tuning learns, and among which

    def __len__(self) -> int:
        """Tokens to be read by a prompt alone."""
        return len(self.prefix) + sum(len(branch.read) for branch in self.branches)


def allowed(sets: Sequence[Among | None], n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that stand in any of S sets, int64 [V'], sorted, and which of them each set holds, bool [S, V'].

    None is the whole vocabulary of `n_tokens` tokens; with it among the sets, V' is that.
    """
    number = torch.tensor([s for s, each in enumerate(sets) for _ in (each.tokens if each else ())], dtype=torch.long)
    tokens = torch.tensor([token for each in sets for token in (each.tokens if each else ())], dtype=torch.long)
    whole = [s for s, each in enumerate(sets) if each is None]
    vocabulary, at = torch.unique(tokens, return_inverse=True)
    if whole:
        vocabulary, at = torch.arange(n_tokens), tokens
    held = torch.zeros(len(sets), len(vocabulary), dtype=torch.bool)
    held[number, at] = True
    held[whole] = True
    return vocabulary, held


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
class PackedRow:
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
    def of(cls, prompts: Sequence[Prompt]) -> PackedRow:
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


def packed_rows(prompts: Sequence[Prompt], row_tokens: int) -> Iterator[list[int]]:
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
