"""Crops, augmentation and dataset readers."""
