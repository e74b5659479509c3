"""Errors of predicted hands: alignment, point and surface errors, and the datasets' protocols."""
