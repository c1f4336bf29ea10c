"""Experiments whose tables stand in the documentation; `make tasks` runs them."""
