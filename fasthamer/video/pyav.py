"""PyAV, which the extra `video` installs."""

from __future__ import annotations

from types import ModuleType


def pyav() -> ModuleType:
    """The module `av`.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "video files are read and written with PyAV, which is not installed: pip install 'fasthamer-kd[video]'"
        ) from error
    return av
