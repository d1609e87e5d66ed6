"""Tune the tiny LLM as one of several processes, which `torchrun` starts: FOLDER METHOD [steps after which it dies]."""

import os
import sys
from pathlib import Path

import torch
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


Trainer._save_checkpoint = save_then_die
tuned(tiny(), Path(folder), method, rows_per_step=2)
torch.distributed.destroy_process_group()
