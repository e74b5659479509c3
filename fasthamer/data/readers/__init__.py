"""A reader for each dataset: its file formats and conventions end here."""
