"""Speed, memory and cost of models, measured interleaved in one run."""
