"""Measurements of tools/assets/gpu_check.py and the page that they become."""
