"""How far a predicted hand is from the true one: alignment, point and surface errors, and the datasets' protocols."""
