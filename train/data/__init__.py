"""From packed rows to batches: mixture, order, schedule and collation."""
