"""WiLoR at full size against outputs of the official code on seeded weights, stage by stage."""

import re
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fasthamer.camera import weak_to_translation
from fasthamer.teachers.vit import patch_map
from fasthamer.teachers.wilor import PATCHES, hollow_wilor, mano_params
from fasthamer.teachers.wilor_checkpoint import published_shapes, to_ours
from fasthamer.teachers.wilor_refinement import Prediction, gather

MEANS = {"backbone.init_hand_pose": "pose", "backbone.init_betas": "shape", "backbone.init_cam": "cam"}


@pytest.fixture(scope="module")
def official(shared_data):
    """Names and shapes of the published network's tensors."""
    shapes = {}
    for line in (shared_data("wilor") / "wilor_state_dict_keys.txt").read_text().splitlines():
        name, shape, _ = line.split("\t")
        shapes[name] = tuple(int(n) for n in re.findall(r"\d+", shape))
    return shapes


def seeded(name: str, shape: tuple[int, ...], means) -> torch.Tensor:
    """The weights that the stored outputs were computed with."""
    if name in MEANS:
        return torch.from_numpy(means[MEANS[name]].astype(np.float32)).reshape(shape)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("running_mean"):
        values *= 0.02
    elif name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif len(shape) == 1 and name.endswith("weight"):
        values = 1 + 0.1 * values
    elif len(shape) in (1, 3):
        values *= 0.02
    else:
        small = name in ("backbone.deccam.weight", "refine_net.dec_cam.weight")
        values *= np.float32((0.1 if small else 1) / np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(values)


def test_our_names_and_shapes_are_the_published_ones(official, embedded):
    assert len(official) == 430
    assert published_shapes(hollow_wilor(embedded)) == official


def test_the_official_outputs_on_seeded_weights(official, embedded, shared_data):
    model = hollow_wilor(embedded)
    with np.load(shared_data("hamer") / "mano_mean_params.npz") as means, ThreadPoolExecutor(2) as threads:
        means = dict(means)
        values = threads.map(lambda item: seeded(*item, means), official.items())
        model.load_state_dict(to_ours(dict(zip(official, values, strict=True))), assign=True)
    model.eval()
    image = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 3, 256, 256), np.float32))
    with np.load(shared_data("wilor") / "wilor_seed0.npz") as file:
        golden = dict(file)
    decoder = model.decoder
    with torch.no_grad():
        tokens = model.backbone(image[..., 32:224])
        output = decoder(tokens, embedded)
        first, features = decoder.first(tokens), patch_map(tokens[:, PATCHES:])
        vertices, _ = embedded(mano_params(first))
        x4, x2, x1 = maps = decoder.refine_net.deconv(features)
        delta = decoder.refine_net(features, vertices, first.camera)
        elsewhere = torch.from_numpy(golden.pop("probe_cam"))  # spreads the vertices, some off the map
        by = decoder.refine_net(features, vertices, elsewhere)
        probe = Prediction(*(before + change for before, change in zip(first, by, strict=True)))
        probe_mano = mano_params(probe)
        found = {
            "feat_sample": output.features[:, ::64, ::4, ::4],
            "feat_mean": output.features.mean((2, 3)),
            "first_pose6d": first.pose,
            "first_betas": first.betas,
            "first_cam": first.camera,
            "first_vertices_sample": vertices[:, ::16],
            "conv_x1_sample": x1[:, ::64, ::4, ::4],
            "deconv_x2_sample": x2[:, ::32, ::8, ::8],
            "deconv_x4_sample": x4[:, ::16, ::8, ::8],
            "corner_x4": x4[:, ::16, :2, :2],
            "vertex_features": gather(maps, vertices, first.camera),
            "delta_pose6d": delta.pose,
            "delta_betas": delta.betas,
            "delta_cam": delta.camera,
            "global_orient": output.mano.global_orient,
            "hand_pose": output.mano.hand_pose,
            "betas": output.mano.betas,
            "cam": output.camera,
            "cam_t": weak_to_translation(output.camera),
            "vertices": output.vertices,
            "keypoints_3d": output.joints,
            "keypoints_2d": output.keypoints_2d,
            "probe_vertex_features": gather(maps, vertices, elsewhere),
            "probe_global_orient": probe_mano.global_orient,
            "probe_hand_pose": probe_mano.hand_pose,
            "probe_betas": probe_mano.betas,
            "probe_refined_cam": probe.camera,
        }
        graph = model.deploy()
        mesh = graph.mesh(*graph.head(tokens), features)
    assert found.keys() == golden.keys()
    for name, expected in golden.items():
        np.testing.assert_allclose(found[name].numpy(), expected, atol=1e-4, rtol=0, err_msg=name)
    np.testing.assert_allclose(mesh.vertices.numpy(), golden["vertices"], atol=1e-5)
