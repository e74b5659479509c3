"""Reading pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or cut short.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no picture {path}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: damaged picture ({error}); copy or download it again") from None
