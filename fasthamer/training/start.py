"""What every training does first."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from yacs.config import CfgNode

from fasthamer.cores import usable_cores
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.pace import check_steps
from fasthamer.training.run_dir import refuse_busy, refuse_foreign
from fasthamer.training.settings import check_settings


def start(cfg: CfgNode, run: Path, resume: bool, precision: str) -> Accelerator:
    """The accelerator of a training, once its settings and its run directory are known to be fit.

    Args:
        cfg: the config.
        run: the run directory; nothing is written into it.
        resume: whether it may hold a run.
        precision: as TRAIN.PRECISION.

    Raises:
        RunInUse: another process trains into it.
        ValueError, KeyError: a setting that no training can use; the directory holds something else.
    """
    if not resume:
        refuse_foreign(run)
    check_steps(cfg.TRAIN.STEPS)
    check_settings(cfg)
    accelerator = accelerator_for(cfg.DEVICE, precision, cfg.TRAIN.ACCUMULATE)
    if accelerator.is_main_process:
        refuse_busy(run)
    torch.set_num_threads(cfg.TRAIN.THREADS or min(torch.get_num_threads(), usable_cores()))
    return accelerator
