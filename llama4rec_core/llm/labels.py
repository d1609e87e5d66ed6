"""A packed row of lessons as the model's inputs and a table of labels, one line for each token that a loss looks at."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llama4rec_core.llm.engine import Prompt, Row
from llama4rec_core.llm.lessons import Example, Question

# columns of the label table: where in the logits, which token, of which alternative to which question, is that the
# right one, does the token count for cross-entropy, what is subtracted from the alternative's score, does the token's
# log-probability count for (1) or against (-1) the alternative, and is the alternative a text, not one token
PLACE, TOKEN, ALTERNATIVE, QUESTION, RIGHT, LEARN, PRIOR, SIGN, TEXT = range(9)


def collate(batch: Sequence[Sequence[Example]]) -> dict[str, torch.Tensor]:
    """One packed row of examples to the model's inputs and the label table [n, 9] (float64, which holds every id
    exactly)."""
    (examples,) = batch
    prompts = [example.prompt for example in examples]
    row = Row.of(prompts)
    labels: list[tuple[float, ...]] = []
    alternative = question = 0
    for p, example in enumerate(examples):
        prefix = example.prompt.prefix
        labels += [(row.place(p, at - 1), prefix[at], -1, -1, 0, 1, 0.0, 1, 0) for at in example.prompt.learn]
        for asked in example.questions:
            text = int(not example.prompt.branches[asked.branches[0]].choices)
            for a, tokens in enumerate(_alternatives(row, prompts, p, asked)):
                right, before = int(a == asked.right), asked.prior[a] if asked.prior else 0.0
                for n, (place, token, sign) in enumerate(tokens):
                    learn = right if sign > 0 else 1 - right  # "no" is the answer to learn about the others
                    labels.append((place, token, alternative, question, right, learn, 0.0 if n else before, sign, text))
                alternative += 1
            question += 1
    table = torch.tensor(labels, dtype=torch.float64)
    places, inverse = torch.unique(table[:, PLACE].long(), return_inverse=True)
    table[:, PLACE] = inverse.double()
    return {
        "input_ids": row.tokens[None],
        "position_ids": row.positions[None],
        "attention_mask": row.mask[None, None],
        "trees": row.trees,
        "root": row.root,
        "logits_to_keep": places,
        "labels": table,
    }


def _alternatives(row: Row, prompts: Sequence[Prompt], p: int, asked: Question) -> list[list[tuple[int, int, int]]]:
    """For each alternative of a question its tokens: the place that predicts it, the token, its sign in S(a)."""
    branches = prompts[p].branches

    def last(b: int) -> int:
        return row.before_branch(prompts, p, b)[-1]

    first = branches[asked.branches[0]]
    if first.choices and len(asked.branches) == 1:  # one branch, whose choices are the alternatives
        return [[(last(asked.branches[0]), token, 1)] for token in first.choices]
    if first.choices:  # each branch asks yes or no about an alternative
        return [[(last(b), branches[b].choices[0], 1), (last(b), branches[b].choices[1], -1)] for b in asked.branches]
    out = []
    for b in asked.branches:
        skip = len(branches[b].tokens) - branches[b].answer
        places = row.before_branch(prompts, p, b)[skip:]
        out.append([(place, token, 1) for place, token in zip(places, branches[b].tokens[skip:], strict=True)])
    return out
