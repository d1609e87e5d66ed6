"""The tuning loss: a packed row of examples as the model's inputs and a table of targets, and what is made of them.

An example is a prompt and, for each choice set in it, its alternatives and the right one: a list's candidates
(ranking), two items (P1), the digits of the scale (rating). Two losses, both only where they count:

    cross-entropy    -mean log p(token | its set)    over right answers and what a history teaches (equation 8)
    choice           -mean T log softmax_a S(a)/T    over a set's alternatives, S(a) = log p(a | prefix),
                                                     or log p(yes) - log p(no) where each candidate is asked about

A token's set is what could stand there (`tree.Among`): of a title the trie's children, of a rating the scale's. The
second loss is what ranking by likelihood needs: not that the right title is likely, but that it is likelier than the
others. A temperature T may soften it; T in front keeps the gradient's size. Yes and no have T = 1.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import CausalLMOutput

from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.tree import Among, PackedRow, Prompt, allowed

# columns of the table of targets: which row of the logits, which token, of which alternative of which choice set, is
# that the right one, does the token count for cross-entropy, does its log-probability count for (1) or against (-1) the
# alternative, and is the alternative a text, not one token
PLACE, TOKEN, ALTERNATIVE, CHOICE_SET, RIGHT, LEARN, SIGN, TEXT = range(8)


class Answering(nn.Module):
    """The LLM as tuning sees it: logits only where a target is, and only of tokens that could stand there.

    Of the vocabulary's matrices only the rows of `tokens`, int64 [n], sorted, are learnt, those that the examples hold:
    a gradient of all rows would take longer to fill than to make.
    """

    def __init__(self, model: nn.Module, tokens: torch.Tensor, dtype: torch.dtype):
        """model: a causal LM with float32 weights; dtype: what its layers compute in."""
        super().__init__()
        self.body, self.dtype = model.base_model, dtype
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        self.register_buffer("tokens", tokens.to(table.weight.device), persistent=False)
        self.matrices = {"rows": table}  # in a dict, so that the body's own are not saved twice
        if head.weight is not table.weight:  # not one matrix
            self.matrices["head_rows"] = head
        for name, matrix in self.matrices.items():
            matrix.weight.requires_grad_(False)
            self.register_parameter(name, nn.Parameter(matrix.weight.detach()[self.tokens]))  # [n, D]
        self._no_split_modules = model._no_split_modules  # the layers, which FSDP splits over GPUs one by one

    def forward(self, input_ids, places, vocabulary, held, of_set, **row) -> CausalLMOutput:
        """Logits [1, P, V'] in float32 of the tokens `vocabulary` [V'] at P places of a packed row; minus infinity
        where the place's set, held[of_set], has the token not."""
        read = self.rows[torch.searchsorted(self.tokens, input_ids)]
        with torch.autocast(read.device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden = self.body(inputs_embeds=read, **row, use_cache=False).last_hidden_state[0, places]  # [P, D]
        head = getattr(self, [*self.matrices][-1])[torch.searchsorted(self.tokens, vocabulary)]
        return CausalLMOutput(logits=(hidden.float() @ head.T).masked_fill(~held[of_set], -torch.inf)[None])

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the learnt rows into the model's matrices."""
        for name, matrix in self.matrices.items():
            matrix.weight[self.tokens] = getattr(self, name).detach()


def tokens_of(examples: Sequence[Example], n_tokens: int) -> torch.Tensor:
    """The tokens that examples hold or could have held, int64 [n], sorted; all of the vocabulary's `n_tokens` where an
    answer is among all."""
    held: set[int] = set()
    sets: set[Among | None] = set()
    for example in examples:
        prompt = example.prompt
        held.update(prompt.prefix)
        sets.update(among for _, among in prompt.learn)
        for branch in prompt.branches:
            held.update(branch.tokens)
            sets.update([branch.choices] if branch.choices else branch.among or [None] * bool(branch.answer))
    if None in sets:
        return torch.arange(n_tokens)
    for each in sets:
        held.update(each.tokens)
    return torch.tensor(sorted(held), dtype=torch.long)


def collate(batch: Sequence[Sequence[Example]], n_tokens: int) -> dict[str, torch.Tensor]:
    """One packed row of examples to the model's inputs and the table of targets, int64 [n, 8]. n_tokens: of the
    vocabulary."""
    (examples,) = batch
    prompts = [example.prompt for example in examples]
    row, sets = PackedRow.of(prompts), {}  # sets: each Among that is met, and its number
    labels: list[tuple[int, ...]] = []
    among: list[int] = []  # of each label, the number of its set
    alternative = choice_set = 0
    for p, example in enumerate(examples):
        prefix = example.prompt.prefix
        for at, those in example.prompt.learn:
            if _open(those):
                labels.append((row.place(p, at - 1), prefix[at], -1, -1, 0, 1, 1, 0))
                among.append(sets.setdefault(those, len(sets)))
        for asked in example.choice_sets:
            text = int(example.prompt.branches[asked.branches[0]].choices is None)
            for a, tokens in enumerate(_alternatives(row, prompts, p, asked)):
                right = int(a == asked.right)
                for place, token, those, sign in tokens:
                    learn = right if sign > 0 else 1 - right  # "no" is the answer to learn about the others
                    labels.append((place, token, alternative, choice_set, right, learn * _open(those), sign, text))
                    among.append(sets.setdefault(those, len(sets)))
                alternative += 1
            choice_set += 1
    table = torch.tensor(labels)
    vocabulary, held = allowed(list(sets), n_tokens)
    pairs = torch.stack([table[:, PLACE], torch.tensor(among)])
    (places, of_set), table[:, PLACE] = torch.unique(pairs, dim=1, return_inverse=True)
    table[:, TOKEN] = torch.searchsorted(vocabulary, table[:, TOKEN].contiguous())
    return {
        "input_ids": row.tokens[None],
        "position_ids": row.positions[None],
        "attention_mask": row.mask[None, None],
        "trees": row.trees,
        "root": row.root,
        "places": places,
        "vocabulary": vocabulary,
        "held": held,
        "of_set": of_set,
        "labels": table,
    }


def _open(among: Among | None) -> bool:
    """Whether more than one token could stand there: otherwise log p is 0, and there is nothing to learn."""
    return among is None or len(among.tokens) > 1


def _alternatives(
    row: PackedRow, prompts: Sequence[Prompt], p: int, asked: ChoiceSet
) -> list[list[tuple[int, int, Among | None, int]]]:
    """For each alternative of a choice set its tokens: the place that predicts it, the token, its set, its sign in
    S(a)."""
    branches = prompts[p].branches

    def choice(b: int, c: int, sign: int) -> tuple[int, int, Among | None, int]:
        return row.before_branch(prompts, p, b)[-1], branches[b].choices.tokens[c], branches[b].choices, sign

    if asked.ways:
        return [[choice(b, c, 1) for b, c in way] for way in asked.ways]
    first = branches[asked.branches[0]]
    if first.choices and len(asked.branches) == 1:  # one branch, whose choices are the alternatives
        return [[choice(asked.branches[0], c, 1)] for c in range(len(first.choices.tokens))]
    if first.choices:  # each branch asks yes or no about an alternative
        return [[choice(b, 0, 1), choice(b, 1, -1)] for b in asked.branches]
    out = []
    for b in asked.branches:
        skip = len(branches[b].tokens) - branches[b].answer
        places, tokens = row.before_branch(prompts, p, b)[skip:], branches[b].tokens[skip:]
        among = branches[b].among or [None] * len(tokens)
        out.append([(*each, 1) for each in zip(places, tokens, among, strict=True)])
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
    """Cross-entropy on the learnt tokens plus the choice loss, each a mean; `outputs.logits` [1, places, V'], `labels`
    [n, 8]. A choice set with one alternative counts, and adds nothing."""
    log_p = TokenLogP.apply(outputs.logits[0].float(), labels[:, PLACE], labels[:, TOKEN])  # [n]
    learnt = labels[:, LEARN].bool()
    loss = -log_p[learnt].mean()
    asked = labels[:, CHOICE_SET] >= 0
    if choice_weight and asked.any():
        table, log_p = labels[asked], (labels[:, SIGN] * log_p)[asked]
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
