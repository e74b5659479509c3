"""A training that is asked to stop: what it saves, what its log holds after it goes on, and what loader workers do."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from noise_images import Noise
from torch.utils.data import DataLoader

from fasthamer.config import load_config
from fasthamer.data.loader_processes import quiet_worker, readable
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.checkpoint import Trainable, checkpoints, read_facts
from fasthamer.training.interrupt import Interrupted, InterruptHandler, sigterm_interrupts
from fasthamer.training.loop import train
from fasthamer.training.trainer import Report


class Summing:
    """The smallest trainer: its loss is the batch, a number, and its weight the sum of them."""

    def __init__(self) -> None:
        self.accelerator, self.model = accelerator_for("cpu", "fp32", 1), torch.nn.Linear(1, 1)
        self.model.bias.data.zero_()

    @property
    def state(self) -> Trainable:
        return Trainable({"model": self.model}, {})

    def begin(self, step: int, steps: int) -> None:
        self.step = step

    def training_step(self, batch: float, number: int) -> dict[str, torch.Tensor]:
        self.model.bias.data += batch
        return {"total": torch.tensor(batch)}

    def end(self, done: int) -> None:
        pass

    def report(self) -> Report:
        return Report({"learning_rate": float(self.step)})


class Numbers:
    """Batches that are their own number; a signal arrives with one of them."""

    position, skipped = None, ()

    def __init__(self, number: int | None = None, received: int = signal.SIGTERM, fails: bool = False) -> None:
        self.number, self.received, self.fails = number, received, fails

    def batches(self, first_batch: int = 0, position: None = None) -> Iterator[float]:
        for number in range(first_batch, 100):
            if number == self.number and self.fails:
                raise KeyError
            if number == self.number:
                signal.raise_signal(self.received)
            yield float(number)


def lines(run: Path) -> list[dict]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in read]


def settings(**values: int):
    pairs = [text for key, value in values.items() for text in (f"TRAIN.{key}", str(value))]
    return load_config(None, ["TRAIN.STEPS", "8", "TRAIN.IMAGE_EVERY", "0", *pairs]).TRAIN


def score(done: int, model: torch.nn.Module) -> dict[str, float]:
    return {"sum": model.bias.item()}


def line(done: int, total: float) -> dict:
    return {"step": done, "phase": "train", "total": total, "skipped_steps": 0, "learning_rate": done - 1.0}


EVERY_FOUR = [line(4, 1.5), line(8, 5.5)]  # the means of 0 to 3 and of 4 to 7


@pytest.mark.parametrize(("received", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_stop_between_two_log_lines_leaves_no_trace_in_the_log(tmp_path, received, code):
    chosen = settings(LOG_EVERY=4)
    with pytest.raises(Interrupted, match="stopped after step 6 of 8; its checkpoint is saved") as stopped:
        train(Summing(), Numbers(5, received), chosen, tmp_path)
    assert stopped.value.exit_code == code
    (kept,) = checkpoints(tmp_path / "checkpoints")
    assert read_facts(kept)["unlogged"]["rows"] == [[4.0], [5.0]]
    assert lines(tmp_path) == EVERY_FOUR[:1]
    model = train(Summing(), Numbers(), chosen, tmp_path, resume_from=kept)
    assert lines(tmp_path) == EVERY_FOUR and model.bias.item() == sum(range(8))


def test_an_evaluation_is_cut_short_and_made_when_the_run_goes_on(tmp_path):
    def cut(done: int, model: torch.nn.Module) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal did not end the evaluation")

    chosen = settings(LOG_EVERY=4, EVAL_EVERY=3)
    trainer = Summing()
    with pytest.raises(Interrupted, match="after step 3 of 8"):
        train(trainer, Numbers(), chosen, tmp_path, evaluate=cut)
    assert trainer.model.training
    (kept,) = checkpoints(tmp_path / "checkpoints")
    assert not (tmp_path / "metrics.jsonl").exists()
    with pytest.raises(KeyError):  # evaluated, then killed before the next checkpoint
        train(Summing(), Numbers(3, fails=True), chosen, tmp_path, kept, score)
    assert [each["phase"] for each in lines(tmp_path)] == ["eval"]
    train(Summing(), Numbers(), chosen, tmp_path, kept, score)
    scores = [{"step": done, "phase": "eval", "sum": total} for done, total in ((3, 3.0), (6, 15.0))]
    assert lines(tmp_path) == [scores[0], EVERY_FOUR[0], scores[1], EVERY_FOUR[1]]


def test_a_checkpoint_appears_after_the_scores_of_its_step(tmp_path):
    """So that a kill in the evaluation does not lose them: the run goes on before it."""

    def fail(done: int, model: torch.nn.Module) -> dict[str, float]:
        raise MemoryError

    chosen = settings(LOG_EVERY=2, EVAL_EVERY=4, CHECKPOINT_EVERY=2)
    with pytest.raises(MemoryError):
        train(Summing(), Numbers(), chosen, tmp_path / "failed", evaluate=fail)
    (kept,) = checkpoints(tmp_path / "failed" / "checkpoints")
    assert kept.name == "step_2" and [each["step"] for each in lines(tmp_path / "failed")] == [2, 4]
    train(Summing(), Numbers(), chosen, tmp_path / "failed", kept, score)
    train(Summing(), Numbers(), chosen, tmp_path / "straight", None, score)
    assert lines(tmp_path / "failed") == lines(tmp_path / "straight")


def test_a_signal_with_the_last_step_stops_before_the_last_evaluation(tmp_path):
    with pytest.raises(Interrupted, match="after step 8 of 8"):
        train(Summing(), Numbers(7), settings(), tmp_path)
    (kept,) = checkpoints(tmp_path / "checkpoints")
    assert train(Summing(), Numbers(), settings(), tmp_path, kept).bias.item() == sum(range(8))


@pytest.fixture
def heeds_ctrl_c():
    """As in a terminal: a background job inherits that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_sigterm_may_come_twice_and_a_second_ctrl_c_acts_at_once():
    with InterruptHandler() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested and interrupt.error("").exit_code == 0
    with InterruptHandler() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested and interrupt.error("").exit_code == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class SignalledWhileAsking:
    """Stands for two processes of which this one gets SIGTERM while they compare their flags."""

    num_processes, device = 2, torch.device("cpu")

    def reduce(self, flags: torch.Tensor) -> torch.Tensor:
        sent = flags.clone()
        os.kill(os.getpid(), signal.SIGTERM)
        return sent


def test_a_signal_while_the_processes_ask_each_other_counts_the_next_time():
    with InterruptHandler() as interrupt:
        asking = SignalledWhileAsking()
        assert not interrupt.requested_anywhere(asking)  # the other process has not heard of it
        assert interrupt.requested_anywhere(asking) and interrupt.error("").exit_code == 0


def test_outside_the_loop_sigterm_stops_a_command_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped, sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.exit_code == 0 and signal.getsignal(signal.SIGTERM) is before


class Identified(Noise):
    """Items with the process that made them."""

    def __getitem__(self, key):
        return os.getpid()


def test_a_loader_worker_obeys_only_its_parents_sigterm():
    keys = [[(0, number)] for number in range(200)]
    loader = DataLoader(Identified(), batch_sampler=keys, num_workers=1, worker_init_fn=quiet_worker)
    batches = readable(loader)
    worker = int(next(batches))
    subprocess.run(["kill", "-TERM", str(worker)], check=True)
    subprocess.run(["kill", "-INT", str(worker)], check=True)
    assert [int(batch) for batch in batches] == [worker] * 199

    iterator = iter(DataLoader(Identified(), batch_sampler=keys, num_workers=1, worker_init_fn=quiet_worker))
    process_id = int(next(iterator))
    (process,) = [each for each in multiprocessing.active_children() if each.pid == process_id]
    os.kill(process_id, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 0
