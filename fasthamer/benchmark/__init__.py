"""Timing, memory and cost of models, measured in turns in one run."""
