"""Distillation: losses, objective, learner and the training loop."""
