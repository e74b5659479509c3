"""The training loss: ground-truth terms plus distillation terms, reduced so that the papers' weights hold."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from yacs.config import CfgNode

from fasthamer.distill.alignment import ALIGNMENTS
from fasthamer.distill.feature_losses import FEATURE_LOSSES, same_shape
from fasthamer.distill.learner import DIRECTIONS, LearnerOutput
from fasthamer.distill.losses import (
    agreeing,
    points_l1,
    rooted_l1,
    squared_error,
    token_cross_entropy,
    token_divergence,
    token_relations,
)
from fasthamer.distill.token_targets import TokenTargetEncoder
from fasthamer.registry import unknown
from fasthamer.types import Batch, HandOutput

REFERENCE_BATCH = 8  # the papers' weights multiply sums over this many samples
MODES = ("none", "output", "feature", "hybrid")
SCHEDULES = ("constant", "linear")
CHOICES = {  # setting of KD: what it chooses, and among which names
    "MODE": ("distillation mode", MODES),
    "FEATURE_LOSS": ("feature loss", FEATURE_LOSSES),
    "SCHEDULE": ("schedule of distillation", SCHEDULES),
    "DIRECTION": ("direction", DIRECTIONS),
    "ALIGNMENT": ("alignment", ALIGNMENTS),
}


class Weights(NamedTuple):
    """The weight of each loss term; 0 leaves the term out."""

    keypoints_2d: float
    joints: float
    vertices: float
    global_orient: float
    hand_pose: float
    betas: float
    tokens: float  # this and the next two for token decoders only
    token_soft: float
    token_relations: float

    @classmethod
    def of(cls, node: CfgNode) -> Weights:
        """The weights of a config section, LOSS or KD."""
        return cls(*(getattr(node, name.upper()) for name in cls._fields))


class Objective(NamedTuple):
    """`objective(output, batch, teacher)` gives every weighted term and their `total`.

    HaMeR and Fast-HaMeR sum each term over a batch of 8, except the feature term, which is a mean over the batch. Here
    every term is a mean over the batch, times 8 where they sum: equal to theirs at a batch of 8, and with the same
    balance between terms at any other.
    """

    labels: Weights
    outputs: Weights | None  # output distillation, w_kd included
    features: float  # feature distillation, w_kd included; 0 = off
    feature_loss: str = "mse"  # of `FEATURE_LOSSES`
    schedule: str = "constant"  # of the weight of all of the teacher's terms
    gate: float = 0.0  # crop units, see `agreeing`; 0 = every sample learns from the teacher
    token_targets: TokenTargetEncoder | None = None  # of a student that predicts tokens

    @property
    def has_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return self.outputs is not None or self.features > 0

    @classmethod
    def of(cls, cfg: CfgNode) -> Objective:
        """From a config, without the token targets: these need the tokenizer.

        Raises:
            KeyError: a setting of `CHOICES` has no such value, used by this mode or not.
            ValueError: the feature loss needs the other direction; a negative gate.
        """
        for key, (kind, names) in CHOICES.items():
            if cfg.KD[key] not in names:
                raise KeyError(unknown(kind, cfg.KD[key], names))
        if cfg.KD.FEATURE_LOSS == "vkd" and cfg.KD.DIRECTION != "student_to_teacher":
            raise ValueError("KD.FEATURE_LOSS vkd projects the student's map: set KD.DIRECTION student_to_teacher")
        if cfg.KD.GATE < 0:
            raise ValueError(f"KD.GATE is {cfg.KD.GATE}: it is a distance in crop units, or 0 for none")
        outputs = Weights(*(cfg.KD.WEIGHT * weight for weight in Weights.of(cfg.KD)))
        return cls(
            labels=Weights.of(cfg.LOSS),
            outputs=outputs if cfg.KD.MODE in ("output", "hybrid") else None,
            features=cfg.KD.WEIGHT * cfg.KD.FEATURES if cfg.KD.MODE in ("feature", "hybrid") else 0.0,
            feature_loss=cfg.KD.FEATURE_LOSS,
            schedule=cfg.KD.SCHEDULE,
            gate=cfg.KD.GATE,
        )

    def teacher_share(self, step: int, steps: int) -> float:
        """The factor of the teacher's terms in a step: 1, or falling linearly (DWPose, Yang et al. 2023, eq. 6).

        Args:
            step: from 0.
            steps: of the run.
        """
        return 1.0 if self.schedule == "constant" else 1 - step / steps

    def __call__(
        self, output: LearnerOutput, batch: Batch, teacher: HandOutput | None, share: float = 1.0
    ) -> dict[str, Tensor]:
        """
        Args:
            output: the learner's output.
            batch: the labels; a missing one has confidence or flag 0.
            teacher: its output on the same images; None only without distillation.
            share: see `teacher_share`.

        Returns:
            Scalars by name: the terms, weighted and reduced, and `total`, their sum.
        """
        terms = _label_terms(output.hand, batch)
        terms |= self._token_terms(output.hand, batch.vertices, self.labels, batch.has_vertices)
        samples = _weighted(terms, self.labels)
        trust: Tensor | float = share
        if self.gate and teacher is not None:
            trust = share * agreeing(teacher.keypoints_2d, batch.keypoints_2d, self.gate)
        if self.outputs is not None:
            assert teacher is not None
            terms = _teacher_terms(output.hand, teacher)
            terms |= self._token_terms(output.hand, teacher.vertices, self.outputs)
            samples |= {f"kd_{name}": trust * term for name, term in _weighted(terms, self.outputs).items()}
        reduced = {name: REFERENCE_BATCH * term.mean() for name, term in samples.items()}
        if self.features:
            assert output.student_map is not None and output.teacher_map is not None
            same_shape(output.student_map, output.teacher_map)
            term = FEATURE_LOSSES[self.feature_loss](output.student_map, output.teacher_map)
            reduced["kd_features"] = self.features * (trust * term).mean()
        return reduced | {"total": sum(reduced.values(), start=output.hand.joints.new_zeros(()))}

    def _token_terms(
        self, hand: HandOutput, vertices: Tensor, weights: Weights, present: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Those with a weight, 0 where no mesh is present. Only what is used is encoded, a large part of a step."""
        used = {name for name in ("tokens", "token_soft", "token_relations") if getattr(weights, name)}
        if self.token_targets is None or hand.logits is None or not used:
            return {}
        rows = slice(None) if present is None else present.nonzero(as_tuple=True)[0]
        logits, target = hand.logits[rows], self.token_targets(vertices[rows])
        terms = {}
        if "tokens" in used:
            finite = 0 * target.soft.sum((1, 2))  # NaN for a mesh that is not: its nearest codes do not show it
            terms["tokens"] = token_cross_entropy(logits, target.labels) + finite
        if "token_soft" in used:
            terms["token_soft"] = token_divergence(logits, target.soft)
        if "token_relations" in used:
            terms["token_relations"] = token_relations(logits, target.soft)
        return {name: _at(rows, term, len(vertices)) for name, term in terms.items()}


def _label_terms(hand: HandOutput, batch: Batch) -> dict[str, Tensor]:
    joints, confidence = batch.joints[..., :3], batch.joints[..., 3]
    roots = hand.joints[:, 0], joints[:, 0]
    has_root = (confidence[:, 0] > 0).to(confidence.dtype)  # (B,) an unknown wrist cannot anchor the others
    terms = {
        "keypoints_2d": points_l1(hand.keypoints_2d, batch.keypoints_2d[..., :2], batch.keypoints_2d[..., 2]),
        "joints": rooted_l1(hand.joints, joints, roots, confidence * has_root[:, None]),
        "vertices": rooted_l1(hand.vertices, batch.vertices, roots) * batch.has_vertices * has_root,
    }
    if hand.mano is not None:
        terms |= {
            "global_orient": squared_error(hand.mano.global_orient, batch.global_orient, batch.has_pose),
            "hand_pose": squared_error(hand.mano.hand_pose, batch.hand_pose, batch.has_pose),
            "betas": squared_error(hand.mano.betas, batch.betas, batch.has_betas),
        }
    return terms


def _teacher_terms(hand: HandOutput, teacher: HandOutput) -> dict[str, Tensor]:
    roots = hand.joints[:, 0], teacher.joints[:, 0]
    terms = {
        "keypoints_2d": points_l1(hand.keypoints_2d, teacher.keypoints_2d),
        "joints": rooted_l1(hand.joints, teacher.joints, roots),
        "vertices": rooted_l1(hand.vertices, teacher.vertices, roots),
    }
    if hand.mano is not None and teacher.mano is not None:
        names = ("global_orient", "hand_pose", "betas")
        terms |= {name: squared_error(getattr(hand.mano, name), getattr(teacher.mano, name)) for name in names}
    return terms


def _weighted(terms: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    used = {name: weight for name, weight in weights._asdict().items() if weight and name in terms}
    return {name: weight * terms[name] for name, weight in used.items()}


def _at(rows: Tensor | slice, term: Tensor, samples: int) -> Tensor:
    """A term of some samples as one of all: (R,) to (B,), 0 for the others."""
    spread = term.new_zeros(samples)
    spread[rows] = term
    return spread
