"""Where and how precisely a run computes, carried by Hugging Face accelerate."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from fasthamer.device import keep_freed_memory, pick_device
from fasthamer.registry import unknown

T = TypeVar("T")

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
    if kind == "cpu":
        keep_freed_memory()
    if precision == "auto":
        precision = "fp16" if kind == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise KeyError(unknown("precision", precision, PRECISIONS))
    if precision == "fp16" and kind == "cpu":
        raise ValueError("TRAIN.PRECISION fp16 needs a GPU; on a CPU use bf16 or fp32")
    if kind == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if not torch.distributed.is_initialized():
        _join_restarted(kind)
    os.environ.update(ACCELERATE_USE_FSDP="false")  # what trains stays whole; the teacher alone may be `sharded`
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    return Accelerator(cpu=kind == "cpu", mixed_precision=PRECISIONS[precision], gradient_accumulation_steps=accumulate)


def _join_restarted(kind: str) -> None:
    """Opens the group of processes if torchrun has restarted them; at their first start accelerate does.

    torchrun keeps one store over its restarts, where accelerate's group would find addresses of ended processes
    (pytorch issue 135712). On several nodes the numbers of restarts may differ, and torchrun has to be started with
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 instead: docs/scale.md.
    """
    place = os.environ
    restarts = place.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or place.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or place.get("GROUP_WORLD_SIZE") != "1":
        return
    world = int(place["WORLD_SIZE"])
    store = torch.distributed.TCPStore(place["MASTER_ADDR"], int(place["MASTER_PORT"]), world, is_master=False)
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        store=torch.distributed.PrefixStore(f"restart_{restarts}", store),
        rank=int(place["RANK"]),
        world_size=world,
    )


def sharding() -> bool:
    """Whether accelerate's configuration is one of FSDP, as deploy/fsdp.yaml: then a teacher is to be `sharded`."""
    return bool(os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP"))


def sharded(model: nn.Module, device: torch.device) -> nn.Module:
    """A frozen model whose weights are spread over all processes, and gathered block by block while it runs.

    So every process must run it whenever one does.

    Args:
        model: on the CPU, in its final types.
        device: where it will run.

    Raises:
        ValueError: it has no block of the class that the configuration names.
    """
    names = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "").split(",")
    blocks = [part for part in model.modules() if type(part).__name__ in names]
    if not blocks:
        raise ValueError(
            f"the teacher has no module of a class {' or '.join(names)}: name the one it repeats in "
            "fsdp_transformer_layer_cls_to_wrap of accelerate's configuration"
        )
    from torch.distributed.fsdp import fully_shard  # torch 2.6

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for part in (*blocks, model):
        fully_shard(part, mesh=mesh)
    return model


def precision_of(accelerator: Accelerator) -> str:
    """fp32, fp16 or bf16."""
    return {theirs: ours for ours, theirs in PRECISIONS.items()}[accelerator.mixed_precision]


def collected(compute: Callable[[], T], accelerator: Accelerator) -> list[T] | None:
    """What each process computes, in the main process in their order; None in the others. All call this.

    Raises:
        ValueError, OSError: from `compute` in any process; raised in the main process, which alone can still save.
    """
    if accelerator.num_processes == 1:
        return [compute()]
    try:
        own: T | Exception = compute()
    except (ValueError, OSError) as error:
        own = error
    received: list[Any] | None = [None] * accelerator.num_processes if accelerator.is_main_process else None
    torch.distributed.gather_object(own, received)
    for each in received or ():
        if isinstance(each, Exception):
            raise each
    return received
