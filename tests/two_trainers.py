"""One of the processes of a tokenizer's distributed training; in the end, a copy of the weights that it holds."""

import sys
from pathlib import Path

import torch
from torch import distributed

from fasthamer.config import load_config
from fasthamer.distill.tokenizer import prepare_tokenizer, train_tokenizer

folder, run, *overrides = sys.argv[1:]
prepared = prepare_tokenizer(load_config("tokenizer/default", overrides), Path(run))
accelerator = prepared.trainer.accelerator
if accelerator.is_main_process:
    print(prepared.announcement)
train_tokenizer(prepared, shown=1)
torch.save(prepared.trainer.model.state_dict(), Path(folder) / f"{accelerator.process_index}.pt")
distributed.destroy_process_group()
