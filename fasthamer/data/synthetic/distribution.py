"""What synthetic images show how often."""

from __future__ import annotations

from typing import NamedTuple


class Distribution(NamedTuple):
    """Shares of all images; what remains of the viewpoints are uniform random orientations."""

    raised: float  # gestures towards the camera, as in sign language and video calls
    egocentric: float  # fingers away from the camera, the back or side of the hand towards it
    occluded: float  # with an object before the hand
    all_edges: float  # crops that show all four edges of the source image: HaMeR pads with black beyond them
    some_edges: float  # or one or two edges
    gestures: float = 0.0  # with a pose that people show to a camera, see `fasthamer.hand.pose_sampling`


HARD = Distribution(raised=0.6, egocentric=0.15, occluded=0.2, all_edges=0.3, some_edges=0.15)
LIFE = Distribution(raised=0.78, egocentric=0.17, occluded=0.06, all_edges=0.0, some_edges=0.08)
GESTURES = LIFE._replace(gestures=0.85)
# The average of the three: for models that shall work on all.
VARIED = Distribution(raised=0.72, egocentric=0.16, occluded=0.11, all_edges=0.1, some_edges=0.1, gestures=0.28)
# hard: for training, and the evaluation of every run until now
DISTRIBUTIONS = {"hard": HARD, "life": LIFE, "gestures": GESTURES, "varied": VARIED}
