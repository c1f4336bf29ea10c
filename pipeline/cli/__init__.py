"""The command line: everything that knows click."""
