"""Hands as files: JSON, NPZ and meshes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import replacing, write_bytes, write_text

if TYPE_CHECKING:
    import trimesh

MESHES = (".obj", ".ply", ".glb")
SUFFIXES = (".json", ".npz", *MESHES)
MEANING = {
    "frames": "x right, y down, z forward (away from the camera); the hand frame has the camera's axes and is centred "
    "on the hand; camera frame = hand frame + translation",
    "camera": "fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0)",
    "metric": "whether the focal length is the real camera's; otherwise only relative depths within a hand are metres",
    "right": "true for a right hand",
    "score": "the detector's probability of a hand; 1 for given boxes",
    "boxes": "x1, y1, x2, y2 in pixels of the image",
    "vertices": "778 x 3 metres, hand frame",
    "joints": "21 x 3 metres, hand frame; OpenPose order: wrist, thumb, index, middle, ring, pinky from base to tip",
    "vertices_camera": "778 x 3 metres, camera frame",
    "joints_camera": "21 x 3 metres, camera frame, OpenPose order",
    "keypoints_2d": "21 x 2 pixels of the image, OpenPose order: joints_camera through the camera",
    "translation": "3 metres, from the hand frame to the camera frame",
    "faces": "1538 x 3 vertices, counter-clockwise from outside",
    "landmarks": "21 x 2 pixels of the image: the detector's keypoints, OpenPose order",
    "mano_global_orient": "3 x 3 rotation of the wrist in the camera's axes",
    "mano_hand_pose": "15 x 3 x 3 rotations relative to the parent joint, MANO's joint order",
    "mano_betas": "10 shape parameters; these, and the pose, are of the hand that the model was trained with",
    "mano_axis_angle": "48 radians: wrist, then 15 joints, absolute",
    "mano_mean_relative": "48 radians: the same, the joints' minus hands_mean",
}
_OF_THE_IMAGE = ("camera", "metric")
_DECIMALS = 7  # of numbers in JSON: 0.1 micrometres


def save_hands(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Writes `Hands.arrays()`; see `Hands.save`."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot save hands as {path.name!r}: the suffixes are {', '.join(SUFFIXES)}")
    if suffix == ".json":
        write_text(path, json.dumps(_records(arrays), allow_nan=False) + "\n")
    elif suffix == ".npz":
        with replacing(path) as draft, open(draft, "wb") as file:  # a name without .npz in lower case would change
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    elif not len(arrays["vertices"]):
        raise ValueError(f"no hands to save as {path.name}: a mesh file cannot be empty (.json and .npz can)")
    else:
        is_gltf = suffix == ".glb"
        options = {"include_normals": True} if is_gltf else {}  # without them viewers show flat triangles
        content = _scene(arrays, gltf_axes=is_gltf).export(file_type=suffix[1:], **options)
        write_bytes(path, content.encode() if isinstance(content, str) else content)


def _records(arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    lists = {name: _rounded(values) for name, values in arrays.items()}
    of_hands = {name: values for name, values in lists.items() if name not in _OF_THE_IMAGE}
    hands = [{name: values[hand] for name, values in of_hands.items()} for hand in range(len(lists["right"]))]
    return {
        "meaning": {name: text for name, text in MEANING.items() if name in (*arrays, "frames")},
        **{name: lists[name] for name in _OF_THE_IMAGE},
        "hands": hands,
    }


def _rounded(values: NDArray) -> Any:
    return (values.astype(np.float64).round(_DECIMALS) if values.dtype.kind == "f" else values).tolist()


def _scene(arrays: Mapping[str, NDArray], gltf_axes: bool) -> trimesh.Scene:
    try:
        import trimesh
    except ImportError:
        raise ImportError("saving meshes needs trimesh: pip install 'fasthamer-kd[mesh]'") from None
    from fasthamer.render.mesh import MESH_COLOURS

    scene = trimesh.Scene()
    axes = np.array([1, -1, -1] if gltf_axes else [1, 1, 1])  # half a turn about x: faces stay outward
    hands = zip(arrays["vertices_camera"], arrays["faces"], arrays["right"].tolist(), strict=True)
    for number, (vertices, faces, right) in enumerate(hands):
        colours = np.full((len(vertices), 4), 255, np.uint8)
        colours[:, :3] = MESH_COLOURS["teacher" if right else "student"]
        mesh = trimesh.Trimesh(vertices * axes, faces, vertex_colors=colours, process=False)
        name = f"hand_{number}_{'right' if right else 'left'}"
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    return scene
