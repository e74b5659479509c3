"""One of the processes of a distillation, then of evaluations; folders of its own show what it writes."""

import os
import sys
from pathlib import Path

import numpy as np
from noise_images import Noise, tiny
from torch import distributed

from fasthamer.distill.evaluate import predict_together
from fasthamer.tools import distill, eval
from fasthamer.training.accelerator import accelerator_for, collected

folder, options, rank = Path(sys.argv[1]), sys.argv[2:], int(os.environ["RANK"])
assert distill.main([*options, "--out", str(folder / f"run_of_{rank}")]) == 0

distributed.barrier()
settings = [
    "DEVICE",
    "cpu",
    "IMAGE_SIZE",
    "64",
    "DATA.WORKERS",
    "0",
    "DATA.SYNTHETIC_EVAL_SIZE",
    "5",
    "EVAL.BATCH",
    "2",
]
evaluated = ["--model", str(folder / "run_of_0"), "--data", "synthetic", *settings]
assert eval.main([*evaluated, "--out", str(folder / f"scores_of_{rank}")]) == 0

accelerator = accelerator_for("cpu", "fp32", 1)
predicted = predict_together(tiny().eval(), Noise(), 3, 0, accelerator)  # 3 + 3 + 2 samples
if predicted is not None:
    np.savez(folder / f"predicted_by_{rank}.npz", joints=predicted.joints, truth=predicted.true_joints)


def failing_elsewhere() -> int:
    if rank == 1:
        raise ValueError("sample 5: damaged image")
    return rank


try:
    collected(failing_elsewhere, accelerator)
except ValueError as error:
    (folder / f"refused_by_{rank}.txt").write_text(str(error))
distributed.destroy_process_group()
