"""From packed rows to batches: which row comes when, and what a batch holds."""
