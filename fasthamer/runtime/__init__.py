"""Inference of trained models: folding, export, quantisation, and sessions in every runtime."""
