"""The student that a run begins with."""

from __future__ import annotations

import torch
from yacs.config import CfgNode

from fasthamer.hand.mano import Hand
from fasthamer.students import Student, build_student, load_student
from fasthamer.students.shipped import student_file
from fasthamer.students.tokenhand.tokenizer import Tokenizer


def new_student(cfg: CfgNode, hand: Hand, tokenizer: Tokenizer | None) -> Student:
    """Builds the student of a config, fills it with the weights of STUDENT.INIT, and freezes STUDENT.FREEZE stages.

    Args:
        cfg: the resolved config.
        hand: the hand model.
        tokenizer: of decoder token, else None.

    Raises:
        ValueError, KeyError, FileNotFoundError: something the user named is missing or unfit; one line says what.
    """
    student = build_student(
        cfg.STUDENT.NAME,
        cfg.STUDENT.DECODER,
        cfg.STUDENT.DECODER_SIZE,
        cfg.STUDENT.IMAGE_SIZE,
        view=cfg.STUDENT.VIEW,
        pretrained=cfg.STUDENT.PRETRAINED and not cfg.STUDENT.INIT,
        hand=hand,
        feature_layer=cfg.KD.LAYER,
        backbone_file=cfg.STUDENT.BACKBONE_FILE or None,
        tokenizer=tokenizer,
        generator=cfg.STUDENT.GENERATOR,
        box_shape=cfg.DATA.BOX_SHAPE,
    )
    if student.spec["decoder"] == "token" and cfg.LOSS.ADVERSARIAL:
        raise ValueError("LOSS.ADVERSARIAL needs MANO parameters, which decoder token does not predict: set it to 0")
    if cfg.STUDENT.INIT:
        _start_from(cfg.STUDENT.INIT, student, hand, tokenizer)
    student.backbone.freeze(cfg.STUDENT.FREEZE)
    frozen = student.backbone.frozen_stages
    if cfg.KD.MODE in ("feature", "hybrid") and min(student.backbone.tapped) < frozen:
        raise ValueError(
            f"KD.MODE {cfg.KD.MODE} teaches layer {cfg.KD.LAYER}, and STUDENT.FREEZE {frozen} keeps it as it is: "
            "use KD.MODE output, or freeze less"
        )
    return student


def _start_from(init: str, student: Student, hand: Hand, tokenizer: Tokenizer | None) -> None:
    """Fills a student with the weights of STUDENT.INIT; raises ValueError if they do not fit it."""
    before = load_student(student_file(init), hand)
    had, has = before.spec, student.spec
    for key in ("name", "decoder", "decoder_size", "tokenizer", "generator"):
        if had.get(key) != has.get(key):
            raise ValueError(
                f"{init} holds a student whose {key} is {had.get(key)!r}; this run has {has.get(key)!r}. It needs "
                f"STUDENT.NAME {had['name']}, STUDENT.DECODER {had['decoder']}, "
                f"STUDENT.DECODER_SIZE {had['decoder_size']}"
            )
    # Half precision, in which a student may be stored, moves codes by less than this.
    if tokenizer and not torch.allclose(before.decoder.codes, tokenizer.codebook.codes, atol=0.01):  # type: ignore[arg-type, union-attr]
        raise ValueError(f"{init} predicts tokens of another tokenizer: give its own (--tokenizer)")
    weights = before.state_dict()
    if any(weights[name].shape != value.shape for name, value in student.state_dict().items()):
        raise ValueError(
            f"{init} holds a student for images of {had['image_size']} pixels, whose decoder does not fit "
            f"{has['image_size']}: it needs STUDENT.IMAGE_SIZE {had['image_size']}"
        )
    student.load_state_dict(weights)
