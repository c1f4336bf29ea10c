"""From archives to packed rows: download, read, clean, filter, tokenize, pack."""
