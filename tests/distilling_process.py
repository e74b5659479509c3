"""One of the processes of a distillation, then of an evaluation; a folder of its own shows what it writes."""

import os
import sys
from pathlib import Path

import numpy as np
from noise_images import Noise, tiny
from torch import distributed

from fasthamer.distill.evaluate import predict_together
from fasthamer.tools.distill import main
from fasthamer.training.accelerator import accelerator_for, collected

folder, *options = sys.argv[1:]
rank = int(os.environ["RANK"])
status = main([*options, "--out", str(Path(folder) / f"run_of_{rank}")])

accelerator = accelerator_for("cpu", "fp32", 1)
predicted = predict_together(tiny().eval(), Noise(), 3, 0, accelerator)  # 3 + 3 + 2 samples
if predicted is not None:
    np.savez(Path(folder) / f"predicted_by_{rank}.npz", joints=predicted.joints, truth=predicted.true_joints)


def failing_elsewhere() -> int:
    if rank == 1:
        raise ValueError("sample 5: damaged image")
    return rank


try:
    collected(failing_elsewhere, accelerator)
except ValueError as error:
    (Path(folder) / f"refused_by_{rank}.txt").write_text(str(error))
distributed.destroy_process_group()
sys.exit(status)
