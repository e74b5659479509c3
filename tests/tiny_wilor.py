"""A small WiLoR, its weights under the published names, a checkpoint of them, and its function written out plainly."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from fasthamer.hand.mano import Hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.teachers.vit import TokenViT
from fasthamer.teachers.wilor import RefiningDecoder, WiLoR
from fasthamer.teachers.wilor_checkpoint import published_shapes
from fasthamer.types import ManoParams

WIDTH, DEPTH, HEADS = 16, 2, 2


def tiny_wilor(hand: Hand) -> WiLoR:
    """16 wide instead of 1280, 2 blocks instead of 32; random weights."""
    return WiLoR(TokenViT(WIDTH, DEPTH, HEADS), RefiningDecoder(WIDTH), hand)


def published_state(model: WiLoR, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors with the published names and shapes; none is without effect."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes(model).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1000)
            continue
        value = 0.3 * torch.randn(shape, generator=generator)
        state[name] = value.abs() + 0.5 if name.endswith("running_var") else value
    state["backbone.init_cam"] = torch.tensor([[4.0, 0.01, -0.02]])
    for name in ("backbone.deccam.weight", "refine_net.dec_cam.weight"):
        state[name] *= 0.1  # the scale stays positive
    return state


def checkpoint(path: Path, state: dict[str, Tensor], mano: bool = True) -> Path:
    """A file with all that Lightning writes around WiLoR's weights, the hand model and the discriminator included."""
    beside = {"discriminator.D_conv1.weight": torch.zeros(32, 9, 1, 1), "initialized": torch.tensor(True)}
    if mano:
        hand = read_hand_arrays("embedded")
        buffers = {
            "v_template": hand["v_template"],
            "faces_tensor": hand["f"],
            "shapedirs": hand["shapedirs"],
            "posedirs": hand["posedirs"].reshape(-1, 135).T,
            "J_regressor": hand["J_regressor"],
            "lbs_weights": hand["weights"],
            "parents": hand["kintree_table"][0],
            "hand_mean": hand["hands_mean"],
            "hand_components": hand["hands_components"][:6],
        }
        for name, array in buffers.items():
            tensor = torch.from_numpy(np.ascontiguousarray(array))
            beside[f"mano.{name}"] = tensor.float() if tensor.is_floating_point() else tensor
    config = CfgNode({"MODEL": CfgNode({"IMAGE_SIZE": 256}), "EXTRA": None})
    content = {"epoch": 0, "state_dict": {**state, **beside}, "hyper_parameters": {"cfg": config}}
    torch.save(content, path)
    return path


def reference(state: dict[str, Tensor], image: Tensor, hand: Hand) -> dict[str, Tensor]:
    """WiLoR from the published state dict, a step at a time.

    Args:
        image: (B, 3, 256, 192), normalised.
    """
    t = {name.removeprefix("backbone."): value for name, value in state.items()}
    tokens = _tokens(t, image)
    number = len(image)

    pose = torch.stack([linear(tokens[:, i], t, "decpose") for i in range(16)], 1) + t["init_hand_pose"].view(1, 16, 6)
    betas = linear(tokens[:, 16], t, "decshape") + t["init_betas"]
    camera = linear(tokens[:, 17], t, "deccam") + t["init_cam"]
    features = torch.zeros(number, WIDTH, 16, 12)
    for index in range(192):
        features[:, :, index // 12, index % 12] = tokens[:, 18 + index]

    vertices, _ = hand(_mano(pose, betas))
    coarse = torch.einsum("bchw,oc->bohw", features, t["refine_net.deconv.first_conv.0.weight"][..., 0, 0])
    coarse = coarse + t["refine_net.deconv.first_conv.0.bias"][:, None, None]
    middle = _doubled(coarse, t, "refine_net.deconv.deconv.0", 0)
    fine = _doubled(_doubled(coarse, t, "refine_net.deconv.deconv.1", 0), t, "refine_net.deconv.deconv.1", 3)
    gathered = gathered_by_hand([fine, middle, coarse], vertices, camera)

    pose = pose + linear(gathered, t, "refine_net.dec_pose").view(number, 16, 6)
    betas = betas + linear(gathered, t, "refine_net.dec_shape")
    camera = camera + linear(gathered, t, "refine_net.dec_cam")
    vertices, joints = hand(_mano(pose, betas))
    return {"features": features, "vertices": vertices, "joints": joints, "camera": camera, "betas": betas}


def gathered_by_hand(maps: list[Tensor], vertices: Tensor, camera: Tensor) -> Tensor:
    """Bilinear samples of each map at each vertex, one by one; the largest of each channel."""
    rows = []
    for sample, (s, tx, ty) in enumerate(camera.tolist()):
        row = []
        for values in maps:
            height, width = values.shape[2:]
            depth = 2 * 5000 / (height * s + 1e-9)
            samples = []
            for x, y, z in vertices[sample].tolist():
                u, v = 5000 / height * (x + tx) / (z + depth), 5000 / height * (y + ty) / (z + depth)
                left, top = int(np.floor(u)), int(np.floor(v))
                total = torch.zeros(values.shape[1])
                for column, row_, share in (
                    (left, top, (left + 1 - u) * (top + 1 - v)),
                    (left + 1, top, (u - left) * (top + 1 - v)),
                    (left, top + 1, (left + 1 - u) * (v - top)),
                    (left + 1, top + 1, (u - left) * (v - top)),
                ):
                    if 0 <= column < width and 0 <= row_ < height:
                        total += share * values[sample, :, row_, column]
                samples.append(total)
            row.append(torch.stack(samples).amax(0))
        rows.append(torch.cat(row))
    return torch.stack(rows)


def _tokens(t: dict[str, Tensor], image: Tensor) -> Tensor:
    padded = torch.zeros(len(image), 3, 260, 196)
    padded[:, :, 2:-2, 2:-2] = image
    made = [linear(t["init_hand_pose"][0, 6 * i : 6 * i + 6], t, "pose_emb").expand(len(image), -1) for i in range(16)]
    made.append(linear(t["init_betas"][0], t, "shape_emb").expand(len(image), -1))
    made.append(linear(t["init_cam"][0], t, "cam_emb").expand(len(image), -1))
    for y in range(16):
        for x in range(12):
            patch = padded[:, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
            token = torch.einsum("bcij,ocij->bo", patch, t["patch_embed.proj.weight"]) + t["patch_embed.proj.bias"]
            made.append(token + t["pos_embed"][0, 12 * y + x + 1] + t["pos_embed"][0, 0])
    x = torch.stack(made, 1)  # (B, 210, WIDTH)
    for block in range(DEPTH):
        p = f"blocks.{block}."
        qkv = linear(_norm(x, t, p + "norm1"), t, p + "attn.qkv")
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, HEADS, -1).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        x = x + linear(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2), t, p + "attn.proj")
        y = linear(_norm(x, t, p + "norm2"), t, p + "mlp.fc1")
        x = x + linear(0.5 * y * (1 + torch.erf(y / 2**0.5)), t, p + "mlp.fc2")
    return _norm(x, t, "last_norm")


def linear(x: Tensor, t: dict[str, Tensor], name: str) -> Tensor:
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def _norm(x: Tensor, t: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * t[f"{name}.weight"] + t[f"{name}.bias"]


def _doubled(x: Tensor, t: dict[str, Tensor], name: str, index: int) -> Tensor:
    """Transposed convolution as a sum over the input's cells, batch norm, ReLU."""
    weight = t[f"{name}.{index}.weight"]  # (in, out, 4, 4)
    height, width = x.shape[2:]
    padded = torch.zeros(len(x), weight.shape[1], 2 * height + 2, 2 * width + 2)
    for row in range(height):
        for column in range(width):
            spread = torch.einsum("bc,cokl->bokl", x[:, :, row, column], weight)
            padded[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += spread
    out = padded[:, :, 1:-1, 1:-1]
    mean, var, scale, shift = (
        t[f"{name}.{index + 1}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return ((out - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)


def _mano(pose: Tensor, betas: Tensor) -> ManoParams:
    """(B, 16, 6) to rotation matrices: the first three numbers are the first column's direction."""
    first = pose[..., :3] / pose[..., :3].norm(dim=-1, keepdim=True)
    second = pose[..., 3:] - (pose[..., 3:] * first).sum(-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True)
    rotations = torch.stack((first, second, torch.linalg.cross(first, second)), -1)
    return ManoParams(rotations[:, :1], rotations[:, 1:], betas)
