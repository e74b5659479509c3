"""Finds hands in whole images: MediaPipe's two hand networks, and what a detector of any kind returns."""
