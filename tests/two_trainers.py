"""One of the processes of a tokenizer's distributed training: the command, and in the end a copy of what it holds."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from fasthamer.distill import tokenizer as tokenizing
from fasthamer.tools.train_tokenizer import main

folder, *arguments = sys.argv[1:]
train = tokenizing.train_tokenizer


def keeping(shop: tokenizing.Workshop) -> dict:
    scores = train(shop)
    torch.save(shop.tokenizer.state_dict(), Path(folder) / f"{shop.accelerator.process_index}.pt")
    return scores


tokenizing.train_tokenizer = keeping
tokenizing.reconstructions = lambda *_: np.zeros((8, 8, 3), np.uint8)
assert main(arguments) == 0
distributed.destroy_process_group()
