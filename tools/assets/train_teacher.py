"""Train the embedded teacher: MediaPipe's landmark network carried to a mesh, on synthetic and real hands.

    python tools/prepare_data.py label IMAGES --teacher mediapipe --out runs/points
    python tools/assets/train_teacher.py --out runs/teacher DATA.ROOT runs/points
    python tools/assets/train_teacher.py --out runs/teacher --whole --hours 0.1 DEVICE cuda TRAIN.PRECISION bf16

On a CPU only the last stage and the decoder are trained: the frozen part's maps of `--views` crops of each image are
stored once, and a step is four times as fast as it would be with the whole network. With --whole all of it is trained
from the images, for when there is a GPU. Both go on where they stopped. Recipe: configs/embedded_teacher.yaml.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from yacs.config import CfgNode

from fasthamer.tools import cli

if TYPE_CHECKING:
    from torch import nn

RECIPE = "embedded_teacher"


def main(argv: list[str] | None = None) -> int:
    """0 done or terminated, 1 failed or interrupted, 2 the user's mistake."""
    parser = cli.command("train_teacher", __doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/teacher"), help="the run directory (runs/teacher)")
    parser.add_argument("--views", type=int, default=8, help="stored crops of each image (8)")
    parser.add_argument("--whole", action="store_true", help="train the whole network from images")
    parser.add_argument("--hours", type=float, default=1.0, help="how long to train where TRAIN.STEPS is 0 (1)")
    arguments, overrides = cli.parse(parser, argv)

    from fasthamer.config import load_config
    from fasthamer.training.interrupt import Interrupted
    from fasthamer.training.run_dir import resumed_config

    run: Path = arguments.out
    begun = (run / "config.yaml").is_file()
    try:
        cfg = resumed_config(run, overrides) if begun else load_config(RECIPE, overrides)
        train = _whole if arguments.whole else _last_stage
        scores = train(cfg, run, begun, arguments.hours, arguments.views)
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    except Interrupted as stopped:
        print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        return stopped.exit_code
    except (FloatingPointError, ValueError, OSError) as error:
        return cli.failed("train_teacher", error)
    print(f"{run / 'student.safetensors'}: PA-MPJPE {scores['pa_mpjpe_mm']:.2f} mm on synthetic hands")
    return 0


def _whole(cfg: CfgNode, run: Path, begun: bool, hours: float, views: int) -> dict:
    from fasthamer.distill.preparation import prepare
    from fasthamer.distill.run import execute

    return execute(prepare(cfg, run, resume=begun), hours)


def _last_stage(cfg: CfgNode, run: Path, begun: bool, hours: float, views: int) -> dict:
    from fasthamer.data.dataset import HandStream
    from fasthamer.data.loader import Feed
    from fasthamer.distill.preparation import prepare
    from fasthamer.distill.run import evaluation_scores, finish
    from fasthamer.distill.trainer import DistillTrainer
    from fasthamer.files.atomic import write_text
    from fasthamer.students import Student
    from fasthamer.tools.assets.teacher.parts import FrozenPart, TrainedPart, with_part
    from fasthamer.tools.assets.teacher.stored_maps import store_maps
    from fasthamer.training.loop import train
    from fasthamer.training.pace import with_timed_steps
    from fasthamer.training.run_dir import writing

    prepared = prepare(cfg, run, resume=begun)
    cfg, student, accelerator = prepared.cfg, prepared.trainer.learner.student, prepared.trainer.accelerator
    assert isinstance(student, Student) and not isinstance(prepared.images, HandStream)
    print(prepared.announcement, flush=True)
    with writing(run, cfg, prepared.origin, accelerator, begun):
        maps = store_maps(run / "maps", prepared.images, views, FrozenPart(student), cfg.DATA.WORKERS)
        trainer = DistillTrainer(cfg, TrainedPart(student), None, prepared.trainer.objective, accelerator)
        feed = Feed(maps, cfg.TRAIN.BATCH, cfg.SEED)
        if not cfg.TRAIN.STEPS:
            cfg = with_timed_steps(cfg, trainer, feed, hours, "--hours", print)
            write_text(run / "config.yaml", cfg.dump())

        def score(done: int, part: nn.Module) -> dict[str, float]:
            scores = evaluation_scores(prepared, with_part(student, part))
            return {name: value for name, value in scores.items() if name.endswith("_mm")}

        part = train(trainer, feed, cfg.TRAIN, run, prepared.resume_from, score)
        return finish(prepared._replace(cfg=cfg), with_part(student, part))


if __name__ == "__main__":
    sys.exit(main())
