"""Every setting with its default and meaning; recipes and `KEY VALUE` pairs override them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yacs.config import CfgNode as CN

from fasthamer.recipes import find_recipe, flatten, named_mix, with_bases
from fasthamer.setting_values import as_type_of

_C = CN()
_C.SEED = 0  # of everything random: weights, data order, augmentation
_C.DEVICE = "auto"  # auto = cuda, then mps, then cpu; or a torch device
_C.IMAGE_SIZE = 256  # pixels; the side of the square crops that datasets yield

_C.HAND = CN()
_C.HAND.MODEL = "auto"  # auto = HaMeR's own with it as teacher, else embedded; or a path: MANO_RIGHT.pkl, .npz
_C.HAND.LEFT = ""  # MANO_LEFT.pkl, for the meshes of DexYCB's left hands; empty = the right hand mirrored

_C.DATA = CN()
_C.DATA.NAME = "auto"  # auto = freihand if ROOT is set, else synthetic
_C.DATA.ROOT = ""  # the dataset's folder
_C.DATA.SPLIT = "training"  # what to train on; the names that each set knows are in docs/datasets.md
_C.DATA.EVAL_SPLIT = "evaluation"  # what to evaluate on
_C.DATA.EVAL_NAME = ""  # the set to evaluate on; empty = NAME, or synthetic where that is for training only
_C.DATA.EVAL_ROOT = ""  # its folder
_C.DATA.MIX = []  # the sets of NAME mix, see configs/data/hamer_mix.yaml; NAME may also be such a file
_C.DATA.BOX = "keypoints"  # crop around the labelled joints; detector; image: all of it; or HaMeR's list, ho3d_val.npz
_C.DATA.BOX_SHAPE = "auto"  # hamer: 3:4; square; upright: square, turned; auto = as the scored model, INIT or teacher
_C.DATA.BLUR = False  # blur images before they shrink by more than 2.2 times, as HaMeR's demo; its evaluation does not
_C.DATA.INDEX = "auto"  # folder for the indexes of large sets; auto = the user's cache folder, none = none are kept
_C.DATA.LABELLED = 1.0  # fraction of the training images whose labels are kept (chosen by index and seed)
_C.DATA.WORKERS = 2  # loader processes
_C.DATA.FAULTS = 0.05  # largest share of samples that may be unreadable; more stop a training or evaluation
_C.DATA.SYNTHETIC_SIZE = 100000  # images in the synthetic training set
_C.DATA.SYNTHETIC_FOLDER = ""  # where synthetic images are kept once drawn; empty = they are drawn at every use
_C.DATA.SYNTHETIC_EVAL_SIZE = 512  # images in the synthetic evaluation set
_C.DATA.MIX_SYNTHETIC = 0.0  # fraction of each epoch drawn from synthetic hands when DATA.NAME is another set
_C.DATA.MIX_SPLIT = "hard"  # of these: hard, life, gestures or varied

_C.AUGMENT = CN()  # HaMeR's training augmentation
_C.AUGMENT.SCALE = 0.3  # the crop grows or shrinks by up to this fraction
_C.AUGMENT.ROTATION = 30.0  # degrees, standard deviation, clipped at twice this
_C.AUGMENT.ROTATION_PROBABILITY = 0.6  # share of images that are rotated
_C.AUGMENT.SHIFT = 0.02  # of the crop's width, standard deviation, clipped at once this
_C.AUGMENT.COLOUR = 0.2  # each channel is multiplied by 1 +- this

_C.STUDENT = CN()
_C.STUDENT.NAME = "mobilenetv3_l"  # see `tools/distill.py --list`; or timm:<name>; or fast_hamer:<name>
_C.STUDENT.DECODER = "mano"  # mano: HaMeR's head with positions; hamer: without; flat: two layers; token: TokenHand's
_C.STUDENT.DECODER_SIZE = "full"  # full (HaMeR's own), full_mlp768, full_mlp512, medium, small or tiny
_C.STUDENT.IMAGE_SIZE = 256  # pixels; crops are resized to it
_C.STUDENT.VIEW = 1.0  # the middle share of the crop's side that the student looks at
_C.STUDENT.FREEZE = 0  # stages of the backbone, from the first, that keep their weights and batch statistics
_C.STUDENT.CACHE = ""  # folder of the frozen stages' maps of fixed crops (TEACHER.CACHE_VIEWS); empty = none
_C.STUDENT.PRETRAINED = True  # ImageNet weights for the backbone, where timm can load them
_C.STUDENT.BACKBONE_FILE = ""  # instead: weights, a student (file or shipped name), `shipped`, `torchvision`
_C.STUDENT.INIT = ""  # a student.safetensors, shipped name or Fast-HaMeR's .ckpt to start from
_C.STUDENT.TOKENIZER = "auto"  # of the decoder token: a tokenizer.safetensors; auto = the embedded hand's, shipped
_C.STUDENT.GENERATOR = "upsampled"  # where it reads tokens: global, map, upsampled (TokenHand's A, 7x7, D)

_C.TOKENIZER = CN()  # what tools/train_tokenizer.py makes: encoder, codebook, mesh decoder
_C.TOKENIZER.FRAME = "palm"  # palm: tokens of the hand turned upright, its rotation apart; camera: as it is seen
_C.TOKENIZER.TOKENS = [48, 97, 194, 389]  # in each layer of the mesh decoder; the first is M
_C.TOKENIZER.WIDTHS = [256, 128, 64, 32]  # channels in each layer
_C.TOKENIZER.BLOCKS = 1  # MetaFormer blocks in each layer
_C.TOKENIZER.CODES = 512  # K
_C.TOKENIZER.CODE_WIDTH = 512  # D
_C.TOKENIZER.POINTS = [194]  # points that the encoder's poolings leave before the last, which leaves M
_C.TOKENIZER.POINT_WIDTHS = [32, 128]  # channels after each pooling
_C.TOKENIZER.NEIGHBOURS = 8  # that a point looks at
_C.TOKENIZER.ENCODER_BLOCKS = 1  # MetaFormer blocks among the M tokens
_C.TOKENIZER.DECAY = 0.99  # of the codebook's moving averages, a step
_C.TOKENIZER.RESET_BELOW = 0.1  # codes chosen less often than this share of the average are moved; 0 = never
_C.TOKENIZER.RECONSTRUCTION = 10.0  # weight of L1, decimetres
_C.TOKENIZER.COMMITMENT = 0.25  # weight of the tokens' squared distance from their codes
_C.TOKENIZER.POSES = "sampled"  # sampled: the procedural hand's gestures; data: of DATA.*'s labels; or an .npz
_C.TOKENIZER.HANDS = 40000  # sampled poses
_C.TOKENIZER.HELD_OUT = 1024  # poses to score on, at most a tenth

_C.TEACHER = CN()
_C.TEACHER.NAME = "auto"  # auto = hamer if configured, else embedded; hamer, wilor, a student's file; several: a+b
_C.TEACHER.CHECKPOINT = ""  # hamer.ckpt or wilor_final.ckpt; or set FASTHAMER_HAMER_CKPT, FASTHAMER_WILOR_CKPT
_C.TEACHER.PRECISION = "auto"  # fp32, bf16; auto = bf16 on cuda, else fp32
_C.TEACHER.COMPILE = False  # torch.compile its backbone
_C.TEACHER.CACHE = ""  # folder of the teacher's answers, filled where incomplete; empty = it is asked at every step
_C.TEACHER.CACHE_CHANNELS = 0  # principal components kept of its features; 0 = all channels
_C.TEACHER.CACHE_VIEWS = 0  # 0: one answer an image, moved with augmentation; K: K fixed crops of each, as answered

_C.LOSS = CN()  # ground-truth terms: HaMeR's weights, written for sums over a batch of 8
_C.LOSS.KEYPOINTS_2D = 0.01  # L1, crop units
_C.LOSS.JOINTS = 0.05  # L1, metres, relative to the wrist
_C.LOSS.VERTICES = 0.0  # L1, metres, relative to the wrist; HaMeR has none
_C.LOSS.GLOBAL_ORIENT = 0.001  # squared error of the rotation matrix
_C.LOSS.HAND_POSE = 0.001  # squared error of the rotation matrices
_C.LOSS.BETAS = 0.0005  # squared error
_C.LOSS.TOKENS = 0.125  # cross entropy, a mean over tokens; this and the next two for the decoder token only
_C.LOSS.TOKEN_SOFT = 0.0  # divergence from soft labels: the tokenizer's distances to all codes
_C.LOSS.TOKEN_RELATIONS = 0.0  # DIST: correlations with the soft labels
_C.LOSS.ADVERSARIAL = 0.0  # HaMeR's pose prior: 0.0005 in its recipe; 0 = no discriminator
_C.LOSS.MOCAP = ""  # .npz of real hand_pose (N, 48) and betas (N, 10) for the prior; empty = the hand's own sampler

_C.KD = CN()  # docs/study.md: MODE, DIRECTION, FEATURES and SCHEDULE won, WEIGHT is amid equals
_C.KD.MODE = "hybrid"  # none, output, feature or hybrid
_C.KD.WEIGHT = 1.0  # w_kd: multiplies all terms below; Fast-HaMeR has 0.3
_C.KD.KEYPOINTS_2D = 0.01  # output KD, as in LOSS
_C.KD.JOINTS = 0.05
_C.KD.VERTICES = 0.0
_C.KD.GLOBAL_ORIENT = 0.001
_C.KD.HAND_POSE = 0.001
_C.KD.BETAS = 0.0005
_C.KD.TOKENS = 0.125  # the teacher's mesh in tokens, as in LOSS; as good as soft ones or both: docs/study.md
_C.KD.TOKEN_SOFT = 0.125
_C.KD.TOKEN_RELATIONS = 0.0
_C.KD.TEMPERATURE = 0.1  # of soft labels of tokens: softmax(-d^2 / (D T)) over the codes, also in LOSS
_C.KD.SCHEDULE = "constant"  # of KD.WEIGHT: constant, or linear: falls to 0 at the end (DWPose)
_C.KD.GATE = 0.0  # crop units; the teacher is not believed where its keypoints are farther from the labels; 0 = always
_C.KD.FEATURES = 20.0  # feature KD; the least on the plateau; Fast-HaMeR has 6, times its w_kd 0.3
_C.KD.FEATURE_LOSS = "mse"  # mse, pkd, cwd or vkd: see docs/distillation.md
_C.KD.DIRECTION = "student_to_teacher"  # which map the 1x1 projection moves; or teacher_to_student, the paper's
_C.KD.ALIGNMENT = "exact"  # exact: compare the same places of the crop; stretch: the paper's
_C.KD.LAYER = "last"  # the student's layers compared: last, or names of timm's feature_info: blocks.4,last

_C.TRAIN = CN()
_C.TRAIN.STEPS = 0  # optimizer steps; 0 = as many as fit into about 20 hours, found by timing a few
_C.TRAIN.BATCH = 8  # images per step and process
_C.TRAIN.ACCUMULATE = 1  # batches per optimizer step
_C.TRAIN.LR = 1e-5  # AdamW; after the warm-up
_C.TRAIN.WEIGHT_DECAY = 1e-4  # AdamW
_C.TRAIN.SCHEDULE = "constant"  # constant or cosine, after the warm-up
_C.TRAIN.WARMUP = 0  # steps of linear warm-up
_C.TRAIN.CLIP = 1.0  # largest gradient norm; 0 = no clipping
_C.TRAIN.SKIPS = 20  # steps in a row that are skipped, as loss or gradient are not finite, before training stops
_C.TRAIN.EMA = 0.0  # decay of the averaged student that is evaluated and saved; 0 = none
_C.TRAIN.THREADS = 0  # of torch on a CPU; 0 = torch's choice, at most one a core. Fewer leave cores to loaders
_C.TRAIN.PRECISION = "auto"  # fp32, fp16, bf16; auto = fp16 on cuda, else fp32
_C.TRAIN.CHANNELS_LAST = True  # memory layout of the networks' images and maps
_C.TRAIN.COMPILE = False  # torch.compile the student's backbone
_C.TRAIN.LOG_EVERY = 20  # steps
_C.TRAIN.EVAL_EVERY = 0  # steps; 0 = at the end only
_C.TRAIN.IMAGE_EVERY = 1000  # steps; 0 = none
_C.TRAIN.CHECKPOINT_EVERY = 1000  # steps; the last one is always kept
_C.TRAIN.KEEP = 2  # checkpoints kept, the newest
_C.TRAIN.BEST = ""  # score, such as pa_mpjpe_mm, whose best model of all evaluations is kept too; empty = none

_C.EVAL = CN()
_C.EVAL.PROTOCOL = "auto"  # auto = the dataset's own
_C.EVAL.BATCH = 32  # images at a time


RENAMED = {"TRAIN.PICTURE_EVERY": "TRAIN.IMAGE_EVERY"}  # keys of older recipes and runs, still read


def defaults() -> CN:
    """A fresh, unfrozen copy of every default."""
    return _C.clone()


def load_config(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> CN:
    """The defaults, then a recipe, then `KEY VALUE` pairs; frozen.

    Args:
        recipe: a YAML file, or the name of a shipped one such as `quickstart` or `paper/fast_hamer`; its key BASE
            names another recipe, which is applied before it.
        overrides: alternating keys and values, as typed on the command line. A value is read by the type of its key's
            default: text keys keep it as typed, so that a folder may be called `007`, `yes` or `my data #2`.

    Raises:
        FileNotFoundError: no such recipe.
        ValueError: unknown key or wrong type, naming the nearest valid key.
    """
    config = defaults()
    if recipe is not None:
        for path, settings in with_bases(find_recipe(recipe)):
            _merge(config, flatten(settings), str(path))
    if len(overrides) % 2:
        raise ValueError(f"overrides come in pairs KEY VALUE; {overrides[-1]!r} has no value")
    pairs = zip(overrides[::2], overrides[1::2], strict=True)
    _merge(config, pairs, "command line")
    _merge(config, named_mix(config.DATA.NAME).items(), config.DATA.NAME)
    config.freeze()
    return config


def replaced(config: CN, values: Mapping[str, object]) -> CN:
    """A frozen copy with other values; `config` itself does not change.

    Args:
        config: a resolved config.
        values: by key, such as `{"KD.MODE": "output"}`.

    Raises:
        ValueError: unknown key or wrong type, naming the nearest valid key.
    """
    other = config.clone()
    other.defrost()
    _merge(other, values.items(), "replaced")
    other.freeze()
    return other


def differing(one: CN, other: CN) -> dict[str, object]:
    """The keys whose values differ, with what they are in `other`."""
    before = dict(flatten(one))
    return {key: value for key, value in flatten(other) if before[key] != value}


def _merge(config: CN, items: Iterable[tuple[str, object]], source: str) -> None:
    known = dict(flatten(config))
    for key, value in items:
        key = RENAMED.get(key, key)
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{source}: unknown key {key}{hint}")
        *sections, name = key.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[name] = as_type_of(known[key], value, key, source)
