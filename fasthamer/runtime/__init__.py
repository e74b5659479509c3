"""Running finished models: timing."""
