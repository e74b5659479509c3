"""Hands in videos: tracked from frame to frame, smoothed, and written as a video, JSON and meshes.

hands = HandVideo("mobilenetv3_l")
for image, time in frames:                  # (H, W, 3) uint8 RGB, seconds
    tracked = hands(image, time)            # tracked.ids, tracked.hands[0].vertices
predict_video("clip.mp4", "out.mp4", hands)
"""

from fasthamer.video.follow import HandVideo, TrackedHands
from fasthamer.video.predict import VideoSummary, predict_video, predict_webcam
from fasthamer.video.tracker import HandTracker

__all__ = ["HandTracker", "HandVideo", "TrackedHands", "VideoSummary", "predict_video", "predict_webcam"]
