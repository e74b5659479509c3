"""Check this installation: Python, PyTorch, devices, packages, shipped files, your MANO file and checkpoints, the disk.

    python tools/doctor.py
    python tools/doctor.py --mano MANO_RIGHT.pkl --checkpoint hamer.ckpt

Every line is ok, a warning or an error; a warning and an error say what to do. Checkpoints are also looked for in the
variables FASTHAMER_HAMER_CKPT and FASTHAMER_WILOR_CKPT. Nothing is downloaded, changed or executed from a file.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from fasthamer.cores import usable_cores
from fasthamer.tools import cli

PACKAGE = "fasthamer-kd"
EXTRAS = {  # package: (extra, what needs it)
    "trimesh": ("mesh", "hands.save as PLY, OBJ and GLB"),
    "av": ("video", "video files"),
    "gradio": ("web", "the web page"),
    "webdataset": ("data", "tar shards"),
    "onnx": ("export", "export to ONNX"),
    "openvino": ("export", "export to OpenVINO"),
}
LITTLE, TOO_LITTLE = 5.0, 0.5  # GB free
AGAIN = f"install fasthamer again: pip install --force-reinstall --no-deps {PACKAGE}"


class Finding(NamedTuple):
    """One line of the report."""

    level: Literal["ok", "warning", "error"]
    subject: str
    text: str


def main(argv: list[str] | None = None) -> int:
    """0 no errors (warnings perhaps), 1 errors, 2 the user's mistake."""
    import fasthamer

    arguments = _parser().parse_args(argv)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", python),
        ("torch", torch_and_devices),
        ("torchvision", torchvision),
        ("onnxruntime", onnxruntime),
        ("packages", extras),
        ("files", lambda: assets(Path(fasthamer.__file__).parent / "assets")),
        ("mano", lambda: mano(arguments.mano)),
        ("checkpoint", lambda: checkpoints(arguments.checkpoint)),
        ("disk", lambda: disk(Path.cwd())),
    ]
    errors = 0
    for subject, check in checks:
        try:
            for finding in check():
                print(f"{finding.level:8s} {finding.subject:12s} {finding.text}", flush=True)
                errors += finding.level == "error"
        except Exception as error:  # a broken package fails in its own way: that is a finding
            print(f"{'error':8s} {subject:12s} {type(error).__name__}: {cli.one_line(error)}", flush=True)
            errors += 1
    print(f"{errors} error{'' if errors == 1 else 's'}")
    return 1 if errors else 0


def python() -> Iterator[Finding]:
    """The interpreter and fasthamer itself."""
    level: Literal["ok", "error"] = "ok" if sys.version_info >= (3, 11) else "error"
    yield Finding(level, "python", f"{platform.python_version()} on {platform.platform()}; 3.11 or newer is needed")
    version = importlib.metadata.version(PACKAGE) if _installed(PACKAGE) else "not installed: run from a checkout"
    yield Finding("ok", "fasthamer", version)


def torch_and_devices() -> Iterator[Finding]:
    """PyTorch's version, device, number types and threads."""
    import torch

    from fasthamer.device import pick_device, trouble_with

    with warnings.catch_warnings(action="ignore"):  # the finding says it
        device = pick_device("auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    yield Finding("ok", "torch", f"{torch.__version__}")
    if device.type == "cuda":
        bf16 = "bf16 and fp32" if torch.cuda.is_bf16_supported() else "fp32; no bf16"
        yield Finding("ok", "device", f"cuda: {name}, {bf16}")
    elif torch.cuda.is_available():
        yield Finding(
            "warning",
            "device",
            f"{device.type}: this torch ({torch.__version__}) sees a GPU but does not compute on it "
            f"({trouble_with('cuda')}); install the build for your GPU from pytorch.org",
        )
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "warning",
            "device",
            f"{device.type}, but there is an NVIDIA driver: this torch ({torch.version.cuda or 'without CUDA'}) cannot "
            "use it; install the build for your driver from pytorch.org",
        )
    else:
        yield Finding("ok", "device", f"{device.type}: {name}, fp32")
    threads, cores = torch.get_num_threads(), usable_cores()
    if threads > cores:
        yield Finding("warning", "threads", f"{threads} on {cores} cores: set OMP_NUM_THREADS to at most {cores}")
    else:
        yield Finding("ok", "threads", f"{threads} of {cores} cores")


def torchvision() -> Iterator[Finding]:
    """Whether torchvision is the build for this torch: its operators load."""
    import torch

    mend = f"install both together: pip install --upgrade torch torchvision (torch is {torch.__version__})"
    try:
        import torchvision
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        yield Finding("error", "torchvision", f"does not fit torch ({cli.one_line(error)}); {mend}")
        return
    yield Finding("ok", "torchvision", f"{torchvision.__version__}")


def onnxruntime() -> Iterator[Finding]:
    """ONNX Runtime, which runs the detector, and its execution providers."""
    from fasthamer.runtime.onnxruntime_package import import_onnxruntime

    try:
        runtime = import_onnxruntime()
    except ImportError as error:
        yield Finding("error", "onnxruntime", cli.one_line(error))
        return
    yield Finding("ok", "onnxruntime", f"{runtime.__version__}: {', '.join(runtime.get_available_providers())}")


def extras() -> Iterator[Finding]:
    """Optional packages; a missing one is no error."""
    for package, (extra, use) in EXTRAS.items():
        if not _installed(package):
            text = f"not installed; only for {use}: pip install '{PACKAGE}[{extra}]'"
            yield Finding("ok", package, text)
        elif importlib.util.find_spec(package) is None:
            yield Finding(
                "warning", package, f"installed, but cannot be imported: pip install --force-reinstall {package}"
            )
        else:
            yield Finding("ok", package, importlib.metadata.version(package))


def assets(folder: Path) -> Iterator[Finding]:
    """Every shipped file: present, readable, and as it was installed.

    Args:
        folder: `fasthamer/assets`, or a copy of it.
    """
    hashes = _installed_hashes()
    names = ["procedural_hand.npz", *(f"mediapipe/{part}_lite.onnx" for part in ("palm", "landmark"))]
    names += sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    for required in ("embedded_teacher", "embedded_tokenizer", "mobilenetv3_l"):
        if f"{required}.safetensors" not in names:
            names.append(f"{required}.safetensors")
    good = 0
    for name in names:
        problem = asset_problem(folder / name, hashes.get(f"fasthamer/assets/{name}"))
        if problem:
            yield Finding("error", "files", f"{folder / name}: {problem}; {AGAIN}")
        good += not problem
    checked = "their checksums fit" if hashes else "no checksums in this kind of installation"
    yield Finding("ok", "files", f"{good} of {len(names)} shipped files are whole; {checked}")


def asset_problem(path: Path, sha256: str | None) -> str | None:
    """What is wrong with a shipped file.

    Args:
        path: of the file.
        sha256: of the file as it was installed, base64; None: not known.
    """
    if not path.is_file():
        return "missing"
    if sha256 and base64.urlsafe_b64encode(_digest(path)).rstrip(b"=").decode() != sha256:
        return "not the file that was installed (its checksum differs)"
    try:
        if path.suffix == ".onnx":
            from fasthamer.runtime.onnxruntime_package import import_onnxruntime

            import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
        elif path.suffix == ".npz":
            from fasthamer.hand.mano_files import read_hand_arrays

            read_hand_arrays(path)
        else:
            from safetensors.torch import load_file

            broken = [name for name, value in load_file(path).items() if not value.isfinite().all()]
            return f"not finite: {broken[0]}" if broken else None
    except Exception as error:  # each library raises its own
        return f"cannot be read ({cli.one_line(error)})"
    return None


def mano(path: Path | None) -> Iterator[Finding]:
    """The user's MANO file, read as data."""
    from fasthamer.hand.mano_files import read_hand_arrays

    if path is None:
        yield Finding("ok", "mano", "none given (--mano FILE): the embedded hand is used where no MANO file is needed")
        return
    try:
        read_hand_arrays(path)
    except (ValueError, OSError) as error:
        yield Finding("error", "mano", cli.one_line(error))
        return
    yield Finding("ok", "mano", f"{path}: a right hand of 778 vertices; sha256 {_digest(path).hex()}")


def checkpoints(given: Path | None) -> Iterator[Finding]:
    """The teachers' checkpoints that are given or named in the environment, read as data."""
    from fasthamer.teachers.zoo import PUBLISHED, checkpoint_of

    found = {"checkpoint": str(given)} if given else {}
    found |= {each.variable: path for teacher, each in PUBLISHED.items() if (path := checkpoint_of(teacher))}
    if not found:
        variables = " and ".join(each.variable for each in PUBLISHED.values())
        yield Finding(
            "ok", "checkpoint", f"none given (--checkpoint FILE, {variables}): only for --teacher hamer or wilor"
        )
    for name, path in found.items():
        yield _checkpoint(name, Path(path))


def _checkpoint(name: str, path: Path) -> Finding:
    from fasthamer.files.safe_checkpoint import read_state_dict
    from fasthamer.hand.mano_files import read_hand_arrays
    from fasthamer.teachers.zoo import PUBLISHED

    where = "; ".join(f"{each.title}: {each.source}" for each in PUBLISHED.values())
    try:
        state = read_state_dict(path)
        read_hand_arrays(path)
    except FileNotFoundError as error:
        return Finding("error", name, f"{cli.one_line(error)}. {where}")
    except (ValueError, OSError) as error:
        return Finding("error", name, f"{cli.one_line(error)}; get it again. {where}")
    if not any(key.startswith("backbone.") for key in state):
        return Finding("error", name, f"{path}: weights, but of neither HaMeR nor WiLoR. {where}")
    title = "WiLoR" if any(key.startswith("refine_net.") for key in state) else "HaMeR"
    millions = sum(value.numel() for value in state.values()) / 1e6
    return Finding("ok", name, f"{path}: {title}, {millions:.0f} M numbers; sha256 {_digest(path).hex()}")


def disk(folder: Path) -> Iterator[Finding]:
    """Space where runs are written."""
    free = shutil.disk_usage(folder).free / 1e9
    text = f"{free:.1f} GB free in {folder}, where runs/ is written"
    if not os.access(folder, os.W_OK):
        yield Finding("warning", "disk", f"{folder} cannot be written to: start in another folder, or give --out")
    elif free < LITTLE:
        yield Finding(
            "error" if free < TOO_LITTLE else "warning", "disk", f"{text}: free some, or give --out elsewhere"
        )
    else:
        yield Finding("ok", "disk", text)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _installed_hashes() -> dict[str, str]:
    """The SHA-256 of each shipped file that pip wrote down; empty in a checkout."""
    files = (importlib.metadata.files(PACKAGE) or []) if _installed(PACKAGE) else []
    return {path.as_posix(): path.hash.value for path in files if path.hash and "assets" in path.parts}


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("doctor", __doc__)
    parser.add_argument("--mano", type=Path, metavar="FILE", help="MANO_RIGHT.pkl, a converted .npz or a checkpoint")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="hamer.ckpt or wilor_final.ckpt")
    return parser


if __name__ == "__main__":
    sys.exit(main())
