"""Distillation: losses, feature alignment, the learner and the training loop."""
