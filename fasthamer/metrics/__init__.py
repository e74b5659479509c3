"""Alignment, errors and the official evaluation protocols."""
