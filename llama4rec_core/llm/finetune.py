"""Instruction tuning (4.5): teach the LLM on the very trees it will be scored on.

What learns: rows of the LM head (`lm_head.py`), LoRA matrices in the upper layers, or everything; by the loss of
`loss.py`. `transformers.Trainer` runs it, so checkpoints, resuming and gradient accumulation are the library's.
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
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from llama4rec_core.files import explained, whole_folder, write_frame, write_json
from llama4rec_core.llm import cost, lm_head
from llama4rec_core.llm.batches import fingerprint
from llama4rec_core.llm.examples import Example
from llama4rec_core.llm.loss import TOKEN, collate, tree_loss
from llama4rec_core.llm.model import LLM, quiet_peft
from llama4rec_core.llm.tree import tokens_read
from llama4rec_core.presets import LoRASettings, TuningSettings
from llama4rec_core.progress import Progress

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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
    """Tune `llm` on `examples` and leave the checkpoint in `folder`: rows of the LM head, a LoRA adapter or the whole
    model, with `tuning.json` (the LLM, tokens, steps, seconds) and `curve.csv` (step, loss) beside it.

    Stopped and called again with the same examples and settings, it goes on from its last intermediate checkpoint and
    ends with the same weights; these lie in hidden folders beside `folder` until `clean` removes them.
    """
    started, asked = time.time(), fingerprint(llm, examples, settings, seed)
    checkpoints, chosen = folder.parent / f".{folder.name}-{asked[:16]}", settings.chosen
    data = pack(examples, settings.row_tokens, seed)
    tokens = sum(sum(tokens_read([example.prompt for example in row])) for row in data)
    torch.manual_seed(seed)
    if settings.method == "lm_head":
        asked = torch.unique(torch.cat([collate([row])["labels"][:, TOKEN] for row in data]).long())
        taught = lm_head.read_all(llm, data, asked, checkpoints / "read")
        model = lm_head.LMHead(llm.model.get_output_embeddings().weight.detach()[asked.to(llm.model.device)], taught)
        save = partial(model.save, tokens=asked)
    else:
        taught, tokens = data, tokens * chosen.epochs
        model = _with_lora(llm.model, settings.lora) if settings.method == "lora" else llm.model
        save = model.save_pretrained
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.rows_per_step,
        num_train_epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_steps,
        logging_steps=1,
        save_strategy="epoch" if settings.method == "lm_head" else "steps",
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
        data_collator=_only if settings.method == "lm_head" else collate,
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
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    curve = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    with whole_folder(folder) as aside:
        save(aside)
        write_frame(aside / "curve.csv", curve[["step", "epoch", "loss", "learning_rate", "grad_norm"]])
        write_json(
            aside / "tuning.json",
            {
                "llm": {"name": llm.name, "sha256": llm.sha256} | cost.size(llm),
                "examples": len(examples),
                "tokens": tokens,
                "rows": len(data),
                "steps": trainer.state.global_step,
                "final_loss": float(curve["loss"].iloc[-1]),
                "seconds": round(time.time() - started, 1),
            },
        )
    return folder


def clean(folder: Path) -> None:
    """Remove the intermediate checkpoints of a tuning that has ended."""
    for path in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(path, ignore_errors=True)


def _with_lora(model: torch.nn.Module, settings: LoRASettings) -> torch.nn.Module:
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
    """The newest intermediate checkpoint that was written to its end: the trainer's state is its last file, and ends
    with a brace."""
    whole = [
        path.parent
        for path in folder.glob("checkpoint-*/trainer_state.json")
        if path.read_text(encoding="utf-8").rstrip().endswith("}")
    ]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
