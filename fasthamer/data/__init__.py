"""Datasets, crops and augmentation; `fasthamer.data.build` makes the datasets that a config names.

Nothing is imported here: exported models crop with `fasthamer.data.crop` and need no torch.
"""
