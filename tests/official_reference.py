"""The official evaluations rewritten from their definitions, one sample and one keypoint at a time, for comparison.

Slow and plain on purpose: SciPy's Procrustes, brute-force nearest neighbours, no array of samples anywhere.
"""

import numpy as np
from scipy.integrate import trapezoid
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

MANO_FROM_OPENPOSE = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20]  # HaMeR's, for HO-3D
OPENGL = np.array([1, -1, -1])


class EvalUtil:
    """Distances of each keypoint collected over samples: mean over samples, then keypoints; AUC of each PCK curve."""

    def __init__(self, keypoints):
        self.errors = [[] for _ in range(keypoints)]

    def feed(self, gt, pred):
        for keypoint, errors in enumerate(self.errors):
            errors.append(np.sqrt(((gt[keypoint] - pred[keypoint]) ** 2).sum()))

    def measures(self, largest):
        thresholds = np.linspace(0.0, largest, 100)
        means, areas = [], []
        for errors in map(np.array, self.errors):
            curve = (errors[:, None] <= thresholds).mean(0)
            means.append(errors.mean())
            areas.append(trapezoid(curve, thresholds) / trapezoid(np.ones(100), thresholds))
        return np.mean(means), np.mean(areas)


def align_w_scale(gt, pred):
    t1, t2 = gt.mean(0), pred.mean(0)
    s1, s2 = np.linalg.norm(gt - t1) + 1e-8, np.linalg.norm(pred - t2) + 1e-8
    rotation, scale = orthogonal_procrustes((gt - t1) / s1, (pred - t2) / s2)
    return (pred - t2) / s2 @ rotation.T * scale * s1 + t1


def align_rigidly(gt, pred):
    """The rotation that SciPy finds for vectors, and then the best scale; norms grow by 1e-8 as above."""
    gt0, pred0, norm = gt - gt.mean(0), pred - pred.mean(0), np.linalg.norm(pred - pred.mean(0))
    if norm < 1e-12:
        return np.zeros_like(pred) + gt.mean(0)
    turned = Rotation.align_vectors(gt0, pred0)[0].apply(pred0)
    return turned * (gt0 * turned).sum() / (norm + 1e-8) ** 2 + gt.mean(0)


def align_sc_tr(gt, pred):
    """In MANO's order: joint 4 is the middle knuckle."""
    length = np.sqrt(((pred[4] - pred[0]) ** 2).sum())
    scaled = pred / length if length > 0 else pred
    scaled = scaled * np.sqrt(((gt[4] - gt[0]) ** 2).sum())
    return scaled - scaled[0] + gt[0]


def f_score(gt, pred, threshold):
    pairs = np.linalg.norm(gt[:, None] - pred[None], axis=-1)
    recall, precision = (pairs.min(1) < threshold).mean(), (pairs.min(0) < threshold).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def meshes_and_joints(xyz_pred, verts_pred, xyz, verts, scale_translation=False):
    """What eval.py of FreiHAND and HO-3D write, here in metres: means, areas and F-scores by their official names."""
    names = ["xyz", "xyz_al", *(["xyz_st"] if scale_translation else [])]
    utils = {name: EvalUtil(21) for name in names} | {name: EvalUtil(len(verts[0])) for name in ("mesh", "mesh_al")}
    scores = {f"f{kind}_score_{mm}": [] for kind in ("", "_al") for mm in (5, 15)}
    for j_pred, v_pred, j, v in zip(xyz_pred, verts_pred, xyz, verts, strict=True):
        v_aligned = align_w_scale(v, v_pred)
        utils["xyz"].feed(j, j_pred)
        utils["xyz_al"].feed(j, align_w_scale(j, j_pred))
        if scale_translation:
            utils["xyz_st"].feed(j, align_sc_tr(j, j_pred))
        utils["mesh"].feed(v, v_pred)
        utils["mesh_al"].feed(v, v_aligned)
        for mm in (5, 15):
            scores[f"f_score_{mm}"].append(f_score(v, v_pred, mm / 1000))
            scores[f"f_al_score_{mm}"].append(f_score(v, v_aligned, mm / 1000))
    result = {name: np.mean(values) for name, values in scores.items()}
    for name, util in utils.items():
        result[f"{name}_mean3d"], result[f"{name}_auc3d"] = util.measures(0.05)
    return result


def dexycb(result, truth):
    """hpe_eval.py: image id -> (21, 3) millimetres, twice; a true hand of -1 metres everywhere is not scored."""
    utils = {name: EvalUtil(21) for name in ("absolute", "root-relative", "procrustes")}
    for image_id, gt in truth.items():
        if (gt == -1000).all():
            continue
        pred = result[image_id]
        utils["absolute"].feed(gt, pred)
        utils["root-relative"].feed(gt - gt[0], pred - pred[0])
        utils["procrustes"].feed(gt, align_w_scale(gt, pred))
    return {name: util.measures(50.0) for name, util in utils.items()}


def kp_avg_pck(pred, gt, confidence, size, threshold):
    """HaMeR's EvaluatorPCK, with loops: the mean of the joints' shares over the set."""
    shares = []
    for joint in range(21):
        right = valid = 0
        for sample in range(len(pred)):
            if confidence[sample, joint] > 0.5:
                valid += 1
                right += np.hypot(*(pred[sample, joint] - gt[sample, joint])) <= size[sample] * threshold
        shares.append(right / valid)
    return np.mean(shares)
