"""Engines: where the pieces of a stage run, when not in the worker processes of this machine alone."""
