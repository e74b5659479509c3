"""Commands: each file is `python tools/NAME.py` and `fasthamer NAME`."""
