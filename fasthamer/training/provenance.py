"""Where a run comes from: command, code, packages, data and hand."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import fasthamer

PACKAGES = ("torch", "torchvision", "timm", "smplx", "accelerate", "safetensors", "numpy", "opencv-python-headless")


def provenance(seed: int, hand: str, data: dict[str, str]) -> dict[str, Any]:
    """A record for `provenance.json` and the student's header.

    Args:
        seed: the run's.
        hand: the hand model's fingerprint.
        data: fingerprints by role, such as `training`.
    """
    return {
        "command": " ".join(sys.argv),
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("fasthamer-kd", *PACKAGES)},
        "machine": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "hand": hand,
        "data": data,
    }


def revision() -> str | None:
    """The checkout's git revision, `+` appended if files differ from it; None outside a checkout."""
    root = Path(fasthamer.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or one so large that git takes too long
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
