"""Tune the tiny LLM as one of several processes, which `torchrun` starts: FOLDER METHOD [steps after which it dies].

With ACCELERATE_USE_FSDP in the environment its parameters are split over them. Accelerate does that on GPUs alone, so
these processes say that they have some.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate.state import DistributedType, PartialState
from test_finetune import tuned
from tiny import tiny
from transformers import Trainer

from llama4rec_core.llm import finetune

finetune.number_format = lambda: torch.float32
folder, method, *dies = sys.argv[1:]
save = Trainer._save_checkpoint


def save_then_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    self.accelerator.wait_for_everyone()
    if dies and self.state.global_step >= int(dies[0]):
        os._exit(9)


split = "ACCELERATE_USE_FSDP" in os.environ
if split:
    begin = PartialState.__init__

    def on_gpus(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = on_gpus

Trainer._save_checkpoint = save_then_die
tuned(tiny(tied=method == "lora"), Path(folder), method, rows_per_step=2, gradient_checkpointing=split)
torch.distributed.destroy_process_group()
