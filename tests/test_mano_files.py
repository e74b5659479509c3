"""Reading hands: the official pickle, converted files and checkpoints; and refusing what is unsafe, damaged or left."""

import contextlib
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch
from yacs.config import CfgNode

from fasthamer.files import safe_pickle
from fasthamer.hand.mano_files import SHAPES, check_hand_arrays, read_hand_arrays


@pytest.fixture(scope="module")
def arrays():
    return read_hand_arrays("embedded")


def mirrored(arrays):
    """The left hand of a right one."""
    left = {key: value.copy() for key, value in arrays.items()}
    left["v_template"][:, 0] *= -1
    left["shapedirs"][:, 0] *= -1
    left["posedirs"][:, 0] *= -1
    left["f"] = left["f"][:, ::-1]
    left["hands_mean"] = (left["hands_mean"].reshape(15, 3) * [1, -1, -1]).ravel()
    return left


@pytest.fixture
def chumpy(monkeypatch):
    """The class names of chumpy, enough for pickle to write down; gone again before anything is read."""
    names = {"chumpy": (), "chumpy.ch": ("Ch",), "chumpy.reordering": ("Select",)}
    for name, classes in names.items():
        module = types.ModuleType(name)
        for each in classes:
            setattr(module, each, type(each, (), {"__module__": name}))
        monkeypatch.setitem(sys.modules, name, module)
    return types.SimpleNamespace(Ch=sys.modules["chumpy.ch"].Ch, Select=sys.modules["chumpy.reordering"].Select)


def official(arrays, chumpy):
    """What MANO_RIGHT.pkl holds: a sparse regressor, shapedirs selected by chumpy out of twenty."""
    twenty = np.random.default_rng(0).normal(size=(778, 3, 20))
    twenty[..., ::2] = arrays["shapedirs"]
    source, select = chumpy.Ch(), chumpy.Select()
    source.x = twenty
    select.a, select.preferred_shape = source, (778, 3, 10)
    select.idxs = np.arange(twenty.size).reshape(twenty.shape)[..., ::2].ravel()
    kintree = arrays["kintree_table"].astype(np.uint32)  # the root's parent becomes 2**32 - 1
    return arrays | {
        "shapedirs": select,
        "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
        "kintree_table": kintree,
        "f": arrays["f"].astype(np.uint32),
        "bs_style": "lbs",
        "dirty": {1, 2},
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_official_layout_is_read_without_chumpy(arrays, chumpy, tmp_path, monkeypatch, protocol):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(official(arrays, chumpy), protocol=protocol))
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, name)
    found = read_hand_arrays(path)
    assert found.keys() == SHAPES.keys()
    for key, expected in arrays.items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)


def test_a_file_written_with_the_real_chumpy_is_read(shared_data):
    found = read_hand_arrays(shared_data("mano") / "SYNTHETIC_MANO_RIGHT_chumpy.pkl")
    assert {key: value.shape for key, value in found.items()} == {
        key: tuple(45 if n is None else n for n in shape) for key, shape in SHAPES.items()
    }
    np.testing.assert_allclose(found["J_regressor"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(found["weights"].sum(1), 1, atol=1e-6)


def test_a_converted_npz_is_read(arrays, tmp_path):
    np.savez(tmp_path / "hand.npz", **arrays, hands_coeffs=np.zeros((3, 45)))
    found = read_hand_arrays(tmp_path / "hand.npz")
    assert all(np.array_equal(found[key], arrays[key]) for key in SHAPES)


def test_an_npz_of_objects_says_how_to_convert(arrays, tmp_path):
    sparse = np.array(scipy.sparse.csc_matrix(arrays["J_regressor"]), dtype=object)
    np.savez(tmp_path / "hand.npz", **(arrays | {"J_regressor": sparse}))
    with pytest.raises(ValueError, match=r"np\.savez"):
        read_hand_arrays(tmp_path / "hand.npz")


def checkpoint(arrays):
    """The buffers that HaMeR's checkpoint carries, among others."""
    mano = {
        "v_template": arrays["v_template"],
        "faces_tensor": arrays["f"],
        "shapedirs": arrays["shapedirs"],
        "posedirs": arrays["posedirs"].reshape(-1, 135).T,
        "J_regressor": arrays["J_regressor"],
        "lbs_weights": arrays["weights"],
        "parents": arrays["kintree_table"][0],
        "hand_mean": arrays["hands_mean"],
        "hand_components": arrays["hands_components"][:6],
        "extra_joints_idxs": np.array([744, 320, 443, 554, 671]),
    }
    state = {f"mano.{key}": torch.from_numpy(value.copy()) for key, value in mano.items()}
    state["backbone.pos_embed"] = torch.zeros(1, 193, 8)
    cfg = CfgNode({"MODEL": {"IMAGE_SIZE": 256}})
    cfg.freeze()
    return {"state_dict": state, "epoch": 7, "hyper_parameters": {"cfg": cfg}, "callbacks": {}}


def test_the_hand_inside_a_lightning_checkpoint_with_yacs_settings_is_read(arrays, tmp_path):
    torch.save(checkpoint(arrays), tmp_path / "hamer.ckpt")
    found = read_hand_arrays(tmp_path / "hamer.ckpt")
    assert found["hands_components"].shape == (6, 45)
    assert all(np.array_equal(found[key], arrays[key]) for key in SHAPES if key != "hands_components")


def test_a_checkpoint_without_the_hand_says_so(tmp_path):
    torch.save({"state_dict": {"backbone.x": torch.zeros(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"no mano\.\* buffers"):
        read_hand_arrays(tmp_path / "other.ckpt")


class Evil:
    """Writes a file when it is unpickled the ordinary way."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(arrays, tmp_path):
    target = tmp_path / "ran"
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(arrays | {"v_template": Evil(target)}))
    with pytest.raises(ValueError, match=r"io\.open|_io\.open"):
        read_hand_arrays(tmp_path / "MANO_RIGHT.pkl")
    assert not target.exists()


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(arrays, tmp_path):
    target = tmp_path / "ran"
    torch.save(checkpoint(arrays) | {"loops": Evil(target)}, tmp_path / "hamer.ckpt")
    with pytest.raises(ValueError, match=r"refused.*open"):
        read_hand_arrays(tmp_path / "hamer.ckpt")
    assert not target.exists()


def test_an_npz_that_runs_code_is_refused_and_does_not_run(arrays, tmp_path):
    target = tmp_path / "ran"
    np.savez(tmp_path / "hand.npz", **(arrays | {"f": np.array(Evil(target), dtype=object)}))
    with pytest.raises(ValueError, match="pickled objects"):
        read_hand_arrays(tmp_path / "hand.npz")
    assert not target.exists()


@pytest.mark.parametrize("name", ["MANO_RIGHT.pkl", "hand.npz", "hamer.ckpt"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_one_clear_error(arrays, tmp_path, name, part):
    whole = tmp_path / f"whole_{name}"
    if name.endswith("pkl"):
        whole.write_bytes(pickle.dumps(arrays))
    elif name.endswith("npz"):
        np.savez(whole, **arrays)
    else:
        torch.save(checkpoint(arrays), whole)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=name):
        read_hand_arrays(tmp_path / name)


def test_damaged_bytes_raise_nothing_but_value_errors():
    rng = np.random.default_rng(0)
    good = pickle.dumps({"a": np.arange(6.0), "b": [np.float32(1), {"c": "d"}]}, protocol=4)
    for _ in range(1000):
        damaged = bytearray(good)
        for place in rng.integers(0, len(good), 3):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(ValueError):
            safe_pickle.loads(bytes(damaged))


def test_a_pickle_can_not_change_the_reader():
    stream = b"cnumpy.core.multiarray\nscalar\n(N(dV__doc__\nVchanged\nstb."  # a state for the function itself
    with pytest.raises(ValueError, match=r"refused.*state"):
        safe_pickle.loads(stream)


def test_a_memo_number_out_of_bounds_takes_no_memory():
    # LONG_BINPUT 2**31: CPython's own unpickler allocates 32 GB for these nine bytes
    assert safe_pickle.loads(b"\x80\x02]r\x00\x00\x00\x80.") == []


def test_plain_data_comes_through_a_pickle_unchanged():
    inner = {"loss": np.float64(0.5)}
    boxed = np.empty((), dtype=object)  # as HaMeR's training files keep a dict
    boxed[()] = inner
    data = [{"k": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)), "info": boxed, "t": (1, "x", b"\xff")}]
    for protocol in (2, 3, 4, 5):
        (found,) = safe_pickle.loads(pickle.dumps(data, protocol=protocol))
        np.testing.assert_array_equal(found["k"], data[0]["k"])
        assert found["info"].shape == () and found["info"].item() == inner and found["t"] == (1, "x", b"\xff")


def test_arrays_of_structures_are_refused():
    for dtype in ([("a", "O")], "V8", "M8[s]"):
        with pytest.raises(ValueError, match=r"array of type|asks for"):
            safe_pickle.loads(pickle.dumps(np.zeros(2, dtype=dtype)))


def test_a_left_hand_is_named_as_the_problem(arrays, tmp_path):
    np.savez(tmp_path / "hand.npz", **mirrored(arrays))
    with pytest.raises(ValueError, match=r"left hand.*MANO_RIGHT"):
        read_hand_arrays(tmp_path / "hand.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("weights"), "weights missing"),
        (lambda a: a.update(shapedirs=np.zeros((778, 3, 20))), r"shapedirs is float64 \(778, 3, 20\)"),
        (lambda a: a["v_template"].__setitem__((5, 1), np.nan), "v_template holds numbers that are not finite"),
        (lambda a: a["f"].__setitem__((0, 0), 778), "vertices that do not exist"),
        (lambda a: a["kintree_table"].__setitem__((0, 3), 0), "kintree_table"),
        (lambda a: a.update(weights="text"), "weights"),
    ],
)
def test_arrays_that_are_not_a_hands_are_refused_by_name(arrays, change, message):
    changed = {key: value.copy() for key, value in arrays.items()}
    change(changed)
    with pytest.raises(ValueError, match=message):
        check_hand_arrays(changed, "somewhere")


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mano\.is\.tue\.mpg\.de"):
        read_hand_arrays(tmp_path / "MANO_RIGHT.pkl")
    (tmp_path / "hand.txt").write_text("x")
    with pytest.raises(ValueError, match=r"\.pkl, \.npz or \.ckpt"):
        read_hand_arrays(tmp_path / "hand.txt")
