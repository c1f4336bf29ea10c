"""Checks and measurements that need a GPU, as one command: `make gpu`, or `python -m tests.gpu`."""
