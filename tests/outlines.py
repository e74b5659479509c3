"""How far points and meshes lie from a hand that `miniatures_capture` has drawn."""

import cv2
import numpy as np
from miniatures_capture import draw


def off_the_hand(points, image):
    """Pixels from each point (N, 2) to the nearest one that shows the drawn hand: (N,)."""
    away = cv2.distanceTransform((image[..., 0] <= 100).astype(np.uint8), cv2.DIST_L2, 5)
    x, y = np.clip(np.rint(points).astype(int).T, 0, np.array(away.shape[::-1])[:, None] - 1)
    return away[y, x]


def outline_error(vertices, faces, K, image):
    """How far, in pixels, the drawn hand and the mesh as the camera K sees it reach beyond each other."""
    height, width = image.shape[:2]
    shown, expected = image[..., 0] > 100, draw(vertices, faces, K, width, height)[1]
    away = [cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) for mask in (shown, expected)]
    return max(away[0][expected].max(), away[1][shown].max())
