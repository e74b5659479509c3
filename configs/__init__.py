"""Recipes: short YAML files over the defaults of `fasthamer.config`."""
