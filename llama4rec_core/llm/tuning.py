"""Instruction tuning (4.5): teach the LLM on the very trees it will be scored on.

An example is a prompt and, for each question in it, its alternatives and the right one: a list's candidates
(ranking), two films (P1), the digits of the scale (rating). Two losses, both only where they count:

    cross-entropy    -mean log p(token)          over right answers (equation 8) and the ratings a user gave
    choice           -mean T log softmax_a S(a)/T  over a question's alternatives, S(a) = log p(a | prefix) - prior(a),
                                                 or log p(yes) - log p(no) where each candidate is asked about

The second is what ranking by likelihood needs: not that the right title is likely, but that it is likelier than the
others. Titles' likelihoods lie many nats apart, for reasons of wording more than of taste, so a temperature T may
soften them; T in front keeps the gradient's size. Single tokens (digits, yes and no, letters) have T = 1.
What learns: rows of the vocabulary's head (`head.py`), LoRA matrices in the upper layers, or everything.
`transformers.Trainer` runs it, so checkpoints, resuming and gradient accumulation are the library's.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch.autograd.function import once_differentiable
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from llama4rec_core.files import explained, whole_folder, write_frame, write_json
from llama4rec_core.llm import head
from llama4rec_core.llm.engine import tokens_read
from llama4rec_core.llm.labels import ALTERNATIVE, LEARN, PLACE, PRIOR, QUESTION, RIGHT, SIGN, TEXT, TOKEN, collate
from llama4rec_core.llm.lessons import Example, TuningSettings
from llama4rec_core.llm.weights import LLM, quiet_peft
from llama4rec_core.progress import Progress

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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
    """Cross-entropy on the learnt tokens plus the choice loss, each a mean (a question with one alternative counts, and
    adds nothing); `outputs.logits` [1, places, V], `labels` [n, 9]."""
    prior, sign, labels = labels[:, PRIOR].float(), labels[:, SIGN].float(), labels.long()
    log_p = TokenLogP.apply(outputs.logits[0].float(), labels[:, PLACE], labels[:, TOKEN])  # [n]
    learnt = labels[:, LEARN].bool()
    loss = -log_p[learnt].mean()
    asked = labels[:, QUESTION] >= 0
    if choice_weight and asked.any():
        table, log_p = labels[asked], (sign * log_p - prior)[asked]
        n_alternatives, n_questions = int(table[:, ALTERNATIVE].max()) + 1, int(table[:, QUESTION].max()) + 1
        t = log_p.new_ones(n_questions).index_fill(0, table[table[:, TEXT] == 1, QUESTION], temperature)  # T
        log_p = log_p / t[table[:, QUESTION]]
        score = log_p.new_zeros(n_alternatives).index_add(0, table[:, ALTERNATIVE], log_p)  # S(a) / T
        question = score.new_zeros(n_alternatives, dtype=torch.long).scatter(
            0, table[:, ALTERNATIVE], table[:, QUESTION]
        )
        right = score.new_zeros(n_alternatives, dtype=torch.bool)
        right[table[table[:, RIGHT] == 1, ALTERNATIVE]] = True
        # log sum exp over each question's alternatives, with the largest taken out first
        top = score.new_full((n_questions,), -torch.inf).scatter_reduce(0, question, score.detach(), "amax")
        total = score.new_zeros(n_questions).index_add(0, question, (score - top[question]).exp()).log() + top
        loss = loss + choice_weight * (t * (total - score[right][question[right].argsort()])).mean()
    return loss / rows_per_step


class Report(TrainerCallback):
    """Prints how far tuning is, now and then."""

    def __init__(self, name: str):
        self.name, self.progress = name, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(f"tuning {self.name}", state.max_steps, done=state.global_step, unit="steps")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.progress.to(state.global_step, f"loss {logs['loss']:.3f}")


def tune(llm: LLM, examples: Sequence[Example], settings: TuningSettings, folder: Path, seed: int) -> Path:
    """Tune `llm` on `examples` and leave the rows, the adapter or the whole model in `folder`.

    Stopped and called again, it goes on from its last checkpoint and ends with the same weights. Writes `tuning.json`
    (tokens, steps, seconds) and `curve.csv` beside the weights. Raises ValueError for an unknown method.
    """
    settings, checkpoints = settings.filled(), folder.parent / f".{folder.name}-checkpoints"
    if (folder / "tuning.json").exists():
        shutil.rmtree(checkpoints, ignore_errors=True)
        return folder
    started = time.time()
    data = pack(examples, settings.row_tokens, seed)
    tokens = sum(sum(tokens_read([example.prompt for example in row])) for row in data)
    torch.manual_seed(seed)
    if settings.method == "head":
        asked = torch.unique(torch.cat([collate([row])["labels"][:, TOKEN] for row in data]).long())
        taught = head.read_all(llm, data, asked, checkpoints / "read")
        model = head.Head(llm.model.get_output_embeddings().weight.detach()[asked.to(llm.model.device)], taught)
        save = partial(model.save, tokens=asked)
    else:
        taught, tokens = data, tokens * settings.epochs
        model = _with_lora(llm.model, settings) if settings.method == "lora" else llm.model
        save = model.save_pretrained
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.rows_per_step,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_steps,
        logging_steps=1,
        save_strategy="epoch" if settings.method == "head" else "steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        label_names=["labels"],
    )
    report = Report(folder.name)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=taught,
        data_collator=_only if settings.method == "head" else collate,
        compute_loss_func=partial(
            tree_loss,
            choice_weight=settings.choice_weight,
            temperature=settings.temperature,
            rows_per_step=settings.rows_per_step,
        ),
        callbacks=[report],
    )
    trainer.remove_callback(PrinterCallback)
    with explained(checkpoints):
        result = trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    curve = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    with whole_folder(folder) as aside:
        save(aside)
        write_frame(aside / "curve.csv", curve[["step", "epoch", "loss", "learning_rate", "grad_norm"]])
        write_json(
            aside / "tuning.json",
            {
                "examples": len(examples),
                "tokens": tokens,
                "rows": len(data),
                "steps": trainer.state.global_step,
                "final_loss": result.training_loss,
                "seconds": round(time.time() - started, 1),
            },
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return folder


def _with_lora(model: torch.nn.Module, settings: TuningSettings) -> torch.nn.Module:
    n_layers = model.config.num_hidden_layers
    asked = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        lora_dropout=0.0,
        target_modules=LINEAR,
        layers_to_transform=list(range(n_layers - max(1, round(n_layers * settings.layers)), n_layers)),
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        return get_peft_model(model, asked)


def _only(batch: list) -> dict[str, torch.Tensor]:
    (row,) = batch
    return row


def pack(examples: Sequence[Example], row_tokens: int, seed: int) -> list[list[Example]]:
    """Rows of examples in a seeded random order, so that a row mixes tasks."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    packed: list[list[Example]] = []
    length = row_tokens
    for index in order:
        size = len(examples[index].prompt)
        if length + size > row_tokens:
            packed.append([])
            length = 0
        packed[-1].append(examples[index])
        length += size
    return packed


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end (the trainer's state is the last file it writes)."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
