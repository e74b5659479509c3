"""One of the processes of a training in which a sample of one of them is not finite."""

import os
import sys
from pathlib import Path

import torch
from test_not_finite import Faulty, nan_joints, skipping_key, trainer_of
from torch import distributed

from fasthamer.data.loader import Feed
from fasthamer.training.loop import train

folder, options, rank = Path(sys.argv[1]), sys.argv[2:], int(os.environ["RANK"])
trainer = trainer_of(*options)
feed = Feed(Faulty([skipping_key()], nan_joints), 2, 0, rank, processes=2)
train(trainer, feed, trainer.cfg.TRAIN, folder / "run")
torch.save(trainer.learner.state_dict(), folder / f"{rank}.pt")
distributed.destroy_process_group()
