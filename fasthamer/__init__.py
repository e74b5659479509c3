"""fasthamer: distil a heavy 3D hand-mesh teacher into light students."""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# In a checkout, distill/, students/, teachers/, tools/ and configs/ stand beside this folder and are its subpackages;
# an installed copy has them inside.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    """`from fasthamer import HandMesh`; its modules are imported only then."""
    if name == "HandMesh":
        return import_module("fasthamer.predict").HandMesh
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
