"""The tuning loss: a packed row of examples as the model's inputs and a table of targets, and what is made of them.

An example is a prompt and, for each choice set in it, its alternatives and the right one: a list's candidates
(ranking), two items (P1), the digits of the scale (rating). Two losses, both only where they count:

    cross-entropy    -mean log p(token)            over right answers (equation 8) and the ratings a user gave
    choice           -mean T log softmax_a S(a)/T  over a set's alternatives, S(a) = log p(a | prefix) - prior(a),
                                                   or log p(yes) - log p(no) where each candidate is asked about

The second is what ranking by likelihood needs: not that the right title is likely, but that it is likelier than the
others. Titles' likelihoods lie many nats apart, for reasons of wording more than of taste, so a temperature T may
soften them; T in front keeps the gradient's size. Single tokens (digits, yes and no, letters) have T = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.autograd.function import once_differentiable

from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.tree import PackedRow, Prompt

# columns of the table of targets: where in the logits, which token, of which alternative of which choice set, is that
# the right one, does the token count for cross-entropy, what is subtracted from the alternative's score, does the
# token's log-probability count for (1) or against (-1) the alternative, and is the alternative a text, not one token
PLACE, TOKEN, ALTERNATIVE, CHOICE_SET, RIGHT, LEARN, PRIOR, SIGN, TEXT = range(9)


def collate(batch: Sequence[Sequence[Example]]) -> dict[str, torch.Tensor]:
    """One packed row of examples to the model's inputs and the table of targets [n, 9] (float64, which holds every id
    exactly)."""
    (examples,) = batch
    prompts = [example.prompt for example in examples]
    row = PackedRow.of(prompts)
    labels: list[tuple[float, ...]] = []
    alternative = choice_set = 0
    for p, example in enumerate(examples):
        prefix = example.prompt.prefix
        labels += [(row.place(p, at - 1), prefix[at], -1, -1, 0, 1, 0.0, 1, 0) for at in example.prompt.learn]
        for asked in example.choice_sets:
            text = int(not example.prompt.branches[asked.branches[0]].choices)
            for a, tokens in enumerate(_alternatives(row, prompts, p, asked)):
                right, before = int(a == asked.right), asked.prior[a] if asked.prior else 0.0
                for n, (place, token, sign) in enumerate(tokens):
                    learn = right if sign > 0 else 1 - right  # "no" is the answer to learn about the others
                    first = 0.0 if n else before
                    labels.append((place, token, alternative, choice_set, right, learn, first, sign, text))
                alternative += 1
            choice_set += 1
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


def _alternatives(
    row: PackedRow, prompts: Sequence[Prompt], p: int, asked: ChoiceSet
) -> list[list[tuple[int, int, int]]]:
    """For each alternative of a choice set its tokens: the place that predicts it, the token, its sign in S(a)."""
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


class TokenLogP(torch.autograd.Function):
    """log p of n tokens, each at a place, from the places' logits [places, V]: `log_softmax(logits)[place, token]`.

    Values and gradients are those of torch's own operations; the gradient is made in the table of log-probabilities
    itself, since a table as wide as the vocabulary is slow to fill. It can therefore be asked for once.
    """

    @staticmethod
    def forward(ctx, logits: torch.Tensor, place: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        table = torch.log_softmax(logits, dim=-1)
        ctx.save_for_backward(table, place, token)
        return table[place, token]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor):
        table, place, token = ctx.saved_tensors
        of_place = grad.new_zeros(len(table)).index_add_(0, place, grad)  # d log p / d logit = [token] - p(token)
        out = table.exp_().mul_(-of_place[:, None])
        return out.index_put_((place, token), grad, accumulate=True), None, None


def tree_loss(
    outputs,
    labels: torch.Tensor,
    num_items_in_batch=None,
    choice_weight: float = 1.0,
    temperature: float = 1.0,
    rows_per_step: int = 1,
) -> torch.Tensor:
    """Cross-entropy on the learnt tokens plus the choice loss, each a mean (a choice set with one alternative counts,
    and adds nothing); `outputs.logits` [1, places, V], `labels` [n, 9]."""
    prior, sign, labels = labels[:, PRIOR].float(), labels[:, SIGN].float(), labels.long()
    log_p = TokenLogP.apply(outputs.logits[0].float(), labels[:, PLACE], labels[:, TOKEN])  # [n]
    learnt = labels[:, LEARN].bool()
    loss = -log_p[learnt].mean()
    asked = labels[:, CHOICE_SET] >= 0
    if choice_weight and asked.any():
        table, log_p = labels[asked], (sign * log_p - prior)[asked]
        n_alternatives, n_sets = int(table[:, ALTERNATIVE].max()) + 1, int(table[:, CHOICE_SET].max()) + 1
        t = log_p.new_ones(n_sets).index_fill(0, table[table[:, TEXT] == 1, CHOICE_SET], temperature)  # T
        log_p = log_p / t[table[:, CHOICE_SET]]
        score = log_p.new_zeros(n_alternatives).index_add(0, table[:, ALTERNATIVE], log_p)  # S(a) / T
        of_set = score.new_zeros(n_alternatives, dtype=torch.long).scatter(
            0, table[:, ALTERNATIVE], table[:, CHOICE_SET]
        )
        right = score.new_zeros(n_alternatives, dtype=torch.bool)
        right[table[table[:, RIGHT] == 1, ALTERNATIVE]] = True
        # log sum exp over each set's alternatives, with the largest taken out first
        top = score.new_full((n_sets,), -torch.inf).scatter_reduce(0, of_set, score.detach(), "amax")
        total = score.new_zeros(n_sets).index_add(0, of_set, (score - top[of_set]).exp()).log() + top
        loss = loss + choice_weight * (t * (total - score[right][of_set[right].argsort()])).mean()
    return loss / rows_per_step
