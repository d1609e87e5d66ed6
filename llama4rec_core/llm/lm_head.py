"""The quickest tuning: the LLM's body stays as it is, and of its last matrix the rows of asked-for tokens are learnt.

    logits = H W^T        H [P, D]: the last hidden states at P places; W [V, D]: the LM head

Since the body is frozen, H is the same in every epoch: an example is read once, forward only, and what is kept of it is
small. The rows of W that examples ask for (titles, digits: some 1,600 of 49,152) are then fitted in many epochs, which
take seconds. All other tokens enter the softmax by one number a place, their log sum exp, so the losses are the exact
ones over the whole vocabulary (`loss.tree_loss`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from llama4rec_core.files import read_tensors, write_tensors
from llama4rec_core.llm.examples import Example
from llama4rec_core.llm.loss import TOKEN, collate
from llama4rec_core.llm.model import LLM, LM_HEAD_FILE
from llama4rec_core.llm.score import PLACES
from llama4rec_core.progress import Progress


@torch.no_grad()
def read(llm: LLM, examples: Sequence[Example], tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """One packed row of examples as the LM head sees it.

    tokens [n], sorted: those whose rows are learnt. Returns hidden [P, D], rest [P] (log sum exp of all other tokens'
    logits) and the row's targets (`labels`), their tokens as indices into `tokens`.
    """
    where, head = llm.model.device, llm.model.get_output_embeddings().weight.float()
    batch = collate([examples])
    given = {name: each.to(where) if isinstance(each, torch.Tensor) else each for name, each in batch.items()}
    labels, places = given.pop("labels"), given.pop("logits_to_keep")
    hidden = llm.model.base_model(**given, use_cache=False).last_hidden_state[0, places]  # [P, D]
    rest = []
    for some in hidden.split(PLACES):
        logits = some.float() @ head.T
        logits[:, tokens] = -torch.inf
        rest.append(torch.logsumexp(logits, dim=-1))
    labels[:, TOKEN] = torch.searchsorted(tokens.to(where), labels[:, TOKEN].long()).double()
    return {"hidden": hidden.float().cpu(), "rest": torch.cat(rest).cpu(), "labels": labels.cpu()}


@dataclass(frozen=True)
class Rows:
    """What `read` gave for each packed row, in files: memory does not grow with the examples."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return read_tensors(self.paths[number])


def read_all(llm: LLM, rows: Sequence[Sequence[Example]], tokens: torch.Tensor, folder: Path) -> Rows:
    """Every packed row read, each into a file of its own: stopped and called again, it goes on with the next. `folder`
    is of these rows and this LLM alone."""
    progress, paths = Progress("reading examples", len(rows), unit="rows"), []
    for number, examples in enumerate(rows):
        path = folder / f"row-{number:05d}.safetensors"
        if not path.exists():
            write_tensors(path, read(llm, examples, tokens))
        paths.append(path)
        progress.to(number + 1)
    return Rows(tuple(paths))


class LMHead(nn.Module):
    """n rows of the LM head, and how they change.

    Hidden states are badly scaled: a large mean m, and coordinates of very different spread s. We rescale them so that
    one learning rate fits. The change is written as  dW h = V ((h - m c) / s) / sqrt(D) + b c  with  c = m h / m m
    (about 1): linear in h, as it has to be, and each of V [n, D] and b [n] of one size.
    """

    def __init__(self, rows: torch.Tensor, read: Rows | Sequence[dict[str, torch.Tensor]]):
        """rows [n, D]: as they are before; read: what `read_all` gave, for m and s."""
        super().__init__()

        def hidden():  # [P, D] of each row in turn
            return (read[number]["hidden"].double() for number in range(len(read)))

        count = sum(len(h) for h in hidden())
        mean = sum(h.sum(dim=0) for h in hidden()) / count
        unit = mean / mean.square().sum()  # c = unit . h
        square = sum((h - torch.outer(h @ unit, mean)).square().sum(dim=0) for h in hidden()) / count  # of mean 0
        spread, mean, unit = square.sqrt().clamp(min=1e-4).float(), mean.float(), unit.float()
        for name, each in (("rows", rows.float().cpu()), ("mean", mean), ("unit", unit), ("spread", spread)):
            self.register_buffer(name, each)
        self.v, self.b = nn.Parameter(torch.zeros_like(self.rows)), nn.Parameter(torch.zeros(len(rows)))

    def weight(self) -> torch.Tensor:
        """What the rows have become, [n, D]."""
        v = self.v / (self.spread * self.v.shape[1] ** 0.5)
        return self.rows + v + torch.outer(self.b - v @ self.mean, self.unit)

    def forward(self, hidden: torch.Tensor, rest: torch.Tensor) -> CausalLMOutput:
        """Logits [1, P, n + 1] of the learnt tokens and, last, of all others together."""
        return CausalLMOutput(logits=torch.cat([hidden @ self.weight().T, rest[:, None]], dim=1)[None])

    def save(self, folder: Path, tokens: torch.Tensor) -> None:
        """What `model.load` puts in place of the head's rows."""
        write_tensors(folder / LM_HEAD_FILE, {"tokens": tokens, "rows": self.weight()})
