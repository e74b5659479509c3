"""Pictures: rasteriser, overlays, sheets."""
