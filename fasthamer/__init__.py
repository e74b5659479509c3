"""fasthamer: distil a heavy 3D hand-mesh teacher into light students."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout, distill/, students/, teachers/, tools/ and configs/ stand beside this folder and are its subpackages;
# an installed copy has them inside.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file():
    __path__.append(str(_root))
