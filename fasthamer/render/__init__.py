"""Rendering: rasteriser, overlays of meshes and skeletons, labelled grids of images."""
