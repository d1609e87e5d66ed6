"""Instruction tuning (4.5): teach the LLM on the very trees it will be scored on.

The body learns, all of it or LoRA matrices in every layer, by the loss of `loss.py`. `transformers.Trainer` runs it, so
checkpoints, resuming, gradient accumulation and several processes are the library's. What is left is a whole model
folder.
"""

import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from llama4rec_core.files import explained, whole_folder, write_frame, write_json
from llama4rec_core.llm import cost
from llama4rec_core.llm.batches import fingerprint
from llama4rec_core.llm.examples import Example
from llama4rec_core.llm.loss import Answering, collate, tokens_of, tree_loss
from llama4rec_core.llm.model import LLM, machine, number_format, quiet_peft
from llama4rec_core.llm.tree import tokens_read
from llama4rec_core.presets import TuningSettings
from llama4rec_core.progress import Progress

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Report(TrainerCallback):
    """Prints how far tuning is, now and then."""

    def __init__(self, name: str):
        self.name, self.progress = name, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(f"tuning {self.name}", state.max_steps, done=state.global_step, unit="steps")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs and state.is_world_process_zero:
            self.progress.to(state.global_step, f"loss {logs['loss']:.3f}")


def tune(
    llm: LLM, rows: Sequence[Sequence[Example]], settings: TuningSettings, learning_rate: float, folder: Path, seed: int
) -> Path:
    """Tune `llm`, whose weights must be float32, on rows of examples, a step each, and leave it in `folder`, with
    `tuning.json` (the LLM, tokens, steps, seconds) and `curve.csv` (step, loss) beside it. Without rows it stays as it
    is. `pack` makes rows.

    Started by a launcher (`torchrun`, `accelerate launch`), each process takes its share of a step's rows, and the
    first one writes: the weights are those of one process but for rounding. (Where the processes do not divide the
    number of rows, some of the first rows are read again at the end.) Raises ValueError where they do not divide the
    rows of a step.

    Stopped and called again with the same rows and settings, it goes on from its last intermediate checkpoint and
    ends with the same weights; these lie in hidden folders beside `folder` until `clean` removes them.
    """
    started, asked = time.time(), fingerprint(llm, rows, settings, learning_rate, seed)
    checkpoints = folder.parent / f".{folder.name}-{asked[:16]}"
    examples = [example for row in rows for example in row]
    share = _share(settings)
    torch.manual_seed(seed)
    model = llm.model.train()
    if settings.method == "lora":
        with quiet_peft():
            config = LoraConfig(r=settings.lora.rank, lora_alpha=2 * settings.lora.rank, target_modules=LINEAR)
            model = get_peft_model(model, config)
    if settings.gradient_checkpointing:
        llm.model.gradient_checkpointing_enable({"use_reentrant": False})
    n_tokens = llm.model.get_input_embeddings().weight.shape[0]
    answering = Answering(llm.model, tokens_of(examples, n_tokens), number_format())
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=share,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process uses one GPU; for several, a launcher starts as many
    trainer = Trainer(
        model=answering,
        args=arguments,
        train_dataset=rows,
        data_collator=partial(collate, n_tokens=n_tokens),
        compute_loss_func=partial(
            tree_loss,
            choice_weight=settings.choice_weight,
            temperature=settings.temperature,
            rows_per_step=settings.rows_per_step,
        ),
        callbacks=[Report(folder.name)],
    )
    trainer.remove_callback(PrinterCallback)
    if rows:
        with explained(checkpoints):
            trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        gather(answering)
    columns = ["step", "epoch", "loss", "learning_rate", "grad_norm"]
    curve = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry], columns=columns)
    if is_first_process():
        if rows:
            llm.model.tie_weights()
            answering.put_back()
        if settings.method == "lora":
            model = model.merge_and_unload()
        with whole_folder(folder) as aside:
            model.eval().save_pretrained(aside, max_shard_size="1TB")  # one file
            write_frame(aside / "curve.csv", curve)
            write_json(
                aside / "tuning.json",
                {
                    "llm": {"name": llm.name, "sha256": llm.sha256} | cost.size(llm),
                    "examples": len(examples),
                    "tokens": sum(sum(tokens_read([example.prompt for example in row])) for row in rows),
                    "rows": len(rows),
                    "steps": trainer.state.global_step,
                    "final_loss": float(curve["loss"].tail(20).mean()) if len(curve) else None,
                    "seconds": round(time.time() - started, 1),
                    "machine": machine(llm),
                },
            )
    trainer.accelerator.wait_for_everyone()
    return folder


def gather(model: torch.nn.Module) -> None:
    """Put together, in the first process's memory, the parameters that FSDP has split over the processes; without FSDP
    nothing is to be done. All processes call this."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                whole = parameter.full_tensor().detach().cpu()
                if is_first_process():
                    setattr(module, name, torch.nn.Parameter(whole))


def is_first_process() -> bool:
    """Whether this process writes: the only one, or the first of those that a launcher started."""
    return int(os.environ.get("RANK", 0)) == 0


def _share(settings: TuningSettings) -> int:
    """How many of a step's rows each process takes."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if settings.rows_per_step % processes:
        raise ValueError(
            f"tuning.rows_per_step is {settings.rows_per_step}: {processes} processes share the rows of a step, so it "
            f"must be {processes} or a multiple of it"
        )
    return settings.rows_per_step // processes


def clean(folder: Path) -> None:
    """Remove the intermediate checkpoints of a tuning that has ended, and what a kill while saving left."""
    for path in [*folder.parent.glob(f".{folder.name}-*"), *folder.parent.glob(f".{folder.name}.*")]:
        shutil.rmtree(path, ignore_errors=True)


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
