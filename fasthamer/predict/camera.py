"""The camera of an image: given, from its EXIF data, or HaMeR's assumption."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.camera import full_image_focal

if TYPE_CHECKING:
    from fasthamer.files.image_forms import ImageLike

FILM_DIAGONAL = 43.27  # mm, of the 36 x 24 mm frame


class Camera(NamedTuple):
    """A pinhole camera in pixels; the centre of the first pixel is (0, 0). It looks along +z, x right, y down."""

    fx: float
    fy: float
    cx: float  # principal point
    cy: float
    metric: bool  # whether the focal length is that of the real camera, so that depths are metres

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) intrinsics K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


def image_camera(camera: Camera | ArrayLike | None, image: ImageLike, width: int, height: int) -> Camera:
    """The camera of an image of `width` x `height` pixels.

    Args:
        camera: the focal length in pixels; or fx, fy, cx, cy; or the (3, 3) intrinsics; or a `Camera`. The principal
            point is the middle of the image unless it is given. None: the focal length of the image's EXIF data, else
            HaMeR's long one, which is not metric.
        image: as the user gave it.

    Raises:
        ValueError: none of these, not finite, a focal length that is not positive, or intrinsics with skew.
    """
    if isinstance(camera, Camera):
        return _checked(np.array(camera[:4]))._replace(metric=camera.metric)
    if camera is not None:
        return _given(camera, width, height)
    equivalent = _equivalent_focal(image)
    if equivalent is None:
        focal = full_image_focal(width, height)
    else:
        focal = equivalent / FILM_DIAGONAL * float(np.hypot(width, height))
    return Camera(focal, focal, width / 2, height / 2, equivalent is not None)


def _given(camera: ArrayLike, width: int, height: int) -> Camera:
    try:
        numbers = np.asarray(camera, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"camera is {camera!r}; {_EXPECTED}") from None
    if numbers.shape == ():
        numbers = np.array([numbers, numbers, width / 2, height / 2])
    elif numbers.shape == (3, 3):
        rest = [numbers[0, 1], numbers[1, 0], *numbers[2]]
        if not np.allclose(rest, [0, 0, 0, 0, 1], rtol=0, atol=1e-6):
            raise ValueError(f"camera is {numbers.tolist()}; expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], no skew")
        numbers = numbers[[0, 1, 0, 1], [0, 1, 2, 2]]
    return _checked(numbers)


def _checked(numbers: NDArray[np.float64]) -> Camera:
    if numbers.shape != (4,):
        raise ValueError(f"camera has shape {numbers.shape}; {_EXPECTED}")
    if not np.isfinite(numbers).all() or (numbers[:2] <= 0).any():
        raise ValueError(f"camera is {numbers.tolist()} (fx, fy, cx, cy); {_EXPECTED}, finite, focal lengths above 0")
    fx, fy, cx, cy = numbers.tolist()
    return Camera(fx, fy, cx, cy, metric=True)


_EXPECTED = "expected a focal length in pixels, or fx, fy, cx, cy, or (3, 3) intrinsics"


def _equivalent_focal(image: ImageLike) -> float | None:
    """The focal length in mm that gives a 35 mm camera the same diagonal angle of view; None where it is unknown."""
    if isinstance(image, str | Path):
        from fasthamer.files.images import read_equivalent_focal

        return read_equivalent_focal(Path(image))
    if hasattr(image, "getexif"):  # Pillow
        from fasthamer.files.pixels import equivalent_focal

        return equivalent_focal(image)  # type: ignore[arg-type]
    return None
