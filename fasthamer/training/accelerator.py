"""Where and how precisely a run computes, carried by Hugging Face accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from fasthamer.device import pick_device
from fasthamer.registry import unknown

PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def accelerator_for(device: str, precision: str, accumulate: int) -> Accelerator:
    """An accelerator, under `accelerate launch` or `torchrun` too; a second call in one process replaces the first.

    Args:
        device: auto = cuda, then mps, then cpu; or a torch device.
        precision: fp32, fp16 or bf16; auto = fp16 on cuda, else fp32.
        accumulate: batches per optimizer step.

    Raises:
        ValueError, KeyError: a device that is not here, an unknown precision, or fp16 on a CPU.
    """
    chosen = pick_device(device)
    kind = chosen.type
    if precision == "auto":
        precision = "fp16" if kind == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise KeyError(unknown("precision", precision, PRECISIONS))
    if precision == "fp16" and kind == "cpu":
        raise ValueError("TRAIN.PRECISION fp16 needs a GPU; on a CPU use bf16 or fp32")
    if kind == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    return Accelerator(cpu=kind == "cpu", mixed_precision=PRECISIONS[precision], gradient_accumulation_steps=accumulate)


def precision_of(accelerator: Accelerator) -> str:
    """fp32, fp16 or bf16."""
    return {theirs: ours for ours, theirs in PRECISIONS.items()}[accelerator.mixed_precision]
