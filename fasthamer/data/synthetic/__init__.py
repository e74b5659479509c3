"""Synthetic images of hands with exact labels, rendered on the CPU."""
