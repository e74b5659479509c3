"""How the files in fasthamer/assets were made: for maintainers, not needed to use fasthamer."""
