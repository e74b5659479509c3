"""The hand model: MANO or the embedded procedural hand, its files, conventions and rotations."""
