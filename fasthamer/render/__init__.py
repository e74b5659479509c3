"""Images: rasteriser, overlays, sheets."""
