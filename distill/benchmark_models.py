"""Models by name for a speed comparison, where random weights are as good as trained ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from fasthamer.benchmark.run import BenchmarkModel
from fasthamer.config import defaults
from fasthamer.hand.mano import load_hand
from fasthamer.nn.mano_head import SIZES
from fasthamer.predict import open_model
from fasthamer.registry import unknown
from fasthamer.students import STUDENTS, Student, build_student
from fasthamer.students.fast_hamer import PREFIX
from fasthamer.students.tokenhand.tokenizer import Tokenizer, spec_of
from fasthamer.students.zoo import DECODERS
from fasthamer.teachers import TEACHERS, Teacher, random_hamer, random_wilor
from fasthamer.teachers.zoo import checkpoint_of

RANDOM_TEACHERS = {"hamer": random_hamer, "wilor": random_wilor}  # without a checkpoint
ALL_STUDENTS = "all-students"


class BenchmarkRequest(NamedTuple):
    """The models to time, as the user names them."""

    names: Sequence[str]  # hamer, wilor, embedded, a student's file, a run directory, a student's name, or ALL_STUDENTS
    decoders: Sequence[str] = ("mano",)  # of students given by name
    decoder_sizes: Sequence[str] = ("full",)  # the decoder token has this one only
    hand: str | None = None  # embedded or a MANO file; None is each model's own
    checkpoint: str = ""  # hamer.ckpt or wilor_final.ckpt; without one the teacher has random weights


def benchmark_models(request: BenchmarkRequest, device: torch.device) -> tuple[list[BenchmarkModel], str]:
    """The models, none of them built yet, and the name of the one to compare with: the first teacher, else the first.

    Raises:
        KeyError, ValueError, FileNotFoundError: no such model, twice the same, or none.
    """
    names = [each for name in request.names for each in (STUDENTS if name == ALL_STUDENTS else [name])]
    if not names:
        raise ValueError("no model to time: --models takes names separated by commas")
    if len(set(names)) != len(names):
        raise ValueError(f"--models names one twice: {', '.join(names)}")
    for kind, asked, known in (
        ("decoder", request.decoders, DECODERS),
        ("decoder size", request.decoder_sizes, SIZES),
    ):
        for name in asked:
            if name not in known:
                raise KeyError(unknown(kind, name, known))
    found = [model for name in names for model in _named(name, request, device)]
    return found, next((name for name in names if name in TEACHERS), names[0])


def _named(name: str, request: BenchmarkRequest, device: torch.device) -> list[BenchmarkModel]:
    if name in STUDENTS or name.startswith(("timm:", PREFIX)):
        pairs = product(request.decoders, request.decoder_sizes)
        sizes = dict.fromkeys((decoder, "full" if decoder == "token" else size) for decoder, size in pairs)
        return [_random_student(name, decoder, size, request.hand, device) for decoder, size in sizes]
    if name in RANDOM_TEACHERS and not checkpoint_of(name, request.checkpoint):
        build = _on(device, lambda: RANDOM_TEACHERS[name](load_hand(request.hand or "embedded")))
        return [BenchmarkModel(name, _decoder_of(name), "random", build)]
    if name not in TEACHERS and not Path(name).exists():
        known = [*TEACHERS, *STUDENTS, ALL_STUDENTS]
        raise KeyError(unknown("model", name, known) + "; timm:<name>, a student's file or a run's folder")
    model = open_model(name, request.hand, request.checkpoint)  # now: a bad file is reported before anything is timed
    model = model.model if isinstance(model, Teacher) else model  # without its fixed precision
    decoder = (
        f"{model.spec['decoder']} {model.spec['decoder_size']}" if isinstance(model, Student) else _decoder_of(name)
    )
    return [BenchmarkModel(name, decoder, "trained", _on(device, lambda: model))]


def _decoder_of(teacher: str) -> str:
    return "refinement" if teacher == "wilor" else "mano full"


def _random_student(name: str, decoder: str, size: str, hand: str | None, device: torch.device) -> BenchmarkModel:
    def build() -> nn.Module:
        its_hand = load_hand(hand or "embedded")
        tokenizer = Tokenizer(spec_of(defaults().TOKENIZER), its_hand) if decoder == "token" else None
        return build_student(name, decoder, size, hand=its_hand, tokenizer=tokenizer)

    return BenchmarkModel(name, f"{decoder} {size}", "random", _on(device, build))


def _on(device: torch.device, build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: build().to(device).eval().requires_grad_(False)
