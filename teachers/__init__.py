"""Heavy hand models to learn from."""
