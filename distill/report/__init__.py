"""HTML reports of evaluations and runs: one file each, readable without a network."""
