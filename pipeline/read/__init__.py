"""From the files in `raw/` to numbered pieces of parsed records."""
