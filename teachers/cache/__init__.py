"""A teacher's outputs on disk, moved with the augmentation."""
